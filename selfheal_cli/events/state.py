"""Events folded into what a run is: the one fold, on which every reader of a log builds.

A whole log is folded onto a shelf on disk and into running figures: the memory that it takes does
not grow with the run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from heapq import merge
from typing import Any, Self, TypeVar

from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.events.evidence import Evidence
from selfheal_cli.events.log import keys_of
from selfheal_cli.events.shelf import DiskDict, Shelved
from selfheal_cli.records import Evaluation
from selfheal_cli.scores import AnyScores, Scores, scores_from

Pair = tuple[AnyScores, AnyScores]
UNKNOWN = (
    *("baseline_acc", "shadow_acc", "healed_acc", "baseline_f1", "shadow_f1", "healed_f1"),
    *("acc_lift", "f1_lift", "pre_acc", "pre_f1", "precision", "recall"),
    *("tp", "tn", "fp", "fn"),
)


@dataclass
class RunState:
    """A run so far. `apply` takes its events in order; a subclass adds what it looks at.

    ``batch`` is the last that was gone through; ``finished`` is None until the run's end, and again
    once it is ``resumed``, which counts how often it was. ``length`` counts the events, ``head`` is
    the last one's digest; ``stale`` are the rules that are; ``evidence`` says how other versions
    would have done.
    """

    started: events.RunStarted | None = None
    stored: events.BaseStored | None = None
    finished: events.RunFinished | None = None
    length: int = 0
    head: str = ""
    first: str = ""
    last: str = ""
    batch: int = 0
    resumed: int = 0
    held: bool = False
    stale: dict[str, None] = field(default_factory=dict)
    counts: Counter[type[Event]] = field(default_factory=Counter)
    evidence: Evidence = field(default_factory=Evidence)

    @classmethod
    def of(cls, log: Iterable[Event]) -> Self:
        """Of a whole log."""
        state = cls()
        for event in log:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take the next event."""
        self.length, self.head = self.length + 1, event.digest
        self.first, self.last = self.first or event.at, event.at
        self.counts[type(event)] += 1
        match event:
            case events.BatchScored():
                self.batch = event.batch
            case events.BatchSetApart():
                self.batch = event.batch
            case events.CandidatesCompared():
                self.evidence.add(event)
            case events.RunStarted():
                self.started = event
            case events.BaseStored():
                self.stored = event
                if isinstance(event, events.ModelTrained):
                    self.evidence.of_classes(event.labels)
            case events.RunFinished():
                self.finished = event
            case events.RunResumed():
                self.resumed, self.finished = self.resumed + 1, None
            case events.HealingHeld() | events.HealingReleased():
                self.held = isinstance(event, events.HealingHeld)
            case events.RuleStale(treatment=""):
                self.stale.pop(event.rule, None)
            case events.RuleStale():
                self.stale[event.rule] = None

    @property
    def run_id(self) -> str:
        """Empty before the run began, as `model`."""
        return self.started.run_id if self.started else ""

    @property
    def model(self) -> str:
        """The registered model's name."""
        return self.started.model if self.started else ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The run's configuration; empty before it began."""
        return self.started.config if self.started else {}

    @property
    def parts(self) -> Sequence[Mapping[str, str]]:
        """The parts of other packages that the run is made with."""
        return self.started.parts if self.started else ()

    @property
    def trained(self) -> events.ModelTrained | None:
        """The training of the network; None before that, and where a model was only wrapped."""
        return self.stored if isinstance(self.stored, events.ModelTrained) else None

    def times(self, *kinds: type[Event]) -> int:
        """How often an event of these kinds came."""
        return sum(count for kind, count in self.counts.items() if issubclass(kind, kinds))


