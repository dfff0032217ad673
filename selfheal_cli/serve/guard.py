"""Who may look at a served model, and who may steer it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from selfheal_cli.serve.settings import Tokens

MAX_ACTOR = 100
LOCAL = ("localhost",)


class Guard:
    """Tokens, and what a page of somebody else's in the operator's browser must not do."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @property
    def operators_need_token(self) -> bool:
        """Whether steering takes a token."""
        return self._tokens.operating is not None

    def may_look(self, token: str) -> bool:
        """Who may score may look, and so may an operator."""
        if self._tokens.scoring is None:
            return True
        return any(
            _same(token, known) for known in (self._tokens.scoring, self._tokens.operating) if known
        )

    def refusal(self, headers: Mapping[str, str], token: str) -> tuple[int, str]:
        """Status and reason why this request may not steer; (200, "") where it may."""
        if not _from_here(headers):
            return 403, "another site's page asked for this: open the status page itself"
        known = self._tokens.operating
        if known is not None:
            return (200, "") if _same(token, known) else (401, "the operator's token is needed")
        if not _plain_host(headers.get("host", "")):
            return 403, (
                "without an operator's token this server is steered by its IP address or as "
                "'localhost' only"
            )
        return 200, ""


def bearer(headers: Mapping[str, str]) -> str:
    """The token of ``Authorization: Bearer``, empty where there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def actor_of(named: str, client: str) -> str:
    """Who steers, as it is kept in the history: printable, at most 100 characters."""
    return printable(named)[:MAX_ACTOR] or f"operator@{client}"


def printable(text: str) -> str:
    """A text without what a terminal or a log would act on."""
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _same(given: str, known: str) -> bool:
    """In a time that tells nothing of the token."""
    return hmac.compare_digest(given.encode(), known.encode())


def _from_here(headers: Mapping[str, str]) -> bool:
    """Whether no page of another origin sent it; what is no browser says neither."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _plain_host(host: str) -> bool:
    """A name that nobody else can point here: a site whose name resolves to this machine is
    same-origin to the browser.
    """
    name = urlsplit(f"//{host}").hostname or ""
    if name in LOCAL:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
