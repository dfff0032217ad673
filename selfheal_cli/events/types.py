"""The kinds of events, in the order in which a run comes to them; `Event` says what all are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any, ClassVar, Self, TypedDict

from selfheal_cli.events.event import FIRST_FORMAT, TYPES, Action, Event, OfBatch
from selfheal_cli.records import (
    Advice,
    AliasMove,
    Diagnosis,
    Evaluation,
    LabelVerdict,
    MovedInput,
    Phase,
    Snapshot,
)  # fmt: skip
from selfheal_cli.scores import AnyScores, scores_from


class MonitorReading(TypedDict):
    """What a monitor said of a batch."""

    value: float
    level: str
    p: float
    features: Sequence[str]


class WatchedFeature(TypedDict):
    """A feature whose shift is written down with each batch."""

    name: str
    kind: str


class FeatureShare(TypedDict):
    """By how much the network uses a feature; the shares of all features sum to 1."""

    feature: str
    share: float


class HeldOutRows(TypedDict):
    """Rows that nothing learns from: the sensitive feature's mean, and the rules' share."""

    mean: float
    rule_share: float


class GateMargin(TypedDict):
    """By how much a heal's log loss is worse than what served, and the standard error of that."""

    worse_by: float | None
    error: float | None


def _scores(scores: Mapping[str, Any] | None) -> AnyScores | None:
    return None if scores is None else scores_from(scores)


def _diagnosis(
    *, advice: str, base_rate: Sequence[float], moved: Sequence[Mapping[str, Any]], **rest: Any
) -> Diagnosis:
    trained, now = base_rate
    shifts = tuple(MovedInput(**one) for one in moved)
    return Diagnosis(advice=Advice(advice), base_rate=(trained, now), moved=shifts, **rest)


SCORES = {"decode": _scores}
EVALUATION = {"decode": Evaluation}


class RunStarted(Event, kind="run-started"):
    """A run began. ``champion_move`` is the champion's last move until then, in the journal;
    ``parts`` are those of other packages, each with its distribution and version.
    """

    run_id: str
    model: str
    actor: str
    champion_move: int
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    format: int = FIRST_FORMAT
    build: Mapping[str, Any] | None = None
    parts: Sequence[Mapping[str, str]] = ()


class BaseStored(Event, kind="trained"):
    """The frozen part is in the registry, as ``base``."""

    base: str
    base_sha256: str


class ModelWrapped(BaseStored):
    """A model of somebody else's became a baseline; ``origin`` says where it was."""

    origin: str


class ModelTrained(BaseStored):
    """The network was trained. ``mean`` and ``sd`` are those of the sensitive feature;
    ``batches`` is None where the stream has no end; ``training`` says how long it took, where rows
    were kept to choose by.
    """

    parameters: int
    adapter_parameters: int
    labels: Sequence[str]
    rules: Sequence[str]
    rules_suggested: bool
    sensitive: str
    mean: float
    sd: float
    batches: int | None
    held_out: Mapping[str, HeldOutRows]
    sensitive_category: str | None = None
    sensitive_auto: Sequence[FeatureShare] = ()
    features: Sequence[WatchedFeature] | None = None
    features_in_all: int | None = None
    positions: Mapping[str, Mapping[str, int]] | None = None
    training: str = ""


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


class LabelsArrived(OfBatch, kind="labels"):
    """Labels of rows of a batch came, perhaps not all at once: the scores are of these rows."""

    rows: int
    live: AnyScores = field(metadata=SCORES)
    shadow: AnyScores = field(metadata=SCORES)


class LabelsMatured(OfBatch, kind="labels-matured"):
    """The time of rows of a batch was over, so that they count from now on.

    ``negatives`` of the ``rows`` are so because nobody had said anything ``by`` then, in the
    stream's own time.
    """

    rows: int
    negatives: int
    by: float


