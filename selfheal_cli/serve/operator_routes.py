"""What an operator sees and orders over HTTP: figures, status, page, rollback, hold, release.

The gate has looked at the tokens before one of these is called; the page, which a browser opens
without any, asks for them itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from selfheal_cli.errors import NotWritten, RequestRefused
from selfheal_cli.serve.ask import ask
from selfheal_cli.serve.board_metrics import BoardMetrics
from selfheal_cli.serve.facts import Facts, Seen, look
from selfheal_cli.serve.gate import ROUTE
from selfheal_cli.serve.guard import Guard, actor_of
from selfheal_cli.serve.meters import Meters
from selfheal_cli.serve.openapi import PROBLEMS
from selfheal_cli.serve.page import page_routes
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.serve.status import (
    HealingOrder,
    HealingSet,
    Moved,
    Planned,
    PlanOrder,
    RollbackOrder,
    Status,
    status,
)
from selfheal_cli.spool.board import Board

WAIT_SECONDS = 15.0
Order = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
FIGURES = {"content": {"text/plain": {"schema": {"type": "string"}}}}


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

    def board_seen() -> Seen:
        return look(board, facts)

    def seen() -> Seen:
        with_words = "the file that server and healer share cannot be used: its disk may be full"
        try:
            return board_seen()
        except NotWritten as exc:
            raise _unavailable(with_words) from exc

    async def order(kind: str, argument: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return await ask(board, kind, argument, wait_seconds)
        except NotWritten as exc:
            raise _unavailable("orders cannot be written down: the disk may be full") from exc

    meters.registry.register(BoardMetrics(board_seen))
    routes = APIRouter(dependencies=[Depends(_counted)])
    _add_looks(routes, meters, seen)
    _add_orders(routes, guard, order)
    routes.include_router(page_routes(seen, guard, order))
    return routes


def _counted(request: Request) -> None:
    """The route under which the gate counts it."""
    request.scope[ROUTE] = request.scope["route"].path


def _unavailable(why: str) -> RequestRefused:
    return RequestRefused(why, status=503, code="TEMPORARILY_UNAVAILABLE", reason="disk")


def _add_looks(routes: APIRouter, meters: Meters, seen: Callable[[], Seen]) -> None:
    @routes.get("/metrics", response_class=Response, responses={200: FIGURES, **PROBLEMS["look"]})
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/status", responses=PROBLEMS["look"])
    def show() -> Status:
        """How the model stands, by server and healer."""
        return status(seen())


def _add_orders(routes: APIRouter, guard: Guard, order: Order) -> None:
    def operator(request: Request) -> str:
        """Who orders."""
        guard.require_operator(request.headers)
        client = request.client.host if request.client else "unknown"
        return actor_of(request.headers.get("x-actor", ""), client)

    def ordered(model: type) -> dict[str, Any]:
        return {"response_model": None, "responses": {200: {"model": model}, **PROBLEMS["order"]}}

    @routes.post("/operate/plan", dependencies=[Depends(operator)], **ordered(Planned))
    async def plan(wanted: PlanOrder) -> JSONResponse:
        """What a rollback would do; nothing is moved."""
        return JSONResponse(await order("plan", wanted.model_dump()))

    @routes.post("/operate/rollback", **ordered(Moved))
    async def rollback(wanted: RollbackOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Carry out the plan that was shown, unless something has changed since."""
        return JSONResponse(await order("rollback", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/hold", **ordered(HealingSet))
    async def hold(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Stop the healing; scoring goes on."""
        return JSONResponse(await order("hold", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/release", **ordered(HealingSet))
    async def release(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Allow healing again."""
        return JSONResponse(await order("release", wanted.model_dump() | {"actor": actor}))
