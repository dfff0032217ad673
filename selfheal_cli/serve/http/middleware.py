"""The way in for every request: named, allowed, whole and in time before a route sees it; counted
and timed when it is answered. Plain ASGI, since it stands before each score.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.scoring import error_document
from selfheal_cli.serve.http.access_log import Access, AccessLog
from selfheal_cli.serve.http.auth import OPEN, READS, Guard, rights_for
from selfheal_cli.serve.http.feedback import REQUEST_ID
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.rates import Rates
from selfheal_cli.serve.settings import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST = "selfheal.request"  # keys of the scope: the request's id,
GIVEN = "selfheal.given"  # whether the caller gave it,
CALLERS = "selfheal.callers"  # the X-Request-Id that came,
VERSION = "selfheal.version"  # the version that answered
ROUTE = "selfheal.route"  # its route, as it is counted
CALLER = "selfheal.caller"  # the name of its token
REFUSED = "selfheal.refused"  # and why it was refused, in a word
OVER = "selfheal.over"  # on a connection more than its address may have
OWN_ID, COMMON_ID = "X-Selfheal-Request-Id", "X-Request-Id"
DECIDING = {"authorization", "content-encoding", "content-type", "host", OWN_ID.lower()}
_ID = re.compile(REQUEST_ID)
CLIENT_CLOSED = 499
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # of zlib
_too_many = RequestRefused(
    "more connections from one address than are allowed, and all are in use: use them again",
    status=429, code="REQUEST_LIMIT_EXCEEDED", reason="connections",
)  # fmt: skip
FAILED = RequestRefused(
    "the server failed; its log says where", status=500, code="INTERNAL_ERROR", reason="failure"
)
_log = logging.getLogger("uvicorn.error")  # MLflow turns off those that it does not know


class Gate:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: App,
        guard: Guard,
        limits: Limits,
        meters: ServerMetrics,
        log: AccessLog | None = None,
    ) -> None:
        self._app = app
        self._guard = guard
        self._log = log
        self._limits = limits
        self._meters = meters
        self._rates = Rates(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        answer = _Answer(scope, send)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._admitted(scope, receive, answer)
        except RequestRefused as exc:
            self._meters.refused.labels(exc.reason).inc()
            scope[REFUSED] = exc.reason
            await answer.refuse(exc)
        except TimeoutError:
            self._meters.refused.labels("time").inc()
            scope[REFUSED] = "time"
            await answer.refuse(
                RequestRefused(
                    f"not there and answered within {self._limits.seconds:g} s",
                    status=408 if scope.get(ROUTE) is None else 504,
                    code="DEADLINE_EXCEEDED",
                )
            )
        except _Gone:
            answer.status = CLIENT_CLOSED
        except Exception as exc:  # the message may hold data: where it happened is enough
            place = traceback.extract_tb(exc.__traceback__)[-1]
            _log.error("%s at %s:%d", type(exc).__name__, place.filename, place.lineno)
            await answer.refuse(FAILED)
        finally:
            self._count(scope, answer, time.perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = _once(scope["headers"])
        own, common = headers.get(OWN_ID.lower()), headers.get(COMMON_ID.lower())
        callers = common if own is None else own
        scope[GIVEN] = callers is not None
        scope[REQUEST] = _request_id(callers, OWN_ID if own is not None else COMMON_ID)
        scope[CALLERS] = common or ""
        method, path = scope["method"], scope["path"]
        rights = rights_for(method, path)
        scope[CALLER] = self._guard.admit(rights, headers, changes=method not in READS)
        if OVER in scope and path not in OPEN:
            raise _too_many
        if rights or method == "POST":
            self._rates.take((scope.get("client") or ("?",))[0])
        if method not in READS:
            body = await self._body(headers, receive)
            receive = _told(body, receive)
        scope[ROUTE] = "other"
        await self._app(scope, receive, answer.send)

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body, counted while it comes in."""
        most = self._limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise _too_large(most)
            parts.append(part)
            if not message.get("more_body"):
                break
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            return body
        return await asyncio.to_thread(_unpacked, body, encoding, most)

    def _count(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route, version = scope.get(ROUTE) or "refused", scope.get(VERSION, "")
        self._meters.requests.labels(route, str(answer.status), version).inc()
        self._meters.seconds.labels(route, version).observe(seconds)
        if self._log is not None:
            self._log.write(_access(scope, answer, seconds))


def _access(scope: Scope, answer: _Answer, seconds: float) -> Access:
    agents = [value for key, value in scope["headers"] if key == b"user-agent"]
    return Access(
        at=time.time(),
        client=(scope.get("client") or ("",))[0],
        caller=scope.get(CALLER, ""),
        method=scope["method"],
        path=scope["path"],  # not what was asked after it, which may hold data
        status=answer.status,
        bytes=answer.bytes,
        seconds=seconds,
        request_id=scope.get(REQUEST, ""),
        version=scope.get(VERSION, ""),
        refused=scope.get(REFUSED, ""),
        agent=agents[0].decode("latin-1") if agents else "",
    )


class _Gone(Exception):
    """The caller hung up."""


class _Answer:
    """What goes back, with the request's id; refusals where nothing went back yet."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status = 500
        self.bytes = 0
        self._begun = False
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            name = self._scope.get(REQUEST)
            if name:
                common = self._scope.get(CALLERS, "")
                common = common if _ID.match(common) else name
                message["headers"] = [
                    *message["headers"],
                    (COMMON_ID.lower().encode(), common.encode()),
                    (OWN_ID.lower().encode(), name.encode()),
                ]
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, exc: RequestRefused) -> None:
        """Say why; the connection ends where the body was not read to its end."""
        if self._begun:
            return
        if exc.caller:
            self._scope[CALLER] = exc.caller
        body = problem(self._scope["path"], exc)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        if exc.status in (408, 413) and self._scope.get(ROUTE) is None:
            headers.append((b"connection", b"close"))
        if exc.status == 401:
            read = self._scope["method"] in ("GET", "HEAD")
            headers.append((b"www-authenticate", b'Basic realm="selfheal"' if read else b"Bearer"))
        headers += [(name.encode(), value.encode()) for name, value in again(exc.status).items()]
        await self.send({"type": "http.response.start", "status": exc.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _once(given: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; raises `RequestRefused` where one that decides comes twice, since whoever
    is behind or before this server may go by the other.
    """
    headers: dict[str, str] = {}
    for key, value in given:
        name = key.decode("latin-1")
        if name in headers and name in DECIDING:
            raise RequestRefused(f"the header '{name}' comes twice")
        headers[name] = value.decode("latin-1")
    return headers


def again(status: int) -> dict[str, str]:
    """When to come back, where that helps."""
    return {"retry-after": "1"} if status in (429, 503) else {}


def problem(path: str, exc: RequestRefused) -> bytes:
    """The body of a refusal: as MLflow has it, or as KServe has it under its protocols' paths."""
    if path.startswith(("/v1", "/v2")):
        return json.dumps({"error": str(exc)}).encode()
    return json.dumps(error_document(exc.code, str(exc))).encode()


def _request_id(given: str | None, header: str) -> str:
    if given is None:
        return str(uuid.uuid4())
    if not _ID.match(given):
        raise RequestRefused(
            f"{header}: up to 128 letters, digits, '.', '_', ':' and '-' are allowed",
            reason="request_id",
        )
    return given


def _too_large(most: int) -> RequestRefused:
    return RequestRefused(
        f"more than {most} bytes; send the rows in parts",
        status=413, code="REQUEST_LIMIT_EXCEEDED", reason="body",
    )  # fmt: skip


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """A compressed body, which may not have more than ``most`` bytes when it is read."""
    if encoding not in WINDOWS:
        raise RequestRefused(
            f"content-encoding: {', '.join(WINDOWS)} or none is read", status=415, reason="encoding"
        )
    reading = zlib.decompressobj(WINDOWS[encoding])
    try:
        content = reading.decompress(body, most + 1)
    except zlib.error as exc:
        raise RequestRefused(f"the body is no {encoding} that can be read") from exc
    if len(content) > most:
        raise _too_large(most)
    if not reading.eof or reading.unused_data:
        raise RequestRefused(f"the body is no whole {encoding}")
    return content


def _told(body: bytes, receive: Receive) -> Receive:
    """The body at once, then whatever else there is to hear."""
    told: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def whole() -> Message:
        return told.pop() if told else await receive()

    return whole
