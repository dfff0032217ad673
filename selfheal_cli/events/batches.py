"""What is said of a batch: its figures, what moved in it, and what was made of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypedDict

from selfheal_cli.events.event import SCORES, Action, OfBatch
from selfheal_cli.records import Advice, Diagnosis, MovedInput
from selfheal_cli.scores import AnyScores


class MonitorReading(TypedDict):
    """What a monitor said of a batch."""

    value: float
    level: str
    p: float
    features: Sequence[str]


def _diagnosis(
    *, advice: str, base_rate: Sequence[float], moved: Sequence[Mapping[str, Any]], **rest: Any
) -> Diagnosis:
    trained, now = base_rate
    shifts = tuple(MovedInput(**one) for one in moved)
    return Diagnosis(advice=Advice(advice), base_rate=(trained, now), moved=shifts, **rest)


class RowsTaken(OfBatch, kind="rows-taken"):
    """Rows were read; ``offsets`` say, by name, up to where the source was read with them."""

    rows: int
    offsets: Mapping[str, int]


class BatchScored(OfBatch, kind="batch"):
    """A batch was gone through: scores of the live and of the frozen network, None where no label
    has come (then there are ``estimates``), and what was read of it.

    ``shifts`` are in the order of `ModelTrained.features`; ``left_out`` counts rows by reason.
    """

    rows: int
    live: AnyScores | None = field(metadata=SCORES)
    shadow: AnyScores | None = field(metadata=SCORES)
    estimates: Mapping[str, float]
    z: float
    drifting: bool
    conflicts: int
    positive_share: float
    pending_writes: int
    state: str
    heal_requested: bool
    reason: str
    shifts: Sequence[float] | None = None
    abstained: int | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    monitors: Mapping[str, MonitorReading] = field(default_factory=dict)


class BatchSetApart(Action, kind="batch-set-apart"):
    """A batch could not be gone through; the stream went on."""

    rows: int

    def __str__(self) -> str:
        return f"batch {self.batch} set apart: {self.reason}"


class CandidatesCompared(OfBatch, kind="candidates"):
    """What other versions would have lost on rows of a batch whose labels came.

    ``served`` is the sum of the rows' log losses under what answered them, ``losses`` by snapshot
    under versions that were made before the batch; ``serving`` is the snapshot that serves when the
    labels come, and ``by_now`` its sum, where it is not what answered them.
    ``positives`` counts the rows that are not of the commonest class (with two: the positives).
    ``versions`` are the numbers of the snapshots that an earlier run made.
    """

    rows: int
    positives: int
    serving: str
    served: float
    losses: Mapping[str, float]
    by_now: float | None = None
    versions: Mapping[str, int] = field(default_factory=dict)


class Diagnosed(Action, kind="diagnosis"):
    """What moved, and whether healing can help; ``reason`` is why it was asked just then."""

    diagnosis: Diagnosis = field(metadata={"flat": Diagnosis, "decode": _diagnosis})

    @property
    def why(self) -> str:
        """The diagnosis in words."""
        return self.diagnosis.sentence


class RuleStale(Action, kind="rule-stale"):
    """A rule no longer fires as in training; without a ``treatment`` it does so again.

    ``now`` is the rule with its limit moved, where the policy has it moved.
    """

    rule: str
    treatment: str = ""
    now: str = ""
    trained_rate: float | None = None
    rate: float | None = None
    rows: int | None = None
    z: float | None = None


class MonitorAlarmed(Action, kind="monitor-alarm"):
    """A monitor began to alarm: ``value`` reached ``threshold``."""

    monitor: str
    threshold: float
    triggers: str
    value: float
    level: str
    p: float
    features: Sequence[str]

    def __str__(self) -> str:
        return f"monitor {self.monitor} alarms"


class PartFailed(Action, kind="part-failed"):
    """A monitor or rule of another package raised, or said what none may: the monitor is quiet from
    then on, the rule's condition is unknown for these rows. Only the first time is written down.
    """

    part: str

    def __str__(self) -> str:
        return f"{self.part} failed"


class Unit(TypedDict):
    """A unit that a number's values look like now: ``factor`` times the old one, and ``offset``."""

    factor: float
    offset: float


class ColumnMoved(Action, kind="column-moved"):
    """Something is no longer as in training, or is again; ``reason`` says it in a sentence.

    ``aspect`` is what of ``column`` moved: its ``values``, the share that is ``missing``; where it
    is no column, the ``decisions`` for a class, the ``errors`` or the frozen model's ``scores``.
    ``before`` are figures of training (of errors, of the first labelled batches), ``now`` those of
    ``rows`` rows from batch ``since`` on: quantiles, or shares by name. ``edges`` (k + 1,) and the
    two ``shares`` (k,) make a picture of numbers. ``time`` is that of batch ``since``, in the
    stream's own unit.
    """

    monitor: str
    column: str
    aspect: str
    since: int
    rows: int
    before: Mapping[str, float]
    now: Mapping[str, float]
    effect: float
    p: float
    threshold: float
    time: float | None = None
    back: bool = False
    unit: Unit | None = None
    edges: Sequence[float] = ()
    shares_before: Sequence[float] = ()
    shares_now: Sequence[float] = ()

    def __str__(self) -> str:
        return self.reason