class LabelsCorrected(OfBatch, kind="labels-corrected"):
    """Rows of a batch had another label than the one that was told first, as ``in_batch`` says.

    ``live`` and ``shadow`` are the counts of these rows with their labels as now known, ``was`` and
    ``was_shadow`` as they had been counted.
    """

    is_action: ClassVar[bool] = True
    rows: int
    in_batch: int
    live: AnyScores = field(metadata=SCORES)
    shadow: AnyScores = field(metadata=SCORES)
    was: AnyScores = field(metadata=SCORES)
    was_shadow: AnyScores = field(metadata=SCORES)

    @property
    def why(self) -> str:
        """What came."""
        return f"{self.rows} labels of batch {self.batch} were corrected"

    def __str__(self) -> str:
        return self.why


class LabelsRelearned(OfBatch, kind="labels-relearned"):
    """Corrected labels were learned from as if they had been right at once: ``rows`` of them, from
    batch ``since`` on, through ``heals`` heals; what serves follows by a heal of this batch.

    ``beyond`` rows are further back than ``labels.horizon``: they change figures alone.
    """

    is_action: ClassVar[bool] = True
    rows: int
    since: int
    heals: int
    beyond: int

    @property
    def why(self) -> str:
        """What was done with them."""
        old = f"; {self.beyond} labels are too old and change figures alone" if self.beyond else ""
        if not self.rows:
            return f"labels were corrected{old}"
        return (
            f"{self.rows} labels were corrected: learned anew from batch {self.since} on, "
            f"{self.heals} heals{old}"
        )

    def __str__(self) -> str:
        return self.why


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


class LabelsQuarantined(OfBatch, kind="labels-quarantined"):
    """Labels whose rate was out of all proportion, or was believed after all."""

    is_action: ClassVar[bool] = True
    rows: int
    held_back: bool
    verdict: LabelVerdict = field(metadata={"flat": LabelVerdict, "decode": LabelVerdict})

    @property
    def why(self) -> str:
        """What the labels look like."""
        return self.verdict.reason

    def __str__(self) -> str:
        return f"implausible labels in batch {self.batch}"


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


class DriftedSegment(TypedDict):
    """A segment that drifted in a column (or in "errors", of the frozen model): ``effect`` is how
    far its last rows are from its training rows, ``evidence`` the decimal logarithm of what bets
    have won, ``rows`` those of the stream, ``since`` the batch in which it was named.
    """

    segment: str
    column: str
    effect: float
    evidence: float
    rows: int
    since: int


class SegmentSlice(TypedDict):
    """A segment's rows; of those with a label, how many were answered wrong, live and frozen."""

    segment: str
    rows: int
    labelled: int
    wrong: int
    shadow_wrong: int
    drifted: Sequence[str]


class SegmentsDrifted(Action, kind="segments-drifted"):
    """Segments of column ``by`` drifted, and were not named before; those that moved furthest
    first. ``rate`` is the share of named ones that chance may have, over ``pairs`` of a segment
    and a column.
    """

    by: str
    segments: Sequence[DriftedSegment]
    pairs: int
    rate: float
    threshold: float

    def __str__(self) -> str:
        return self.reason


class SegmentsRanked(Action, kind="segments-ranked"):
    """How segments stood at the stream's end: all that ``drifted``, furthest first, and ``slices``
    of these and of the largest others. ``whole`` is how far all segments' last rows together are
    from training's, by column; ``unkeyed`` rows had no segment, ``beyond`` were of more segments
    than are told apart.
    """

    by: str
    segments: int
    drifted: Sequence[DriftedSegment]
    slices: Sequence[SegmentSlice]
    whole: Mapping[str, float]
    unkeyed: int = 0
    beyond: int = 0


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


