"""Events folded into what a run was: rows, snapshots, what was done, the end.

A whole log is folded onto a shelf on disk and into running figures: the memory that it takes does
not grow with the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from heapq import merge
from typing import Any

from selfheal_cli.events.shelf import DiskDict, Shelved
from selfheal_cli.events.types import ACTIONS, Event, Kind
from selfheal_cli.records import Evaluation
from selfheal_cli.scores import AnyScores, Scores, scores_from

Pair = tuple[AnyScores, AnyScores]
NOT_HEALED = (Kind.HEAL_FAILED, Kind.HEAL_COALESCED, Kind.HEAL_REJECTED, Kind.HEAL_REFUSED)
NOT_HEALED_WORDS = {
    "replaced_by": "COALESCED",
    "rejected": "REJECTED",
    "worker_restarted": "FAILED",
}
UNKNOWN = (
    *("baseline_acc", "shadow_acc", "healed_acc", "baseline_f1", "shadow_f1", "healed_f1"),
    *("acc_lift", "f1_lift", "pre_acc", "pre_f1", "precision", "recall"),
    *("tp", "tn", "fp", "fn"),
)


@dataclass(slots=True)
class Row:
    """One batch. The first sixteen fields are the article's ``metrics.csv``, in its order.

    ``healed_*`` are the live figures, or with the article's recipe those after the batch's heal;
    ``pre_*`` are before it; precision to fn belong to ``healed``. Empty until labels come (then
    ``est_*`` hold what was estimated without); the
    counts are empty where there are more than two classes.
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


@dataclass(slots=True)
class RowFold:
    """A run's rows so far. `add` takes its events in order.

    ``scores`` holds live and shadow by batch, as they were before anything learned from it.
    """

    rows: MutableMapping[int, Row] = field(default_factory=dict)
    monitors: MutableMapping[int, Mapping[str, Any]] = field(default_factory=dict)  # readings
    scores: MutableMapping[int, Pair] = field(default_factory=dict)
    _heals: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _others: dict[int, str] = field(default_factory=dict)
    _restored: dict[int, int] = field(default_factory=dict)
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
        taken: Callable[[Mapping[str, Any]], None] | None = {
            Kind.LABELS: self._take_labels,
            Kind.HEAL: self._heal,
            **dict.fromkeys(NOT_HEALED, self._not_healed),
            Kind.ROLLBACK: self._rollback,
            Kind.BATCH: self._batch,
        }.get(event.kind)
        if taken is not None and event.data["batch"] > self._forgotten:
            taken(event.data)

    def registered(self, batch: int, version: int) -> None:
        """The version of a batch's heal is known."""
        row = self.rows.get(batch)
        if row is not None:
            row.version = version
            self.rows[batch] = row

    def forget(self, batch: int) -> None:
        """Let go of all batches until this one; what comes of them later is passed over."""
        self._forgotten = batch
        for known in (
            self.rows, self.monitors, self.scores, self._heals, self._others, self._restored
        ):  # fmt: skip
            for old in [number for number in known if number <= batch]:
                del known[old]

    def _heal(self, data: Mapping[str, Any]) -> None:
        self._heals[data["batch"]] = data
        self._fill(data["batch"])

    def _not_healed(self, data: Mapping[str, Any]) -> None:
        word = next((word for key, word in NOT_HEALED_WORDS.items() if key in data), "REFUSED")
        self._others[data["batch"]] = word
        self._fill(data["batch"])

    def _rollback(self, data: Mapping[str, Any]) -> None:
        self._restored[data["batch"]] = data["version"]
        self._fill(data["batch"])

    def _take_labels(self, data: Mapping[str, Any]) -> None:
        """Labels of an earlier batch, perhaps not all of them at once."""
        live, shadow = self._score(data)
        row = self.rows.get(data["batch"])
        if row is not None:
            _score(row, live, shadow)
            self.rows[data["batch"]] = row

    def _score(self, data: Mapping[str, Any]) -> Pair:
        live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
        before = self.scores.get(data["batch"])
        if before is not None:
            live, shadow = before[0].plus(live), before[1].plus(shadow)
        self.scores[data["batch"]] = (live, shadow)
        return live, shadow

    def _batch(self, data: Mapping[str, Any]) -> None:
        row = Row(
            batch_idx=data["batch"],
            z_score=round(data["z"], 4),
            n_conflicts=data["conflicts"],
            **dict.fromkeys(UNKNOWN),
            state=data["state"],
            action="QUEUED" if data["heal_requested"] else "NONE",
            rolled_back=False,
            bce_real=0.0,
            bce_const=0.0,
            rows=data["rows"] if "rows" in data else data["live"]["rows"],
            positive_share=round(data["positive_share"], 4),
            positive_weight=0.0,
        )
        if "monitors" in data:
            self.monitors[row.batch_idx] = data["monitors"]
        for name in ("est_accuracy", "est_f1"):
            if name in data.get("estimates", {}):
                setattr(row, name, round(data["estimates"][name], 4))
        if data["live"] is not None:
            self._score(data)
        pair = self.scores.get(row.batch_idx)  # labels may have come just before their batch's end
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
        if batch in self._heals:
            data = self._heals.pop(batch)
            row.action = "HEALED"
            row.bce_real = round(data.get("label_loss", 0.0), 4)
            row.bce_const = round(data.get("rule_loss", 0.0), 4)
            row.positive_weight = round(data.get("positive_weight", 0.0), 4)
            if data["evaluation"] == Evaluation.IN_SAMPLE.value and data.get("own_rows", True):
                _heal_row(row, data, shadow)
        elif batch in self._others:
            row.action = self._others.pop(batch)
        if batch in self._restored:
            row.rolled_back = True
            row.restored_version = self._restored.pop(batch)
        self.rows[batch] = row


