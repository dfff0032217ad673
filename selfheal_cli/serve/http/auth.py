"""Who may do what, and how often: tokens, callers' rates, requests from other sites."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import stat
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from selfheal_cli.actor import claimed, printable
from selfheal_cli.errors import ConfigurationError, RequestRefused
from selfheal_cli.serve.settings import Limits, Tokens

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST = 16
BURST = 2.0  # seconds' worth of requests at once
CALLERS = 10_000  # whose rates are remembered


class Need(Enum):
    """What a route needs."""

    NOTHING = "nothing"  # balancers ask
    SCORING = "scoring"
    READING = "reading"  # either token
    OPERATING = "operating"


OPEN = {"/ping", "/health", "/version", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready"}
SCORING = {"/invocations", "/feedback"}
READY = re.compile(r"/v2/models/.*/ready$|/v1/models/[^/:]+$")
PAGE = {"/", "/live"}  # it asks for the token itself, and shows nothing without


def need_of(method: str, path: str) -> Need:
    """By default reading is for whoever has a token, and everything else for operators."""
    if path in PAGE or path.startswith("/static/"):
        return Need.NOTHING
    if (
        path in SCORING
        or (path.startswith("/v2/") and path.endswith("/infer"))
        or (path.startswith("/v1/") and path.endswith(":predict"))
    ):
        return Need.SCORING
    if method in ("GET", "HEAD", "OPTIONS"):
        ready = path in OPEN or READY.match(path) is not None
        return Need.NOTHING if ready else Need.READING
    return Need.OPERATING


def read_tokens(path: Path) -> Tokens:
    """``scoring: TOKEN`` and ``operating: TOKEN``, a line each; raises `ConfigurationError`.

    A file that others may read is refused.
    """
    try:
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(f"{path}: others may read the tokens; chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc})") from exc
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, token = (part.strip() for part in line.partition(":"))
        if name not in Tokens.model_fields or not colon or name in tokens:
            raise ConfigurationError(
                f"{path}: line {number}: 'scoring: TOKEN' or 'operating: TOKEN' is expected, once"
            )
        if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
            raise ConfigurationError(
                f"{path}: line {number}: a token has {SHORTEST} or more characters of ASCII; "
                "make one with: openssl rand -hex 24"
            )
        tokens[name] = token
    if not tokens:
        raise ConfigurationError(f"{path}: holds no token")
    if len(set(tokens.values())) < len(tokens):
        raise ConfigurationError(f"{path}: scoring and operating need tokens of their own")
    return Tokens(**tokens)


def require_guarded(host: str, tokens: Tokens, *, insecure: bool) -> None:
    """Raise `ConfigurationError` where others could reach an open door."""
    if host in LOOPBACK or insecure or (tokens.scoring and tokens.operating):
        return
    raise ConfigurationError(
        f"--host {host}: others can reach it, so --token-file with a token for scoring and one for "
        "operating is needed; --insecure serves without"
    )


def require_allowed(need: Need, headers: Mapping[str, str], tokens: Tokens) -> None:
    """Raise `RequestRefused`: 401 without the right token, 403 from another site."""
    if need is Need.OPERATING:
        _require_same_site(headers)
    kinds = {
        Need.NOTHING: (),
        Need.SCORING: (tokens.scoring,),
        Need.OPERATING: (tokens.operating,),
        Need.READING: (tokens.scoring, tokens.operating),
    }[need]
    accepted = [token for token in kinds if token is not None]
    if not accepted:
        return
    given = _given(headers.get("authorization", ""))
    # every token is compared, so that time says nothing of which one was near
    matches = [hmac.compare_digest(given, token.encode()) for token in accepted]
    if not any(matches):
        kind = "a" if need is Need.READING else f"the {need.value}"
        raise RequestRefused(
            f"{kind} token is needed: Authorization: Bearer TOKEN",
            status=401, code="UNAUTHENTICATED", reason="token",
        )  # fmt: skip


class Rates:
    """A bucket of tokens a caller, filled at ``limits.requests`` a second."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = limits.requests
        self._burst = max(1.0, limits.requests * BURST)
        self._clock = clock
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count a request; raises `RequestRefused` 429 where there were too many."""
        if not self._rate:
            return
        now = self._clock()
        left, then = self._callers.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1.0
        self._callers[caller] = (left - 1.0 if allowed else left, now)
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)
        if not allowed:
            raise RequestRefused(
                f"more than {self._rate:g} requests a second; come back later",
                status=429, code="REQUEST_LIMIT_EXCEEDED", reason="rate",
            )  # fmt: skip


def _given(header: str) -> bytes:
    """The token in ``Bearer TOKEN``, or as the password that a browser asks for."""
    kind, _, text = header.partition(" ")
    if kind.lower() == "bearer":
        return text.strip().encode()
    if kind.lower() == "basic":
        try:
            return b64decode(text, validate=True).partition(b":")[2]
        except (Base64Error, ValueError):
            return b""
    return b""


def _require_same_site(headers: Mapping[str, str]) -> None:
    """A page of another site may send a browser here, with its user's password."""
    origin, host = headers.get("origin"), headers.get("host", "")
    foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if foreign or (origin is not None and origin.partition("://")[2] != host):
        raise RequestRefused(
            "only a page of this server may do that",
            status=403, code="PERMISSION_DENIED", reason="site",
        )  # fmt: skip


class Authenticator:
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