@dataclass(slots=True)
class Row:
    """One batch. The first sixteen fields are the article's ``metrics.csv``, in its order.

    ``healed_*`` are the live figures, or with the article's recipe those after the batch's heal;
    ``pre_*`` are before it; precision to fn belong to ``healed``. Empty until labels come (then
    ``est_*`` hold what was estimated without); the
    counts are empty where there are more than two classes. ``heal_reason`` is why a heal was asked
    for, empty where none was.
    """

    batch_idx: int
    z_score: float
    n_conflicts: int
    baseline_acc: float | None
    shadow_acc: float | None
    healed_acc: float | None
    baseline_f1: float | None
    shadow_f1: float | None
    healed_f1: float | None
    acc_lift: float | None
    f1_lift: float | None
    state: str
    action: str
    rolled_back: bool
    bce_real: float
    bce_const: float
    pre_acc: float | None
    pre_f1: float | None
    precision: float | None
    recall: float | None
    rows: int
    tp: int | None
    tn: int | None
    fp: int | None
    fn: int | None
    positive_share: float
    positive_weight: float
    version: int | None = None
    restored_version: int | None = None
    est_accuracy: float | None = None
    est_f1: float | None = None
    heal_reason: str | None = None


@dataclass(slots=True)
class RowFold:
    """A run's rows so far. `add` takes its events in order.

    ``monitors`` holds readings by batch, ``scores`` live and shadow by batch, as they were before
    anything learned from it.
    """

    rows: MutableMapping[int, Row] = field(default_factory=dict)
    monitors: MutableMapping[int, Mapping[str, events.MonitorReading]] = field(default_factory=dict)
    scores: MutableMapping[int, Pair] = field(default_factory=dict)
    _heals: dict[int, events.HealEnded] = field(default_factory=dict)
    _restored: dict[int, int | None] = field(default_factory=dict)
    _forgotten: int = -1

    @classmethod
    def on(cls, shelf: DiskDict) -> RowFold:
        """Of a whole run, however long."""
        return cls(
            Shelved(shelf, int, astuple, lambda stored: Row(*stored)),
            Shelved(shelf, int),
            Shelved(
                shelf,
                int,
                lambda pair: [asdict(one) for one in pair],
                lambda stored: (scores_from(stored[0]), scores_from(stored[1])),
            ),
        )

    def add(self, event: Event) -> None:
        """Take the next event."""
        if not isinstance(event, OfBatch) or event.batch <= self._forgotten:
            return
        match event:
            case events.BatchScored():
                self._batch(event)
            case events.LabelsArrived():
                self._take_labels(event)
            case events.LabelsCorrected():
                self._correct(event)
            case events.HealEnded():
                self._heals[event.batch] = event
                self._fill(event.batch)
            case events.RolledBack():
                self._restored[event.batch] = event.version or None
                self._fill(event.batch)

    def registered(self, batch: int, version: int) -> None:
        """The version of a batch's heal is known."""
        row = self.rows.get(batch)
        if row is not None:
            row.version = version
            self.rows[batch] = row

    def restored(self, batch: int, version: int) -> None:
        """The version that a batch went back to is known."""
        row = self.rows.get(batch)
        if row is not None:
            row.restored_version = version
            self.rows[batch] = row

    def forget(self, batch: int) -> None:
        """Let go of all batches until this one; what comes of them later is passed over."""
        self._forgotten = batch
        for known in (
            self.rows, self.monitors, self.scores, self._heals, self._restored
        ):  # fmt: skip
            for old in [number for number in known if number <= batch]:
                del known[old]

    def _take_labels(self, event: events.LabelsArrived) -> None:
        """Labels of an earlier batch, perhaps not all of them at once."""
        live, shadow = self._score(event.batch, event.live, event.shadow)
        row = self.rows.get(event.batch)
        if row is not None:
            _score(row, live, shadow)
            self.rows[event.batch] = row

    def _correct(self, event: events.LabelsCorrected) -> None:
        """Rows of a batch count with another label than before."""
        before, row = self.scores.get(event.batch), self.rows.get(event.batch)
        if before is None:
            return
        live = before[0].minus(event.was).plus(event.live)
        shadow = before[1].minus(event.was_shadow).plus(event.shadow)
        self.scores[event.batch] = (live, shadow)
        if row is not None:
            _score(row, live, shadow)
            self.rows[event.batch] = row

    def _score(self, batch: int, live: AnyScores, shadow: AnyScores) -> Pair:
        before = self.scores.get(batch)
        if before is not None:
            live, shadow = before[0].plus(live), before[1].plus(shadow)
        self.scores[batch] = (live, shadow)
        return live, shadow

    def _batch(self, event: events.BatchScored) -> None:
        row = Row(
            batch_idx=event.batch,
            z_score=round(event.z, 4),
            n_conflicts=event.conflicts,
            **dict.fromkeys(UNKNOWN),
            state=event.state,
            action="QUEUED" if event.heal_requested else "NONE",
            rolled_back=False,
            bce_real=0.0,
            bce_const=0.0,
            rows=event.rows,
            positive_share=round(event.positive_share, 4),
            positive_weight=0.0,
        )
        if event.monitors:
            self.monitors[event.batch] = event.monitors
        for name in ("est_accuracy", "est_f1"):
            if name in event.estimates:
                setattr(row, name, round(event.estimates[name], 4))
        if event.live is not None and event.shadow is not None:
            self._score(event.batch, event.live, event.shadow)
        pair = self.scores.get(event.batch)  # labels may have come just before their batch's end
        if pair is not None:
            _score(row, *pair)
        self._put(row, pair[1] if pair else None)

    def _fill(self, batch: int) -> None:
        row = self.rows.get(batch)
        if row is not None:
            self._put(row)

    def _put(self, row: Row, shadow: AnyScores | None = None) -> None:
        """Put in what is known of the batch's heal by now."""
        batch = row.batch_idx
        heal = self._heals.pop(batch, None)
        if heal is not None:
            row.action, row.heal_reason = heal.outcome.upper(), heal.reason
        if isinstance(heal, events.HealPublished):
            row.bce_real = round(heal.more.get("label_loss", 0.0), 4)
            row.bce_const = round(heal.more.get("rule_loss", 0.0), 4)
            row.positive_weight = round(heal.more.get("positive_weight", 0.0), 4)
            if heal.evaluation is Evaluation.IN_SAMPLE and heal.own_rows:
                _heal_row(row, heal, shadow)
        if batch in self._restored:
            row.rolled_back = True
            row.restored_version = self._restored.pop(batch)
        self.rows[batch] = row


