"""Who may do what: tokens and their rights, and requests that another site's page makes."""

from __future__ import annotations

import hmac
import ipaddress
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from urllib.parse import urlsplit

from selfheal_cli.actor import claimed, printable
from selfheal_cli.errors import ConfigurationError, RequestRefused
from selfheal_cli.serve.settings import Right, Sites, Token, Tokens

LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN = {"/ping", "/health", "/version", "/v1/models", "/v2", "/v2/", "/v2/health/live",
        "/v2/health/ready"}  # fmt: skip
READY = re.compile(r"/v2/models/.*/ready$|/v1/models/[^/:]+$")
SCORES = re.compile(r"/invocations$|/v2/.*/infer$|/v1/.*:predict$")
DESCRIBES = re.compile(r"/v2/|/openapi\.json$")  # whoever has a token may know what is served
PAGE = {"/", "/live"}  # it asks for the token itself, and shows nothing without
NO_HOST = re.compile(r"[/\\?#@\s]")  # what a URL may have beside a name and a port
READS = ("GET", "HEAD", "OPTIONS")
FORM = "form"  # in place of a scheme: the page's own field
Headers = Mapping[str, str]


def rights_for(method: str, path: str) -> frozenset[Right]:
    """The rights of which a caller needs one; none where balancers ask.

    By default reading is for whoever may look, and everything else for operators.
    """
    if path in PAGE or path.startswith("/static/"):
        return frozenset()
    if SCORES.match(path):
        return frozenset((Right.SCORE,))
    if path == "/feedback":
        return frozenset((Right.LABEL,))
    if method not in READS:
        return frozenset((Right.OPERATE,))
    if path in OPEN or READY.match(path):
        return frozenset()
    return frozenset(Right) if DESCRIBES.match(path) else frozenset((Right.LOOK,))


def require_guarded(host: str, tokens: Tokens, *, insecure: bool) -> None:
    """Raise `ConfigurationError` where others could reach an open door."""
    if host in LOOPBACK or insecure or not tokens.open:
        return
    raise ConfigurationError(
        f"--host {host}: others can reach it, so --token-file with a token for scoring and one for "
        "operating is needed; --insecure serves without"
    )


class Guard:
    """Who may do what here."""

    def __init__(self, tokens: Tokens, sites: Sites | None = None) -> None:
        self._tokens = tokens
        self._sites = sites or Sites()

    @property
    def operators_need_token(self) -> bool:
        """Whether steering takes a token."""
        return Right.OPERATE not in self._tokens.open

    def admit(self, rights: frozenset[Right], headers: Headers, *, changes: bool) -> str:
        """The caller's name, empty where nobody needs one; ``changes``: it is no mere look.

        Raises `RequestRefused`: 401 without a token that is known, 403 for one that has none of the
        rights and for a page of another site.
        """
        scheme, given = _given(headers.get("authorization", ""))
        # every token is compared, so that time says nothing of which one was near
        matches = [one for one in self._tokens.callers
                   if hmac.compare_digest(given, one.secret.encode())]  # fmt: skip
        caller = matches[0] if matches and matches[0].rights & rights else None
        if changes and rights and not (caller is not None and scheme == "bearer"):
            self._require_own_page(headers)  # a browser sends all else by itself
        if caller is not None or not rights:
            return caller.name if caller is not None else ""
        if not rights & self._tokens.open:
            if matches and scheme != "basic":  # a browser asks for another password at 401 alone
                raise _lacks(matches[0], rights)
            raise RequestRefused(
                _needed(rights, self._tokens.callers),
                status=401, code="UNAUTHENTICATED", reason="token",
            )  # fmt: skip
        if Right.SCORE not in rights:
            self._require_own_name(headers)
        return ""

    def may(self, caller: str, right: Right) -> bool:
        """Whether a caller, by its token's name, has a right; nobody has it by being nobody."""
        return any(one.name == caller and right in one.rights for one in self._tokens.callers)

    def may_look(self, headers: Headers, token: str = "") -> bool:
        """Whether what is shown may be seen."""
        try:
            self.admit(frozenset((Right.LOOK,)), _with(headers, token), changes=False)
        except RequestRefused:
            return False
        return True

    def require_operator(self, headers: Headers, token: str = "") -> str:
        """The operator's name, if it is known; raises as `admit`."""
        return self.admit(frozenset((Right.OPERATE,)), _with(headers, token), changes=True)

    def _require_own_page(self, headers: Headers) -> None:
        """A page of another site may send a browser here, with its user's password."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own = (headers.get("host", ""), _netloc(self._sites.public_url))
        if site in ("same-origin", "none") or (site is None and origin is None):
            return
        if origin is not None and _netloc(origin) in filter(None, own):
            return
        raise RequestRefused(
            "only a page of this server may do that; behind a proxy, start it with --public-url",
            status=403, code="PERMISSION_DENIED", reason="site",
        )  # fmt: skip

    def _require_own_name(self, headers: Headers) -> None:
        """A site whose name resolves to this machine is of the same origin to a browser."""
        name = _host_name(headers.get("host", ""))
        known = (*self._sites.hosts, _host_name(_netloc(self._sites.public_url)))
        if not _is_plain(name) and name not in filter(None, known):
            raise RequestRefused(
                "without tokens this server answers by its IP address or as 'localhost' only; "
                "another name is allowed by --allowed-host",
                status=403, code="PERMISSION_DENIED", reason="site",
            )  # fmt: skip


def actor_of(caller: str, named: str, client: str) -> str:
    """Who steers, as it is kept in the history: the caller that a token names, else who somebody
    says to be.
    """
    if caller not in ("", "operating"):  # the one token of all operators
        return caller
    return claimed(named) if printable(named) else f"operator@{client}"


def _needed(rights: frozenset[Right], callers: tuple[Token, ...]) -> str:
    kinds = [one.name for one in callers if one.rights & rights]
    named = f"the {kinds[0]}" if len(kinds) == 1 else "a"
    return f"{named} token is needed: Authorization: Bearer TOKEN"


def _lacks(caller: Token, rights: frozenset[Right]) -> RequestRefused:
    has, needs = (", ".join(sorted(some)) for some in (caller.rights, rights))
    either = "one of the rights to" if len(rights) > 1 else "the right to"
    return RequestRefused(
        f"the token '{caller.name}' may {has or 'do nothing'}; this needs {either} {needs}",
        status=403, code="PERMISSION_DENIED", reason="right", caller=caller.name,
    )  # fmt: skip


def _given(header: str) -> tuple[str, bytes]:
    """The token in ``Bearer TOKEN``, or as the password that a browser asks for."""
    kind, _, text = header.partition(" ")
    kind = kind.lower()
    if kind in ("bearer", FORM):
        return kind, text.strip().encode()
    if kind == "basic":
        try:
            return kind, b64decode(text, validate=True).partition(b":")[2]
        except (Base64Error, ValueError):
            return kind, b""
    return kind, b""


def _with(headers: Headers, token: str) -> Headers:
    return {**headers, "authorization": f"{FORM} {token}"} if token else headers


def _netloc(url: str) -> str:
    """Name and port of a URL; empty where it has none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    if NO_HOST.search(host):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_plain(name: str) -> bool:
    """A name that nobody else can point here."""
    if name in LOOPBACK:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