def _heal_row(row: Row, data: Mapping[str, Any], shadow: AnyScores | None) -> None:
    """The article's way: a batch's figures are those of the heal on it."""
    before, after = scores_from(data["before"]), scores_from(data["after"])
    row.pre_acc, row.pre_f1 = round(before.accuracy, 4), round(before.f1, 4)
    _figures(row, after)
    accuracy = shadow.accuracy if shadow else row.shadow_acc
    f1 = shadow.f1 if shadow else row.shadow_f1
    if accuracy is not None and f1 is not None:
        row.acc_lift = round(after.accuracy - accuracy, 4)
        row.f1_lift = round(after.f1 - f1, 4)


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
    """Actions of one kind: how many, the first, and the latest with their places in the log."""

    first: Action
    times: int = 0
    latest: deque[tuple[int, Action]] = field(default_factory=lambda: deque(maxlen=LATEST))


@dataclass(slots=True)
class RunView:
    """A run so far. `add` takes its events in order."""

    shelf: DiskDict = field(default_factory=DiskDict)
    started: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    finished: Mapping[str, Any] = field(default_factory=dict)
    happened: dict[str, Happened] = field(default_factory=dict)
    by_batch: RowFold = field(init=False)
    snapshots: MutableMapping[str, SnapshotRow] = field(init=False)
    _actions: MutableMapping[int, Action] = field(init=False)

    def __post_init__(self) -> None:
        self.by_batch = RowFold.on(self.shelf)
        self.snapshots = Shelved(self.shelf, str, astuple, lambda stored: SnapshotRow(*stored))
        self._actions = Shelved(self.shelf, int)

    @property
    def rows(self) -> Mapping[int, Row]:
        """By batch."""
        return self.by_batch.rows

    @property
    def actions(self) -> Collection[Action]:
        """What changed the model, in order."""
        return self._actions.values()

    def add(self, event: Event) -> None:
        """Take the next event."""
        self.by_batch.add(event)
        taken: Callable[[Mapping[str, Any]], None] | None = {
            Kind.RUN_STARTED: self._start,
            Kind.TRAINED: self._train,
            Kind.SNAPSHOT: self._snapshot,
            Kind.SCORED: self._score_snapshot,
            Kind.REGISTERED: self._register,
            Kind.RUN_FINISHED: self._finish,
        }.get(event.kind)
        if taken is not None:
            taken(event.data)
        if event.kind in ACTIONS:
            self._act(event)

    def times(self, *kinds: str) -> int:
        """How often something was done."""
        return sum(self.happened[kind].times for kind in kinds if kind in self.happened)

    def latest(self, *kinds: str) -> Sequence[Action]:
        """The latest actions of these kinds, in order; no more than `LATEST`."""
        known = [self.happened[kind].latest for kind in kinds if kind in self.happened]
        actions = merge(*known, key=lambda pair: pair[0])
        return [action for _, action in actions][-LATEST:]

    def versions(self) -> int:
        """Snapshots that the registry has."""
        return sum(row.version is not None for row in self.snapshots.values())

    def best(self) -> SnapshotRow | None:
        """The post-heal snapshot with the highest F1."""
        healed = (
            row
            for row in self.snapshots.values()
            if row.phase == "post-heal" and row.f1 is not None
        )
        return max(healed, key=lambda row: row.f1 or 0.0, default=None)

    def _act(self, event: Event) -> None:
        action = {"sequence": event.sequence, "at": event.at, "kind": event.kind.value}
        action |= dict(event.data)
        self._actions[event.sequence] = action
        known = self.happened.setdefault(event.kind.value, Happened(action))
        known.times += 1
        known.latest.append((event.sequence, action))

    def _start(self, data: Mapping[str, Any]) -> None:
        self.started = data

    def _train(self, data: Mapping[str, Any]) -> None:
        self.trained = data

    def _finish(self, data: Mapping[str, Any]) -> None:
        self.finished = data

    def _snapshot(self, data: Mapping[str, Any]) -> None:
        row = SnapshotRow(data["id"], data["phase"], data["batch"], None, None, 0)
        if data["scores"] is not None:
            _score_row(row, scores_from(data["scores"]))
        self.snapshots[row.id] = row

    def _score_snapshot(self, data: Mapping[str, Any]) -> None:
        row = self.snapshots.get(data["snapshot"])
        if row is not None:
            _score_row(row, scores_from(data["scores"]))
            self.snapshots[row.id] = row

    def _register(self, data: Mapping[str, Any]) -> None:
        row = self.snapshots.get(data["snapshot"])
        if row is not None:
            row.version = data["version"]
            self.snapshots[row.id] = row
            if row.phase == "post-heal":
                self.by_batch.registered(row.batch, data["version"])


def fold(events: Iterable[Event]) -> RunView:
    """A whole log."""
    view = RunView()
    for event in events:
        view.add(event)
    return view


def _score_row(row: SnapshotRow, scores: AnyScores) -> None:
    row.accuracy, row.f1, row.rows = scores.accuracy, scores.f1, scores.rows
