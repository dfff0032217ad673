"""What an operator sees and orders over HTTP: figures, status, page, rollback, hold, release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from selfheal_cli.errors import NotWritten
from selfheal_cli.serve.ask import Answer, ask
from selfheal_cli.serve.board_metrics import BoardMetrics
from selfheal_cli.serve.facts import Facts, Seen, look
from selfheal_cli.serve.guard import Guard, actor_of, bearer
from selfheal_cli.serve.meters import Meters
from selfheal_cli.serve.page import page_routes
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.serve.status import (
    Done,
    HealingOrder,
    PlanOrder,
    RollbackOrder,
    Status,
    status,
)
from selfheal_cli.spool.board import Board

WAIT_SECONDS = 15.0
BEARER = {"WWW-Authenticate": "Bearer"}
REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "No token, or not the right one"},
    503: {"description": "No answer from the healer, or the shared file cannot be used"},
}
ORDERED = REFUSED | {
    403: {"description": "Asked for by a page of another site"},
    409: {"description": "Refused, and why", "model": Done},
}


def operator_routes(
    board: Board,
    meters: Meters,
    facts: Callable[[], Facts],
    tokens: Tokens,
    wait_seconds: float = WAIT_SECONDS,
) -> APIRouter:
    """The routes; what the healer says joins ``meters`` when Prometheus asks.

    ``facts`` is asked at every look, from any thread. An order waits ``wait_seconds`` for its
    answer.
    """
    guard = Guard(tokens)

    def seen() -> Seen:
        return look(board, facts)

    async def order(kind: str, argument: Mapping[str, Any]) -> Answer:
        return await ask(board, kind, argument, wait_seconds)

    meters.registry.register(BoardMetrics(seen))
    routes = APIRouter()
    _add_looks(routes, meters, seen, guard)
    _add_orders(routes, guard, order)
    routes.include_router(page_routes(seen, guard, order))
    return routes


def _add_looks(routes: APIRouter, meters: Meters, seen: Callable[[], Seen], guard: Guard) -> None:
    def may_look(request: Request) -> None:
        if not guard.may_look(bearer(request.headers)):
            raise HTTPException(401, "a token is needed", BEARER)

    looking: dict[str, Any] = {"dependencies": [Depends(may_look)], "responses": REFUSED}

    @routes.get("/metrics", response_class=Response, **looking)
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/status", **looking)
    def show() -> Status:
        """How the model stands, by server and healer."""
        try:
            return status(seen())
        except NotWritten as exc:
            raise HTTPException(503, str(exc)) from exc


def _add_orders(
    routes: APIRouter, guard: Guard, order: Callable[[str, Mapping[str, Any]], Any]
) -> None:
    def operator(request: Request) -> str:
        """Who orders; raises 401 or 403."""
        code, why = guard.refusal(request.headers, bearer(request.headers))
        if code != 200:
            raise HTTPException(code, why, BEARER if code == 401 else None)
        client = request.client.host if request.client else "unknown"
        return actor_of(request.headers.get("x-actor", ""), client)

    async def carry_out(kind: str, argument: Mapping[str, Any]) -> JSONResponse:
        try:
            found: Answer = await order(kind, argument)
        except NotWritten as exc:
            raise HTTPException(503, str(exc)) from exc
        return JSONResponse(dict(found.document), found.status)

    ordered: dict[str, Any] = {"response_model": Done, "responses": ORDERED}

    @routes.post("/operate/plan", dependencies=[Depends(operator)], **ordered)
    async def plan(wanted: PlanOrder) -> JSONResponse:
        """What a rollback would do; nothing is moved."""
        return await carry_out("plan", wanted.model_dump())

    @routes.post("/operate/rollback", **ordered)
    async def rollback(wanted: RollbackOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Carry out the plan that was shown, unless something has changed since."""
        return await carry_out("rollback", wanted.model_dump() | {"actor": actor})

    @routes.post("/operate/hold", **ordered)
    async def hold(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Stop the healing; scoring goes on."""
        return await carry_out("hold", wanted.model_dump() | {"actor": actor})

    @routes.post("/operate/release", **ordered)
    async def release(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Allow healing again."""
        return await carry_out("release", wanted.model_dump() | {"actor": actor})