def _heal_row(row: Row, heal: events.HealPublished, shadow: AnyScores | None) -> None:
    """The article's way: a batch's figures are those of the heal on it."""
    if heal.before is None or heal.after is None:
        return
    row.pre_acc, row.pre_f1 = round(heal.before.accuracy, 4), round(heal.before.f1, 4)
    _figures(row, heal.after)
    accuracy = shadow.accuracy if shadow else row.shadow_acc
    f1 = shadow.f1 if shadow else row.shadow_f1
    if accuracy is not None and f1 is not None:
        row.acc_lift = round(heal.after.accuracy - accuracy, 4)
        row.f1_lift = round(heal.after.f1 - f1, 4)


def _score(row: Row, live: AnyScores, shadow: AnyScores) -> None:
    """A batch's figures, before any heal on it."""
    row.baseline_acc = row.shadow_acc = round(shadow.accuracy, 4)
    row.baseline_f1 = row.shadow_f1 = round(shadow.f1, 4)
    row.pre_acc, row.pre_f1 = round(live.accuracy, 4), round(live.f1, 4)
    row.acc_lift = round(live.accuracy - shadow.accuracy, 4)
    row.f1_lift = round(live.f1 - shadow.f1, 4)
    _figures(row, live)


def _figures(row: Row, scores: AnyScores) -> None:
    row.healed_acc, row.healed_f1 = round(scores.accuracy, 4), round(scores.f1, 4)
    row.precision, row.recall = round(scores.precision, 4), round(scores.recall, 4)
    if isinstance(scores, Scores):
        row.tp, row.tn, row.fp, row.fn = scores.tp, scores.tn, scores.fp, scores.fn


LATEST = 100  # actions of a kind that are kept at hand
Action = Mapping[str, Any]
E = TypeVar("E", bound=Event)


@dataclass(slots=True)
class SnapshotRow:
    """A snapshot, with its version once the registry has given one."""

    id: str
    phase: str
    batch: int
    accuracy: float | None
    f1: float | None
    rows: int
    version: int | None = None


@dataclass(slots=True)
class Happened:
    """Actions of one kind: the first, and the latest."""

    first: Event
    latest: deque[Event] = field(default_factory=lambda: deque(maxlen=LATEST))