class CanaryBegan(HealJudged, kind="canary-began"):
    """A heal answers a ``share`` of the requests, by the hash of their column ``by``, or of their
    ids, and is held ``against`` the serving version until something is decided.

    ``since`` and ``until`` are in the stream's own time; ``through`` is how far the source had been
    read: what comes after is compared.
    """

    outcome: ClassVar[str] = "tried"
    against: str
    share: float
    by: str
    since: float
    until: float
    through: Mapping[str, int]

    @classmethod
    def of(cls, judged: HealJudged, **how: Any) -> Self:
        """A heal that was about to be published."""
        return cls(**{one.name: getattr(judged, one.name) for one in fields(judged)}, **how)

    def __str__(self) -> str:
        return f"canary: heal {self.heal_id} answers {self.share:.0%} of requests ({self.reason})"


class CanaryResumed(Action, kind="canary-resumed"):
    """A canary of an earlier run goes on being compared: ``version`` in the registry, ``seen`` as
    it stood then, and all else as it began.
    """

    heal_id: str
    snapshot: str
    version: int
    against: str
    share: float
    by: str
    since: float
    until: float
    seen: Mapping[str, float]
    rows: int
    through: Mapping[str, int]

    def __str__(self) -> str:
        return f"canary v{self.version} goes on answering {self.share:.0%} of requests"


class CanaryCompared(OfBatch, kind="canary-compared"):
    """A canary and the champion on as many labelled rows as a batch has, the last of ``batch``.

    ``difference`` is the champion's clipped log loss a row minus the canary's; ``low`` and ``high``
    bound its mean over all ``rows_in_all``, at all looks together, None before there are enough;
    ``seen`` is that mean as it is added up; the source was read ``through`` there.
    """

    rows: int
    positives: int
    difference: float
    low: float | None
    high: float | None
    seen: Mapping[str, float]
    rows_in_all: int
    through: Mapping[str, int]


class CanaryEnded(Action, kind="canary-ended"):
    """A canary was ``promoted``: it serves all; ``proposed``: a person may approve it; or
    ``withdrawn``, ``by`` a person or, without one, by its figures. ``difference`` with its bounds
    is the mean over ``batches`` of ``rows`` labelled rows in all, None where nothing was compared.
    """

    outcome: str
    by: str = ""
    heal_id: str = ""
    snapshot: str = ""
    batches: int = 0
    rows: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return f"canary {self.outcome}{by}: {self.reason}"


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


class RollbackAsked(Action):
    """Heals went bad, the last of them ``heal_id``, and what came of asking for a better version.

    ``passed_over`` says of versions that looked better why they were not chosen.
    """

    heal_id: str


class HealingPaused(RollbackAsked, kind="healing-paused"):
    """The policy wants no rollback then: what serves stays, and healing stops until somebody
    releases it.
    """

    def __str__(self) -> str:
        return f"healing paused: {self.reason}"


class RolledBack(RollbackAsked, kind="rollback"):
    """An earlier version serves again; ``f1`` was measured on so many ``rows``.

    ``version`` is 0 where the registry had not numbered the snapshot by then.
    """

    from_snapshot: str
    to_snapshot: str
    version: int
    f1: float | None
    rows: int
    sha256: str
    passed_over: Sequence[str] = ()

    def __str__(self) -> str:
        return f"rolled back to {self.named}: {self.reason}"

    @property
    def named(self) -> str:
        """The version, as people are told of it."""
        return f"v{self.version}" if self.version else f"the version before ({self.to_snapshot})"


class RollbackFailed(RollbackAsked, kind="rollback-failed"):
    """The registry gave no version to go back to."""

    error: str

    @property
    def why(self) -> str:
        """What went wrong."""
        return self.error

    def __str__(self) -> str:
        return f"no rollback: {self.error}"


class RollbackDeclined(RollbackAsked, kind="rollback-declined"):
    """The registry's best version is no better than what serves."""

    version: int
    declined: str
    passed_over: Sequence[str] = ()

    @property
    def why(self) -> str:
        """Why what serves stays."""
        return self.declined

    def __str__(self) -> str:
        return f"no rollback: {self.declined}"


class AliasMoved(Event, kind="alias-moved"):
    """The run moved an alias."""

    is_action: ClassVar[bool] = True
    move: AliasMove = field(metadata={"flat": AliasMove, "decode": AliasMove})

    @property
    def why(self) -> str:
        """The move's reason."""
        return self.move.reason


