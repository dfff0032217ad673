"""Who may look at a served model, and who may steer it: what the gate cannot know of the page."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from selfheal_cli.actor import claimed, printable
from selfheal_cli.errors import RequestRefused
from selfheal_cli.serve.access import LOOPBACK, Need, require_allowed
from selfheal_cli.serve.settings import Tokens


class Guard:
    """Tokens as the page brings them, in a form or as a header."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @property
    def operators_need_token(self) -> bool:
        """Whether steering takes a token."""
        return self._tokens.operating is not None

    def may_look(self, headers: Mapping[str, str], token: str = "") -> bool:
        """Whoever has a token may look."""
        try:
            require_allowed(Need.READING, _with(headers, token), self._tokens)
        except RequestRefused:
            return False
        return True

    def require_operator(self, headers: Mapping[str, str], token: str = "") -> None:
        """Raise `RequestRefused` for whoever may not steer, and for pages of other sites."""
        require_allowed(Need.OPERATING, _with(headers, token), self._tokens)
        if not self.operators_need_token and not _plain_host(headers.get("host", "")):
            raise RequestRefused(
                "without an operator's token this server is steered by its IP address or as "
                "'localhost' only",
                status=403, code="PERMISSION_DENIED", reason="site",
            )  # fmt: skip


def actor_of(named: str, client: str) -> str:
    """Who steers, as it is kept in the history: a token says that somebody may, and not who."""
    return claimed(named) if printable(named) else f"operator@{client}"


def _with(headers: Mapping[str, str], token: str) -> Mapping[str, str]:
    return {**headers, "authorization": f"Bearer {token}"} if token else headers


def _plain_host(host: str) -> bool:
    """A name that nobody else can point here: a site whose name resolves to this machine is of
    the same origin to the browser.
    """
    name = urlsplit(f"//{host}").hostname or ""
    if name in LOOPBACK:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
