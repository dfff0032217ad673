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

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

import selfheal_cli.report
from selfheal_cli.actor import printable
from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.base import CANARY
from selfheal_cli.registry.orders import STANDS
from selfheal_cli.serve.http.auth import Guard, actor_of
from selfheal_cli.serve.http.middleware import CALLER
from selfheal_cli.serve.operator import verdict as telling
from selfheal_cli.serve.operator.charts import course
from selfheal_cli.serve.operator.orders import MAX_REASON
from selfheal_cli.serve.operator.status import StatusSnapshot
from selfheal_cli.serve.operator.verdict import status
from selfheal_cli.visible import on_page

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_FORM = 8_192  # bytes
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
DECISIONS = ("mode-plan", "mode", "approve-plan", "approve", "reject", "canary-plan", "canary")
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
Order = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Panel:
    """What the operator's part shows: a plan to confirm, what was done, or why not."""

    plan: Mapping[str, Any] | None = None
    to: str = ""
    do: str = "rollback"  # what confirms the plan
    done: str = ""
    error: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def page_routes(seen: Callable[[], StatusSnapshot], guard: Guard, order: Order) -> APIRouter:
    """The page, its fresh part, its forms, its style and its script.

    ``seen`` and ``order`` raise `RequestRefused` where there is nothing to see, and where
    something was not done.
    """
    routes = APIRouter(include_in_schema=False)

    def rendered(may_look: bool, panel: Panel, code: int) -> HTMLResponse:
        return _rendered(seen if may_look else None, guard, panel, code)

    @routes.get("/")
    def page(request: Request) -> HTMLResponse:
        may = guard.may_look(request.headers)
        return rendered(may, Panel(), 200 if may else 401)

    @routes.get("/live")
    def live(request: Request) -> HTMLResponse:
        if not guard.may_look(request.headers):
            return HTMLResponse("", 401, {**HEADERS, "WWW-Authenticate": "Bearer"})
        text = _environment().get_template("live.html.j2").render(**_view(seen()))
        return HTMLResponse(text, headers=HEADERS)

    @routes.post("/")
    async def form(request: Request) -> HTMLResponse:
        fields = await _fields(request)
        token = fields.get("token", "")
        may_look = guard.may_look(request.headers, token)
        if fields.get("do") == "look":
            return await run_in_threadpool(rendered, may_look, Panel(), 200 if may_look else 401)
        client = request.client.host if request.client else "unknown"
        try:
            caller = guard.require_operator(request.headers, token)
            request.scope[CALLER] = caller
            actor = actor_of(caller, fields.get("actor", ""), client)
            panel, code = await _carry_out(order, fields, actor), 200
        except RequestRefused as exc:
            panel, code = Panel(error=str(exc), fields=fields), exc.status
        return await run_in_threadpool(rendered, may_look, panel, code)

    @routes.get("/static/{name}")
    def asset(name: str) -> Response:
        file = _assets().get(name)
        if file is None:
            raise RequestRefused("no such file", status=404, code="NOT_FOUND", reason="path")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(file.data, media_type=kind, headers=KEPT)

    return routes


def _rendered(
    seen: Callable[[], StatusSnapshot] | None, guard: Guard, panel: Panel, code: int
) -> HTMLResponse:
    """The whole page; without ``seen`` it shows nothing and asks for the token."""
    status: StatusSnapshot | None = None
    try:
        status = seen() if seen is not None else None
    except RequestRefused as exc:
        panel, code = Panel(error=str(exc)), exc.status
    template = _environment().get_template("page.html.j2")
    text = template.render(
        **_view(status), panel=panel, guarded=guard.operators_need_token, locked=seen is None,
        assets=_assets(),
    )  # fmt: skip
    return HTMLResponse(text, code, HEADERS)


