"""Orders about mode, proposals and canary over HTTP: what is asked, what is answered, routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from selfheal_cli.registry.orders import Mode
from selfheal_cli.serve.http.openapi import PROBLEMS
from selfheal_cli.serve.operator.orders import Done, Moved, PlanInWords, Planned, Reason
from selfheal_cli.serve.operator.verdict import ClosedDocument

Order = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class ModeRequest(ClosedDocument):
    """What the heals may do. ``digest`` is that of the plan that was shown, if one was."""

    mode: Mode
    digest: Annotated[str, Field(max_length=200)] = ""
    reason: Reason = "by hand"


class ModePlanOrder(ClosedDocument):
    """What another mode would change."""

    mode: Mode


class ProposalOrder(ClosedDocument):
    """A proposal by its number."""

    proposal: Annotated[int, Field(ge=1, le=2**31, strict=True)]


class ApproveOrder(ProposalOrder):
    """Carry out a proposal whose plan was shown; ``digest`` is the plan's."""

    digest: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Reason = "by hand"


class RejectOrder(ProposalOrder):
    """Close a proposal."""

    reason: Reason = "by hand"


class CanaryPlanOrder(ClosedDocument):
    """What a promotion or a withdrawal of the canary would change, or a trial of a ``version``."""

    do: Literal["promote", "withdraw", "try"]
    version: Annotated[int, Field(ge=1, le=2**31, strict=True)] | None = None

    @model_validator(mode="after")
    def _has_version(self) -> Self:
        """A trial is of a version, and nothing else is."""
        if (self.do == "try") != (self.version is not None):
            raise ValueError("version is needed where do is 'try', and only there")
        return self


class CanaryOrder(CanaryPlanOrder):
    """Carry out what was shown; ``digest`` is the plan's."""

    digest: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Reason = "by hand"


class ModePlan(PlanInWords):
    """What another mode would change."""

    source: Mode = Field(alias="from")
    to: Mode


class ModePlanned(Done):
    """What `/operate/mode/plan` answers."""

    plan: ModePlan


class ModeSet(Done):
    """What `/operate/mode` answers."""

    mode: Mode
    before: Mode


class Approved(Moved):
    """What `/operate/approve` answers; ``move`` is null where it takes another person still."""

    proposal: int


class Rejected(Done):
    """What `/operate/reject` answers."""

    proposal: int
    reason: str


def add_decisions(routes: APIRouter, operator: Callable[[Request], str], order: Order) -> None:
    """The routes; ``operator`` says who orders, or raises `RequestRefused`."""

    def ordered(model: type) -> dict[str, Any]:
        return {"response_model": None, "responses": {200: {"model": model}, **PROBLEMS["order"]}}

    @routes.post("/operate/mode/plan", dependencies=[Depends(operator)], **ordered(ModePlanned))
    async def plan_mode(wanted: ModePlanOrder) -> JSONResponse:
        """What another mode would change; nothing is changed."""
        return JSONResponse(await order("mode-plan", wanted.model_dump()))

    @routes.post("/operate/mode", **ordered(ModeSet))
    async def set_mode(wanted: ModeRequest, actor: str = Depends(operator)) -> JSONResponse:
        """Say what heals may do from now on: auto, recommend, shadow or off."""
        return JSONResponse(await order("mode", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/approve/plan", dependencies=[Depends(operator)], **ordered(Planned))
    async def plan_approval(wanted: ProposalOrder) -> JSONResponse:
        """What a proposal would do, checked; nothing is moved."""
        return JSONResponse(await order("approve-plan", wanted.model_dump()))

    @routes.post("/operate/approve", **ordered(Approved))
    async def approve(wanted: ApproveOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Carry out a proposal whose plan was shown, unless something has changed since."""
        return JSONResponse(await order("approve", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/reject", **ordered(Rejected))
    async def reject(wanted: RejectOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Close a proposal without carrying it out."""
        return JSONResponse(await order("reject", wanted.model_dump() | {"actor": actor}))

    @routes.post("/operate/canary/plan", dependencies=[Depends(operator)], **ordered(Planned))
    async def plan_canary(wanted: CanaryPlanOrder) -> JSONResponse:
        """What a promotion or a withdrawal of the canary would do, or a trial of a version; nothing
        is moved.
        """
        return JSONResponse(await order("canary-plan", wanted.model_dump()))

    @routes.post("/operate/canary", **ordered(Moved))
    async def decide_canary(wanted: CanaryOrder, actor: str = Depends(operator)) -> JSONResponse:
        """Promote or withdraw what is tried, or have a version tried, unless something has changed
        since the plan.
        """
        return JSONResponse(await order("canary", wanted.model_dump() | {"actor": actor}))
