"""Events folded into what a run was: a row a batch, the snapshots, the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfheal_cli.history.events import ACTIONS, Event, Kind
from selfheal_cli.records import Evaluation
from selfheal_cli.scores import AnyScores, Scores, scores_from

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
class RunView:
    """A run so far. `add` takes its events in order."""

    started: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    finished: Mapping[str, Any] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    snapshots: dict[str, SnapshotRow] = field(default_factory=dict)
    actions: list[dict[str, Any]] = field(default_factory=list)
    monitors: dict[int, Mapping[str, Any]] = field(default_factory=dict)  # readings a batch
    _heals: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _labels: dict[int, tuple[AnyScores, AnyScores]] = field(default_factory=dict)
    _others: dict[int, str] = field(default_factory=dict)
    _restored: dict[int, int] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take the next event."""
        taken = {
            Kind.RUN_STARTED: self._start,
            Kind.TRAINED: self._train,
            Kind.SNAPSHOT: self._snapshot,
            Kind.SCORED: self._score_snapshot,
            Kind.REGISTERED: self._register,
            Kind.LABELS: self._take_labels,
            Kind.HEAL: self._heal,
            **dict.fromkeys(NOT_HEALED, self._not_healed),
            Kind.ROLLBACK: self._rollback,
            Kind.BATCH: self._batch,
            Kind.RUN_FINISHED: self._finish,
        }.get(event.kind)
        if taken is not None:
            taken(event.data)
        if event.kind in ACTIONS:
            self.actions.append(
                {"sequence": event.sequence, "at": event.at, "kind": event.kind.value}
                | dict(event.data)
            )

    def best(self) -> SnapshotRow | None:
        """The post-heal snapshot with the highest F1."""
        healed = [
            row
            for row in self.snapshots.values()
            if row.phase == "post-heal" and row.f1 is not None
        ]
        return max(healed, key=lambda row: row.f1 or 0.0, default=None)

    def _start(self, data: Mapping[str, Any]) -> None:
        self.started = data

    def _train(self, data: Mapping[str, Any]) -> None:
        self.trained = data

    def _finish(self, data: Mapping[str, Any]) -> None:
        self.finished = data

    def _snapshot(self, data: Mapping[str, Any]) -> None:
        row = SnapshotRow(data["id"], data["phase"], data["batch"], None, None, 0)
        self.snapshots[row.id] = row
        if data["scores"] is not None:
            _score_row(row, scores_from(data["scores"]))

    def _score_snapshot(self, data: Mapping[str, Any]) -> None:
        if data["snapshot"] in self.snapshots:
            _score_row(self.snapshots[data["snapshot"]], scores_from(data["scores"]))

    def _register(self, data: Mapping[str, Any]) -> None:
        snapshot = self.snapshots.get(data["snapshot"])
        if snapshot is not None:
            snapshot.version = data["version"]
            row = self.rows.get(snapshot.batch)
            if row is not None and snapshot.phase == "post-heal":
                row.version = data["version"]

    def _heal(self, data: Mapping[str, Any]) -> None:
        self._heals[data["batch"]] = data
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

    def _not_healed(self, data: Mapping[str, Any]) -> None:
        word = next((word for key, word in NOT_HEALED_WORDS.items() if key in data), "REFUSED")
        self._others[data["batch"]] = word
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

    def _take_labels(self, data: Mapping[str, Any]) -> None:
        """Labels of an earlier batch, perhaps not all of them at once."""
        live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
        if data["batch"] in self._labels:
            before = self._labels[data["batch"]]
            live, shadow = before[0].plus(live), before[1].plus(shadow)
        self._labels[data["batch"]] = (live, shadow)
        if data["batch"] in self.rows:
            _score(self.rows[data["batch"]], live, shadow)

    def _rollback(self, data: Mapping[str, Any]) -> None:
        self._restored[data["batch"]] = data["version"]
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

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
        self.rows[row.batch_idx] = row
        if "monitors" in data:
            self.monitors[row.batch_idx] = data["monitors"]
        for name in ("est_accuracy", "est_f1"):
            if name in data.get("estimates", {}):
                setattr(row, name, round(data["estimates"][name], 4))
        shadow = None
        if data["live"] is not None:
            live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
            _score(row, live, shadow)
        self._fill(row, shadow)

    def _fill(self, row: Row, shadow: AnyScores | None = None) -> None:
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


def fold(events: Iterable[Event]) -> RunView:
    """A whole log."""
    view = RunView()
    for event in events:
        view.add(event)
    return view


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


def _score_row(row: SnapshotRow, scores: AnyScores) -> None:
    row.accuracy, row.f1, row.rows = scores.accuracy, scores.f1, scores.rows
