"""What an operator sees and orders over HTTP: figures, status, page, rollback, hold, release.

The gate has looked at the tokens before one of these is called; the page, which a browser opens
without any, asks for them itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from selfheal_cli.errors import RequestRefused, StorageError
from selfheal_cli.serve.http.auth import Guard, actor_of
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.middleware import ROUTE
from selfheal_cli.serve.http.openapi import PROBLEMS
from selfheal_cli.serve.operator.deciding import add_decisions
from selfheal_cli.serve.operator.metrics import StatusMetrics
from selfheal_cli.serve.operator.orders import (
    HealingOrder,
    HealingSet,
    Moved,
    Planned,
    PlanOrder,
    RollbackOrder,
)
from selfheal_cli.serve.operator.page import page_routes
from selfheal_cli.serve.operator.status import ServerInfo, StatusSnapshot, look
from selfheal_cli.serve.operator.verdict import Status, status
from selfheal_cli.spool.control import ControlChannel

LOOK_SECONDS = 0.05


async def ask(
    channel: ControlChannel, kind: str, argument: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Have it done, and wait for what comes of it; an order that nobody took is taken back.

    Raises `RequestRefused`: 409 where it was refused, 503 where no answer came in ``seconds``; and
    `StorageError` where the channel cannot be used.
    """
    number = await asyncio.to_thread(channel.send_command, kind, argument)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        answer = await asyncio.to_thread(channel.answer_of, number)
        if answer is not None:
            break
        if loop.time() >= end:
            withdrawn = await asyncio.to_thread(channel.withdraw, number)
            raise _unanswered(seconds, withdrawn=withdrawn)
        await asyncio.sleep(LOOK_SECONDS)
    if not answer.get("ok"):
        why = str(answer.get("error", "it was refused"))
        raise RequestRefused(why, status=409, code="CONFLICT", reason="order")
    return answer


def _unanswered(seconds: float, *, withdrawn: bool) -> RequestRefused:
    if withdrawn:
        text = f"nobody took the order in {seconds:g} s and it was taken back: is the healer up?"
    else:
        text = (
            f"the order was taken and not answered in {seconds:g} s: it may still be carried out; "
            "look at the champion before asking again"
        )
    return RequestRefused(text, status=503, code="TEMPORARILY_UNAVAILABLE", reason="order")


WAIT_SECONDS = 15.0
Order = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
FIGURES = {"content": {"text/plain": {"schema": {"type": "string"}}}}


def operator_routes(
    channel: ControlChannel,
    meters: ServerMetrics,
    facts: Callable[[], ServerInfo],
    guard: Guard,
    wait_seconds: float = WAIT_SECONDS,
    counted: Collector | None = None,
) -> APIRouter:
    """The routes; what the healer says joins ``meters`` when Prometheus asks, or ``counted``,
    where other processes have meters too.

    ``facts`` is asked at every look, from any thread. An order waits ``wait_seconds`` for its
    answer.
    """

    def board_seen() -> StatusSnapshot:
        return look(channel, facts)

    def seen() -> StatusSnapshot:
        with_words = "the file that server and healer share cannot be used: its disk may be full"
        try:
            return board_seen()
        except StorageError as exc:
            raise _unavailable(with_words) from exc

    async def order(kind: str, argument: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return await ask(channel, kind, argument, wait_seconds)
        except StorageError as exc:
            raise _unavailable("orders cannot be written down: the disk may be full") from exc

    figures = CollectorRegistry()
    figures.register(meters.registry if counted is None else counted)
    figures.register(StatusMetrics(board_seen))
    routes = APIRouter(dependencies=[Depends(_counted)])
    _add_looks(routes, figures, seen)
    _add_orders(routes, guard, order)
    routes.include_router(page_routes(seen, guard, order))
    return routes


def _counted(request: Request) -> None:
    """The route under which the gate counts it."""
    request.scope[ROUTE] = request.scope["route"].path


def _unavailable(why: str) -> RequestRefused:
    return RequestRefused(why, status=503, code="TEMPORARILY_UNAVAILABLE", reason="disk")


def _add_looks(
    routes: APIRouter, figures: CollectorRegistry, seen: Callable[[], StatusSnapshot]
) -> None:
    @routes.get("/metrics", response_class=Response, responses={200: FIGURES, **PROBLEMS["look"]})
    def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(generate_latest(figures), media_type=CONTENT_TYPE_LATEST)

    @routes.get("/status", responses=PROBLEMS["look"])
    def show() -> Status:
        """How the model stands, by server and healer."""
        return status(seen())


def _add_orders(routes: APIRouter, guard: Guard, order: Order) -> None:
    def operator(request: Request) -> str:
        """Who orders."""
        caller = guard.require_operator(request.headers)
        client = request.client.host if request.client else "unknown"
        return actor_of(caller, request.headers.get("x-actor", ""), client)

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

    add_decisions(routes, operator, order)

    @routes.post("/operate/hold", **ordered(HealingSet))
    async def hold(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Stop the healing; scoring goes on."""
        return JSONResponse(await order("hold", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/release", **ordered(HealingSet))
    async def release(wanted: HealingOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Allow healing again."""
        return JSONResponse(await order("release", wanted.model_dump() | {"actor": actor}))
