"""What ``/status`` answers and what may be ordered, as the OpenAPI document has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from selfheal_cli.actor import printable
from selfheal_cli.serve import telling
from selfheal_cli.serve.facts import Facts, Seen
from selfheal_cli.serve.standing import Standing

MAX_REASON = 300
Reason = Annotated[
    str,
    Field(max_length=MAX_REASON, description="kept in the history"),
    AfterValidator(printable),
]
Target = Literal["best", "previous"] | Annotated[int, Field(ge=1, le=2**31, strict=True)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Told(_Closed):
    """The same in words."""

    state: str
    tone: telling.Tone
    badge: str
    headline: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


class Healer(_Closed):
    """Whether it has spoken lately, and the seconds since its last word."""

    up: bool
    age_seconds: float | None


class Status(_Closed):
    """How a served model stands; ``at`` in seconds since 1970."""

    at: float
    server: Facts
    healer: Healer
    label_age_seconds: float | None
    told: Told
    standing: Standing


class PlanOrder(_Closed):
    """Which version a rollback would restore: the best, what served before, or a number."""

    to: Target


class RollbackOrder(_Closed):
    """Carry out a plan that was shown; ``digest`` is the plan's."""

    to: Target
    digest: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Reason = "by hand"


class HealingOrder(_Closed):
    """Stop healing, or allow it again."""

    reason: Reason = "by hand"


class Plan(_Closed):
    """A rollback as it would be carried out: ``lines`` and ``notes`` are for a person."""

    model_config = ConfigDict(populate_by_name=True)

    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()
    source: int | None = Field(default=None, alias="from")
    to: int
    digest: str


class Planned(_Closed):
    """What `/operate/plan` answers."""

    ok: Literal[True]
    plan: Plan


class Moved(_Closed):
    """What `/operate/rollback` answers; ``move`` is the journal's entry, null where the version
    serves already.
    """

    ok: Literal[True]
    move: dict[str, Any] | None


class HealingSet(_Closed):
    """What `/operate/hold` and `/operate/release` answer."""

    ok: Literal[True]
    reason: str


def status(seen: Seen) -> Status:
    """The document of one look."""
    found = telling.verdict(seen.standing)
    told = Told(
        state=telling.state_words(seen.standing),
        tone=found.tone,
        badge=found.badge,
        headline=found.headline,
        sentences=found.sentences,
        warnings=tuple(telling.warnings(seen)),
    )
    return Status(
        at=seen.at,
        server=seen.server,
        healer=Healer(up=seen.healer_up, age_seconds=seen.age),
        label_age_seconds=seen.label_age,
        told=told,
        standing=seen.standing,
    )
