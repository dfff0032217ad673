"""Orders about what serves and about healing over HTTP: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from selfheal_cli.actor import printable
from selfheal_cli.serve.operator.verdict import ClosedDocument

MAX_REASON = 300
Reason = Annotated[
    str,
    Field(max_length=MAX_REASON, description="kept in the history"),
    AfterValidator(printable),
]
Target = Literal["best", "previous"] | Annotated[int, Field(ge=1, le=2**31, strict=True)]


class PlanOrder(ClosedDocument):
    """Which version a rollback would restore: the best, what served before, or a number."""

    to: Target


class RollbackOrder(PlanOrder):
    """Carry out a plan that was shown; ``digest`` is the plan's."""

    digest: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Reason = "by hand"


class HealingOrder(ClosedDocument):
    """Stop healing, or allow it again."""

    reason: Reason = "by hand"


class PlanInWords(ClosedDocument):
    """What would be done: ``lines`` and ``notes`` are for a person."""

    model_config = ConfigDict(populate_by_name=True)

    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()
    digest: str


class Plan(PlanInWords):
    """A rollback as it would be carried out."""

    source: int | None = Field(default=None, alias="from")
    to: int


class Done(ClosedDocument):
    """What an order answers that was carried out."""

    ok: Literal[True]


class Planned(Done):
    """What `/operate/plan` answers."""

    plan: Plan


class Moved(Done):
    """What `/operate/rollback` answers; ``move`` is the journal's entry, null where the version
    serves already.
    """

    move: dict[str, Any] | None


class HealingSet(Done):
    """What `/operate/hold` and `/operate/release` answer."""

    reason: str