async def _carry_out(order: Order, fields: Mapping[str, str], actor: str) -> Panel:
    """Do what the form's button says: ``plan:TO``, ``rollback``, ``hold`` or ``release``, and what
    `_decide` knows.
    """
    kind, _, chosen = fields.get("do", "").partition(":")
    reason = printable(fields.get("reason", ""))[:MAX_REASON] or "by hand"
    by = {"actor": actor, "reason": reason}
    if kind in ("hold", "release"):
        await order(kind, by)
        return Panel(done="Healing is held" if kind == "hold" else "Healing is allowed again")
    if kind in DECISIONS:
        return await _decide(order, kind, chosen or fields.get("to", ""), fields, by)
    target = _target(chosen or fields.get("to", ""))
    if kind not in ("plan", "rollback") or target is None:
        raise RequestRefused("choose what to do, and the version to go back to")
    if kind == "plan":
        answer = await order("plan", {"to": target})
        return Panel(plan=answer["plan"], to=str(target), fields=fields)
    answer = await order("rollback", {"to": target, "digest": fields.get("digest", ""), **by})
    move = answer["move"]
    if move is None:
        return Panel(done="It serves already: nothing was moved")
    return Panel(done=f"Rolled back: v{move['target']} is the champion, for v{move['source']}")


async def _decide(
    order: Order, kind: str, what: str, fields: Mapping[str, str], by: Mapping[str, str]
) -> Panel:
    """``mode-plan:MODE``, ``mode``, ``approve-plan:N``, ``approve``, ``reject:N``,
    ``canary-plan:promote``, ``:withdraw`` or ``:try`` of a version by its number, or ``canary``.
    """
    if what == "try":
        what = fields.get("version", "").strip().removeprefix("v")
        if not NUMBER.fullmatch(what):
            raise RequestRefused("choose the version to try by its number")
    about: dict[str, Any] = {"mode": what} if kind.startswith("mode") else {}
    if kind.startswith("canary"):
        about = _of_canary(what)
    if not about:
        if not NUMBER.fullmatch(what):
            raise RequestRefused("choose a proposal by its number")
        about = {"proposal": int(what)}
    if kind.endswith("-plan"):
        answer = await order(kind, about)
        return Panel(plan=answer["plan"], to=what, do=kind.removesuffix("-plan"), fields=fields)
    if kind != "reject":
        about["digest"] = fields.get("digest", "")
    return Panel(done=_done(kind, what, await order(kind, {**about, **by})))


def _done(kind: str, what: str, answer: Mapping[str, Any]) -> str:
    """What came of a decision, for a person."""
    if kind == "mode":
        return f"Mode {answer['mode']} from now on"
    if kind == "reject":
        return f"Proposal {what} is closed"
    move = answer["move"]
    if what == "withdraw":
        return f"The canary, v{move['source']}, is withdrawn with the next batch"
    if move is None:
        return f"Proposal {what} is approved by you: somebody else must approve it, too"
    if move.get("alias") == CANARY:
        return f"v{what} is tried from the next batch on"
    return f"v{move['target']} is the champion, for v{move['source']}"


def _of_canary(what: str) -> dict[str, Any]:
    return {"do": "try", "version": int(what)} if NUMBER.fullmatch(what) else {"do": what}


def _target(text: str) -> str | int | None:
    if text in ("best", "previous"):
        return text
    return int(text) if NUMBER.fullmatch(text) else None


async def _fields(request: Request) -> dict[str, str]:
    """A form's fields; raises `RequestRefused` for one that no page of ours sends."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise _no_form(415, "a form is expected (application/x-www-form-urlencoded)")
    body = await request.body()  # the gate has its limit too
    if len(body) > MAX_FORM:
        raise _no_form(413, f"a form of at most {MAX_FORM:,} bytes is expected")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
    except ValueError as exc:
        raise _no_form(413, "a form of at most 20 fields is expected") from exc


def _no_form(status: int, why: str) -> RequestRefused:
    return RequestRefused(why, status=status, code="BAD_REQUEST", reason="form")


def _view(seen: StatusSnapshot | None) -> dict[str, Any]:
    if seen is None:
        return {"seen": None, "modes": STANDS}
    return {
        "seen": seen,
        "standing": seen.standing,
        "told": status(seen).told,
        "lines": telling.lines(seen.standing),
        "course": course(seen.standing),
        "span": telling.span,
        "modes": STANDS,
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
    files = {
        "page.css": house.read_bytes() + (FOLDER / "page.css").read_bytes(),
        "page.js": (FOLDER / "page.js").read_bytes(),
    }
    return {
        name: Asset(data, hashlib.sha256(data).hexdigest()[:12]) for name, data in files.items()
    }


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    jinja = Environment(
        loader=PackageLoader("selfheal_cli.serve.operator", "."),
        autoescape=True,
        finalize=on_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["utc"] = lambda at: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return jinja
