"""A running server, asked over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from selfheal_cli.errors import ConfigurationError, NoAnswer

SECONDS = 10.0
MOST_BYTES = 10_000_000


def ask_status(url: str, token: str) -> dict[str, Any]:
    """The document of ``/status``; raises `NoAnswer` where there is none to be had.

    ``token`` goes to that server alone: a redirection is not followed.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"{url}: a URL such as http://127.0.0.1:5001 is expected")
    where = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    request = urllib.request.Request(f"{where}/status")  # noqa: S310 - http or https
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
            found = json.loads(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as exc:
        raise NoAnswer(f"{where}: {_refusal(exc)}") from exc
    except (OSError, urllib.error.URLError) as exc:
        reason = getattr(exc, "reason", exc)
        raise NoAnswer(
            f"{where}: nothing answers ({reason}); start 'selfheal serve NAME', or give "
            "--model-name NAME to read the registry"
        ) from exc
    except ValueError as exc:
        raise NoAnswer(f"{where}: answers, and is no 'selfheal serve' (no JSON)") from exc
    if not isinstance(found, dict) or not {"standing", "server", "told"} <= found.keys():
        raise NoAnswer(f"{where}: answers, and is no 'selfheal serve' (no status)")
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Nowhere else."""


def _refusal(exc: urllib.error.HTTPError) -> str:
    if exc.code == 401:
        return "a token is needed: give --token-file"
    try:
        message = str(json.loads(exc.read(MOST_BYTES))["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"answers with status {exc.code}: is it a 'selfheal serve'?"
    return f"status {exc.code}: {message}"
