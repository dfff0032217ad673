"""What is said of heals: what was asked for, learned, judged, and became a version."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, ClassVar, Self, TypedDict

from selfheal_cli.events.event import EVALUATION, SCORES, Action, Event, OfBatch
from selfheal_cli.records import Evaluation, Phase, Snapshot
from selfheal_cli.scores import AnyScores


class GateMargin(TypedDict):
    """By how much a heal's log loss is worse than what served, and the standard error of that."""

    worse_by: float | None
    error: float | None


class SnapshotTaken(OfBatch, kind="snapshot"):
    """An adapter's weights, by hash, with what was measured of them; see `records.Snapshot`.

    ``same_as``: no version was made of it, since it is that snapshot, byte for byte.
    """

    id: str
    phase: Phase = field(metadata={"decode": Phase})
    sha256: str
    scores: AnyScores | None = field(metadata=SCORES)
    evaluation: Evaluation = field(metadata=EVALUATION)
    reason: str
    threshold: float
    rejected: str
    parent: str | None
    heal_id: str | None
    same_as: str = ""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """What is written down of a snapshot."""
        names = {one.name for one in fields(cls)} & {one.name for one in fields(snapshot)}
        return cls(**{name: getattr(snapshot, name) for name in names})


class SnapshotScored(OfBatch, kind="snapshot-scored"):
    """The labels that a snapshot waited for have come."""

    snapshot: str
    scores: AnyScores = field(metadata=SCORES)


class VersionRegistered(Event, kind="registered"):
    """A snapshot became a version; ``manifest`` is the hash of the version's manifest, empty where
    0.1.0 registered it, which knew of none.
    """

    snapshot: str
    version: int
    manifest: str = ""


class HealEnded(Action):
    """What became of a heal, in a word its ``outcome``."""

    outcome: ClassVar[str]
    heal_id: str


class HealJudged(HealEnded):
    """A heal with the snapshots before and after it, scored on the rows that ``evaluation`` names.

    ``own_rows`` where it learned from its own batch alone; ``more`` is what the recipe measured.
    """

    recipe: str
    from_snapshot: str
    to_snapshot: str
    before: AnyScores | None = field(metadata=SCORES)
    after: AnyScores | None = field(metadata=SCORES)
    evaluation: Evaluation = field(metadata=EVALUATION)
    threshold: float
    own_rows: bool
    gate: GateMargin


class HealPublished(HealJudged, kind="heal"):
    """A heal serves."""

    outcome: ClassVar[str] = "healed"

    def __str__(self) -> str:
        return f"heal {self.heal_id} serves ({self.reason})"


class HealRejected(HealJudged, kind="heal-rejected"):
    """A heal was worse than what served, which goes on serving."""

    outcome: ClassVar[str] = "rejected"
    rejected: str

    @property
    def why(self) -> str:
        """Why it does not serve."""
        return self.rejected

    def __str__(self) -> str:
        return f"heal {self.heal_id} held back: {self.rejected}"


class HealWithheld(HealJudged, kind="heal-withheld"):
    """A heal was judged good and does not serve, by the model's ``mode`` or beyond its budget; what
    served goes on. ``proposed``: a person may approve it.

    ``changed`` is the share of decisions that are others than those of what serves, and
    ``changed_in_all`` than those of what a person approved last, or of the baseline.
    """

    outcome: ClassVar[str] = "withheld"
    mode: str
    withheld: str
    proposed: bool
    changed: float | None
    changed_in_all: float | None

    @classmethod
    def of(cls, judged: HealJudged, **why: Any) -> Self:
        """A heal that was about to be published."""
        return cls(**{one.name: getattr(judged, one.name) for one in fields(judged)}, **why)

    @property
    def why(self) -> str:
        """Why it does not serve."""
        return self.withheld

    def __str__(self) -> str:
        return f"heal {self.heal_id} {'proposed' if self.proposed else 'kept'}: {self.withheld}"


class HealLearned(HealEnded, kind="heal-learned"):
    """What was learned goes on; it changed decisions too little to be worth a version.

    ``change`` is the mean Kullback-Leibler divergence of the new decisions from the serving ones,
    ``needed`` what it had to reach.
    """

    outcome: ClassVar[str] = "learned"
    change: float
    needed: float

    @property
    def why(self) -> str:
        """By how much decisions would have changed."""
        return (
            f"learned, not published: decisions changed by {self.change:.2g}, "
            f"less than {self.needed:.2g}"
        )

    def __str__(self) -> str:
        return f"heal {self.heal_id} {self.why}"


class HealFailed(HealEnded, kind="heal-failed"):
    """A heal ended in an error, or its worker did."""

    outcome: ClassVar[str] = "failed"
    worker_restarted: bool

    def __str__(self) -> str:
        return f"heal {self.heal_id} failed: {self.reason}"


class HealCoalesced(HealEnded, kind="heal-coalesced"):
    """A heal was overtaken: by the newer one ``replaced_by``, or by a move of the champion."""

    outcome: ClassVar[str] = "coalesced"
    replaced_by: str | None


class HealRefuted(HealEnded, kind="heal-refused"):
    """The assumption that a heal without labels rests on does not hold; ``to_snapshot`` serves
    again where a heal on the same assumption had served.
    """

    outcome: ClassVar[str] = "refused"
    to_snapshot: str = ""

    def __str__(self) -> str:
        return f"heal {self.heal_id} refused: {self.reason}"
