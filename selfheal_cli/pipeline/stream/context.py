"""What all stages of a session share, and the state in which they leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.engine import LiveModel, Serving, Tried
from selfheal_cli.heal.task import AdapterState, HealRows
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.stream.outside import Outside
from selfheal_cli.registry.base import Lineage
from selfheal_cli.sources.base import Source


@dataclass(frozen=True, slots=True)
class Fallen:
    """A heal after which it was time to roll back, and why; ``rows`` are those by which the best
    version will be compared with what serves, None where it is gone back to what served before.
    """

    heal_id: str
    batch: int
    reason: str
    rows: HealRows | None = None


@dataclass(slots=True)
class StreamState:
    """Where a stream is, and what keeps it from healing."""

    batch: int = 0  # the one that was taken last
    held: bool = False  # from outside
    mode: str = "auto"  # what the heals of a served model may do
    quiet_until: int = 0  # batch up to which healing pauses after a rollback
    overtaken: int = 0  # heals asked for up to this batch come too late: the champion was moved
    rolled_back: int = -1  # the batch of the last rollback
    pausing: bool = False  # heals did harm; the journal does not hold healing yet
    leaves: bool = False  # what is to serve is on another base: the run ends once it does
    fallen: Fallen | None = None  # the best version was asked for
    proposed: set[str] = field(default_factory=set)  # snapshots that somebody may approve

    @property
    def paused(self) -> bool:
        """No heal is asked for: held or off, around a rollback, or until the best is known."""
        return (
            self.held
            or self.pausing
            or self.leaves
            or self.mode == "off"
            or self.batch <= self.quiet_until
            or self.fallen is not None
        )


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What every stage is given: what is wanted, what was prepared, what serves, who writes down,
    and the world.
    """

    config: RunConfig
    source: Source
    prepared: Prepared
    live: LiveModel
    lineage: Lineage
    recorder: RunRecorder
    outside: Outside
    state: StreamState = field(default_factory=StreamState)


def serve(
    prepared: Prepared,
    on_publish: Callable[[Serving], None] | None = None,
    on_canary: Callable[[Tried | None], None] | None = None,
) -> LiveModel:
    """The network as trained, serving."""
    weights = prepared.network.adapter.state_dict()
    frozen = prepared.network.with_adapter(weights)
    serving = Serving(frozen, AdapterState(weights, {}), "", prepared.thresholds[0])
    return LiveModel(serving, on_publish, on_canary)