class MoveRefused(Event, kind="move-refused"):
    """An alias was not moved, since somebody else had moved it."""

    is_action: ClassVar[bool] = True
    key: str
    alias: str
    reason: str

    @property
    def why(self) -> str:
        """Who came first."""
        return self.reason


class ProposalMade(Event, kind="proposed"):
    """A heal's version waits for a person's approval until ``expires``; ``proposal`` is its number
    in the journal.
    """

    is_action: ClassVar[bool] = True
    proposal: int
    snapshot: str
    version: int
    sha256: str
    expires: str
    reason: str

    @property
    def why(self) -> str:
        """What it is about."""
        return self.reason

    def __str__(self) -> str:
        return f"proposal {self.proposal}: v{self.version}, until {self.expires} ({self.reason})"


class DecidedOutside(Action):
    """Somebody decided about the model, and the run goes by it."""

    actor: str


class ChampionFollowed(DecidedOutside, kind="champion-followed"):
    """Somebody else moved the champion to ``version``: it serves, or there is an ``error``.

    ``move_sequence`` is the move's place in the journal.
    """

    from_snapshot: str
    version: int
    move_sequence: int = field(metadata={"name": "sequence"})
    to_snapshot: str = ""
    error: str = ""

    @property
    def why(self) -> str:
        """Why it is not followed, else why it was moved."""
        return self.error or self.reason

    def __str__(self) -> str:
        follows = "does not follow" if self.error else "follows"
        return f"{follows} v{self.version} of {self.actor}: {self.why}"


class HealingHeld(DecidedOutside, kind="healing-held"):
    """Healing pauses until it is released."""

    def __str__(self) -> str:
        return f"healing held by {self.actor}: {self.reason}"


class HealingReleased(DecidedOutside, kind="healing-released"):
    """Healing goes on."""

    def __str__(self) -> str:
        return f"healing allowed again: {self.reason}"


class ModeChanged(DecidedOutside, kind="mode-changed"):
    """The heals of a served model may do something else from here on; ``order`` is the number of
    the journal's entry.
    """

    mode: str
    order: int

    def __str__(self) -> str:
        return f"mode {self.mode} by {self.actor}: {self.reason}"


class StreamStopped(OfBatch, kind="stream-stopped"):
    """The run was told to stop after a batch."""


class RunFinished(Event, kind="run-finished"):
    """A run ended: FINISHED, KILLED or FAILED; all else only where it came to a conclusion.

    ``ended_by`` names who wrote this down of a run that had died. ``stages`` are the lines of the
    results table; ``costs`` per 100 rows by the ratio of a miss to a false alarm; ``departures``
    count, by column, values that training had not the like of; ``compared`` are the figures of the
    stream with intervals, as `report.gains` has them.
    """

    outcome: str
    ended_by: str = ""
    stages: Sequence[Mapping[str, Any]] | None = None
    evaluation: str | None = None
    verdict: Mapping[str, str] | None = None
    costs: Mapping[str, Sequence[float]] | None = None
    base_unchanged: bool | None = None
    serving_sha256: str | None = None
    notes: Mapping[str, int] | None = None
    departures: Mapping[str, Mapping[str, int]] | None = None
    compared: Sequence[Mapping[str, Any]] = ()


class RunResumed(Event, kind="run-resumed"):
    """An interrupted run goes on: its ``events`` until ``batch`` are gone through again."""

    actor: str
    batch: int
    events: int


def event_of(kind: str, data: Mapping[str, Any], **line: Any) -> Event:
    """The event of a line of a log; raises ValueError or TypeError for what is none."""
    known = TYPES.get(kind)
    if known is None:
        raise ValueError(f"'{kind}' is not a kind of event")
    if known is BaseStored:
        known = ModelWrapped if "origin" in data else ModelTrained
    return known.from_dict(data, **line)
