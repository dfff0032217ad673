"""The status page: rendered here, kept fresh by a small script, whole without it.

No session and no cookie: each order brings the operator's token, in the form or, with the script,
as the header that a page of another site cannot send.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

import selfheal_cli.report
from selfheal_cli.errors import NotWritten
from selfheal_cli.serve import telling
from selfheal_cli.serve.ask import Answer
from selfheal_cli.serve.facts import Seen
from selfheal_cli.serve.guard import Guard, actor_of, bearer, printable
from selfheal_cli.serve.status import MAX_REASON, status

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_FORM = 8_192  # bytes
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, a form's Origin is null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
KEPT = {**HEADERS, "Cache-Control": "public, max-age=86400, immutable"}
FOLDER = Path(__file__).parent
Order = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Panel:
    """What the operator's part shows: a plan to confirm, what was done, or why not."""

    plan: Mapping[str, Any] | None = None
    to: str = ""
    done: str = ""
    error: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def page_routes(seen: Callable[[], Seen], guard: Guard, order: Order) -> APIRouter:
    """The page, its fresh part, its forms, its style and its script."""
    routes = APIRouter(include_in_schema=False)

    def rendered(may_look: bool, panel: Panel, code: int) -> HTMLResponse:
        found: Seen | None = None
        if may_look:
            try:
                found = seen()
            except NotWritten as exc:
                panel, code = Panel(error=str(exc)), 503
        text = (
            _environment()
            .get_template("page.html.j2")
            .render(
                **_view(found), panel=panel, guarded=guard.operators_need_token, assets=_assets()
            )
        )
        return HTMLResponse(text, code, HEADERS)

    @routes.get("/")
    def page(request: Request) -> HTMLResponse:
        may = guard.may_look(bearer(request.headers))
        return rendered(may, Panel(), 200 if may else 401)

    @routes.get("/live")
    def live(request: Request) -> HTMLResponse:
        if not guard.may_look(bearer(request.headers)):
            raise HTTPException(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        try:
            found = _view(seen())
        except NotWritten as exc:
            raise HTTPException(503, str(exc)) from exc
        text = _environment().get_template("live.html.j2").render(**found)
        return HTMLResponse(text, headers=HEADERS)

    @routes.post("/")
    async def form(request: Request) -> HTMLResponse:
        fields = await _fields(request)
        token = bearer(request.headers) or fields.get("token", "")
        may_look = guard.may_look(token)
        if fields.get("do") == "look":
            return await run_in_threadpool(rendered, may_look, Panel(), 200 if may_look else 401)
        code, why = guard.refusal(request.headers, token)
        panel = Panel(error=why, fields=fields)
        if code == 200:
            client = request.client.host if request.client else "unknown"
            panel, code = await _carry_out(order, fields, actor_of(fields.get("actor", ""), client))
        return await run_in_threadpool(rendered, may_look, panel, code)

    @routes.get("/static/{name}")
    def asset(name: str) -> Response:
        found = _assets().get(name)
        if found is None:
            raise HTTPException(404, "no such file")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(found.data, media_type=kind, headers=KEPT)

    return routes


async def _carry_out(order: Order, fields: Mapping[str, str], actor: str) -> tuple[Panel, int]:
    """Do what the form's button says: ``plan:TO``, ``rollback``, ``hold`` or ``release``."""
    kind, _, chosen = fields.get("do", "").partition(":")
    reason = printable(fields.get("reason", ""))[:MAX_REASON] or "by hand"
    by = {"actor": actor, "reason": reason}
    target = _target(chosen or fields.get("to", ""))
    if kind in ("plan", "rollback") and target is None:
        return Panel(error="choose a version to go back to", fields=fields), 422
    arguments: dict[str, Mapping[str, Any]] = {
        "plan": {"to": target},
        "rollback": {"to": target, "digest": fields.get("digest", ""), **by},
        "hold": by,
        "release": by,
    }
    if kind not in arguments:
        return Panel(error="choose what to do", fields=fields), 422
    try:
        found = await order(kind, arguments[kind])
    except NotWritten as exc:
        return Panel(error=str(exc), fields=fields), 503
    if found.error:
        return Panel(error=found.error, fields=fields), found.status
    if kind == "plan":
        return Panel(plan=found.document.get("plan", {}), to=str(target), fields=fields), 200
    words = {
        "rollback": "Rolled back",
        "hold": "Healing is held",
        "release": "Healing is allowed again",
    }
    said = str(found.document.get("text", ""))
    return Panel(done=words[kind] + (f": {said}" if said else "")), 200


def _target(text: str) -> str | int | None:
    if text in ("best", "previous"):
        return text
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None


async def _fields(request: Request) -> dict[str, str]:
    """A form's fields; raises 413 for one that no page of ours sends, 415 for another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form is expected (application/x-www-form-urlencoded)")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413, f"a form of at most {MAX_FORM:,} bytes is expected")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
    except ValueError as exc:
        raise HTTPException(413, "a form of at most 20 fields is expected") from exc


def _view(seen: Seen | None) -> dict[str, Any]:
    if seen is None:
        return {"seen": None}
    return {
        "seen": seen,
        "standing": seen.standing,
        "told": status(seen).told,
        "lines": telling.lines(seen.standing),
        "span": telling.span,
    }


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page; ``tag`` changes with it, so that browsers may keep it."""

    data: bytes
    tag: str


@cache
def _assets() -> dict[str, Asset]:
    """Style and script; the style begins with that of the report."""
    house = Path(selfheal_cli.report.__file__).parent / "page.css"
    found = {
        "page.css": house.read_bytes() + (FOLDER / "page.css").read_bytes(),
        "page.js": (FOLDER / "page.js").read_bytes(),
    }
    return {
        name: Asset(data, hashlib.sha256(data).hexdigest()[:12]) for name, data in found.items()
    }


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("selfheal_cli.serve", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["utc"] = lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return found