@dataclass
class RunView(RunState):
    """A run so far, as it is shown: a row a batch, snapshots, and what was done."""

    shelf: DiskDict = field(default_factory=DiskDict)
    happened: dict[type[Event], Happened] = field(default_factory=dict)
    by_batch: RowFold = field(init=False)
    snapshots: MutableMapping[str, SnapshotRow] = field(init=False)
    _actions: MutableMapping[int, Action] = field(init=False)
    _same: dict[str, list[str]] = field(default_factory=dict)  # by what is no version yet
    _elsewhere: dict[str, int] = field(default_factory=dict)  # versions of other runs
    _gone_back: dict[str, list[int]] = field(default_factory=dict)  # batches by snapshot

    def __post_init__(self) -> None:
        self.by_batch = RowFold.on(self.shelf)
        self.snapshots = Shelved(self.shelf, str, astuple, lambda row: SnapshotRow(*row))
        self._actions = Shelved(self.shelf, int)

    @property
    def rows(self) -> Mapping[int, Row]:
        """By batch."""
        return self.by_batch.rows

    @property
    def actions(self) -> Collection[Action]:
        """What changed the model, in order."""
        return self._actions.values()

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        self.by_batch.add(event)
        match event:
            case events.SnapshotTaken():
                row = SnapshotRow(event.id, event.phase, event.batch, None, None, 0)
                if event.scores is not None:
                    _score_row(row, event.scores)
                self.snapshots[row.id] = row
                if event.same_as:
                    self._is(row, event.same_as)
            case events.SnapshotScored() if event.snapshot in self.snapshots:
                row = self.snapshots[event.snapshot]
                _score_row(row, event.scores)
                self.snapshots[row.id] = row
            case events.VersionRegistered() if event.snapshot in self.snapshots:
                self._register(self.snapshots[event.snapshot], event.version)
            case events.RolledBack() if not event.version:
                self._gone_back.setdefault(event.to_snapshot, []).append(event.batch)
            case events.ChampionFollowed() if event.to_snapshot not in self.snapshots:
                self._elsewhere[event.to_snapshot] = event.version
        if event.is_action:
            self._act(event)

    def latest(self, *kinds: type[E]) -> list[E]:
        """The latest actions of these kinds, in order; no more than `LATEST`."""
        known = [one.latest for kind, one in self.happened.items() if issubclass(kind, kinds)]
        ordered = merge(*known, key=lambda event: event.sequence)
        return [event for event in ordered if isinstance(event, kinds)][-LATEST:]

    def versions(self) -> int:
        """Snapshots that the registry has."""
        numbers = {row.version for row in self.snapshots.values()}
        return len(numbers - {None, *self._elsewhere.values()})

    def best(self) -> SnapshotRow | None:
        """The post-heal snapshot with the highest F1."""
        healed = (
            row
            for row in self.snapshots.values()
            if row.phase == "post-heal" and row.f1 is not None
        )
        return max(healed, key=lambda row: row.f1 or 0.0, default=None)

    def _act(self, event: Event) -> None:
        line = {"sequence": event.sequence, "at": event.at, "kind": event.kind}
        self._actions[event.sequence] = line | keys_of(event)
        self.happened.setdefault(type(event), Happened(event)).latest.append(event)

    def _is(self, row: SnapshotRow, other: str) -> None:
        """A snapshot that is another one: its version is that one's."""
        known = self.snapshots.get(other)
        row.version = known.version if known else self._elsewhere.get(other)
        if row.version is None:
            self._same.setdefault(other, []).append(row.id)
        self.snapshots[row.id] = row

    def _register(self, row: SnapshotRow, version: int) -> None:
        row.version = version
        self.snapshots[row.id] = row
        for other in self._same.pop(row.id, ()):
            self._register(self.snapshots[other], version)
        for batch in self._gone_back.pop(row.id, ()):
            self.by_batch.restored(batch, version)
        if row.phase == "post-heal":
            self.by_batch.registered(row.batch, version)


def _score_row(row: SnapshotRow, scores: AnyScores) -> None:
    row.accuracy, row.f1, row.rows = scores.accuracy, scores.f1, scores.rows
