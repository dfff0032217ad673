"""Whom to tell: webhooks, plain and as Slack takes them, and a command."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.serve.notify.notice import KINDS
from selfheal_cli.serve.notify.store import Due
from selfheal_cli.serve.settings import Webhook

VARIABLE = "SELFHEAL_WEBHOOKS"
SECRET = "SELFHEAL_WEBHOOK_SECRET"  # noqa: S105 - of the variable; with _NAME for one target
COMMAND = "command"  # the name of the target that --on-event makes
SECONDS = 10.0  # for an answer
COMMAND_SECONDS = 60.0
SHAPES = ("plain", "slack")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FORM = (
    f"'NAME: URL [plain|slack] [KIND ...]' is expected, once for a name; kinds: {', '.join(KINDS)}"
)


class NotTold(Exception):
    """A target was not told; the message holds no secret."""


class NotifyTarget(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """By which its deliveries are known."""

    @property
    def kinds(self) -> Sequence[str]:
        """What it wants to be told of."""

    def tell(self, due: Due, model: str) -> None:
        """Raises `NotTold`."""


def webhooks_from_environment() -> tuple[Webhook, ...]:
    """Those of ``SELFHEAL_WEBHOOKS``, a line or a part before ``;`` each. No child process finds
    them, or their secrets, in its environment. Raises `ConfigurationError`, which shows no URL.
    """
    text = os.environ.pop(VARIABLE, "")
    secrets = {key: os.environ.pop(key) for key in [*os.environ] if key.startswith(SECRET)}
    hooks: dict[str, Webhook] = {}
    for number, line in enumerate(re.split(r"[;\n]", text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = (part.strip() for part in line.partition(":"))
        url, *words = rest.split() or [""]
        shapes = [word for word in words if word in SHAPES]
        kinds = tuple(word for word in words if word not in SHAPES)
        fits = NAME.fullmatch(name) and name not in (*hooks, COMMAND) and len(shapes) < 2
        if not fits or not _is_web(url) or not {*kinds} <= {*KINDS}:
            raise ConfigurationError(f"{VARIABLE}: entry {number}: {FORM}")
        own = f"{SECRET}_{name.upper().replace('-', '_')}"
        secret = secrets.get(own, secrets.get(SECRET, ""))
        hooks[name] = Webhook(
            name=name, url=url, shape="slack" if "slack" in shapes else "plain", kinds=kinds,
            secret=secret,
        )  # fmt: skip
    return tuple(hooks.values())


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def signature(secret: str, delivery: str, timestamp: str, body: str) -> str:
    """As MLflow signs its webhooks: HMAC-SHA256 over delivery id, time and body."""
    signed = f"{delivery}.{timestamp}.{body}".encode()
    made = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is meant for one host goes to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the answer counts as it is, which is a failure."""


@dataclass(frozen=True)
class WebhookTarget:
    """Posts to a URL."""

    hook: Webhook
    clock: Callable[[], float] = time.time

    @property
    def name(self) -> str:
        """See `NotifyTarget`."""
        return self.hook.name

    @property
    def kinds(self) -> Sequence[str]:
        """See `NotifyTarget`."""
        return self.hook.kinds or tuple(KINDS)

    def tell(self, due: Due, model: str) -> None:
        """See `NotifyTarget`."""
        body = due.body
        if self.hook.shape == "slack":
            body = json.dumps({"text": f"{model}: {due.text}"}, ensure_ascii=False)
        timestamp = str(int(self.clock()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "selfheal",
            "X-MLflow-Delivery-Id": due.id,
            "X-MLflow-Timestamp": timestamp,
            "X-Selfheal-Sequence": str(due.sequence),
        }
        if self.hook.secret:
            signed = signature(self.hook.secret, due.id, timestamp, body)
            headers["X-MLflow-Signature"] = signed
        request = urllib.request.Request(  # noqa: S310 - http or https, as it was read
            self.hook.url, body.encode(), headers, method="POST"
        )
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
                answer.read(1_024)
        except urllib.error.HTTPError as exc:
            raise NotTold(f"answered {exc.code}") from None
        except (OSError, ValueError, HTTPException) as exc:  # their texts may hold the URL
            raise NotTold(f"no answer ({type(exc).__name__})") from None


@dataclass(frozen=True)
class CommandTarget:
    """Runs a command, without a shell: the notice is on standard input, its id in the environment.
    It may run twice for one notice.
    """

    command: str
    name: str = COMMAND
    kinds: Sequence[str] = tuple(KINDS)

    def tell(self, due: Due, model: str) -> None:
        """See `NotifyTarget`."""
        about = {
            "SELFHEAL_EVENT_ID": due.id, "SELFHEAL_EVENT": due.kind, "SELFHEAL_MODEL": model,
            "SELFHEAL_EVENT_SEQUENCE": str(due.sequence),
        }  # fmt: skip
        try:
            done = subprocess.run(
                shlex.split(self.command), input=due.body.encode(), check=False,
                stdout=subprocess.DEVNULL, timeout=COMMAND_SECONDS, env={**os.environ, **about},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise NotTold(f"did not end within {COMMAND_SECONDS:g} s") from None
        except (OSError, ValueError) as exc:
            raise NotTold(f"cannot be run ({type(exc).__name__})") from None
        if done.returncode:
            raise NotTold(f"ended with {done.returncode}")
