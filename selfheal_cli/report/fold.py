"""Events folded into what a run was: a row a batch, the snapshots, the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfheal_cli.history.events import ACTIONS, Event, Kind
from selfheal_cli.records import Scores


@dataclass(slots=True)
class Row:
    """One batch. The first sixteen fields are the article's ``metrics.csv``, in its order.

    ``healed_*`` are the figures after the batch's heal, or the live ones where none was; ``pre_*``
    are before it; precision to fn belong to ``healed``.
    """

    batch_idx: int
    z_score: float
    n_conflicts: int
    baseline_acc: float
    shadow_acc: float
    healed_acc: float
    baseline_f1: float
    shadow_f1: float
    healed_f1: float
    acc_lift: float
    f1_lift: float
    state: str
    action: str
    rolled_back: bool
    bce_real: float
    bce_const: float
    pre_acc: float
    pre_f1: float
    precision: float
    recall: float
    rows: int
    tp: int
    tn: int
    fp: int
    fn: int
    positive_share: float
    positive_weight: float
    version: int | None = None
    restored_version: int | None = None


@dataclass(slots=True)
class SnapshotRow:
    """A snapshot, with its version once the registry has given one."""

    id: str
    phase: str
    batch: int
    accuracy: float
    f1: float
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
    _heals: dict[int, tuple[Scores, Mapping[str, Any]]] = field(default_factory=dict)
    _others: dict[int, str] = field(default_factory=dict)
    _restored: dict[int, int] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take the next event."""
        taken = {
            Kind.RUN_STARTED: self._start,
            Kind.TRAINED: self._train,
            Kind.SNAPSHOT: self._snapshot,
            Kind.REGISTERED: self._register,
            Kind.HEAL: self._heal,
            Kind.HEAL_FAILED: self._not_healed,
            Kind.HEAL_COALESCED: self._not_healed,
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
        healed = [row for row in self.snapshots.values() if row.phase == "post-heal"]
        return max(healed, key=lambda row: row.f1, default=None)

    def _start(self, data: Mapping[str, Any]) -> None:
        self.started = data

    def _train(self, data: Mapping[str, Any]) -> None:
        self.trained = data

    def _finish(self, data: Mapping[str, Any]) -> None:
        self.finished = data

    def _snapshot(self, data: Mapping[str, Any]) -> None:
        scores = data["scores"]
        self.snapshots[data["id"]] = SnapshotRow(
            data["id"],
            data["phase"],
            data["batch"],
            scores["accuracy"],
            scores["f1"],
            scores["rows"],
        )

    def _register(self, data: Mapping[str, Any]) -> None:
        snapshot = self.snapshots.get(data["snapshot"])
        if snapshot is not None:
            snapshot.version = data["version"]
            row = self.rows.get(snapshot.batch)
            if row is not None and snapshot.phase == "post-heal":
                row.version = data["version"]

    def _heal(self, data: Mapping[str, Any]) -> None:
        self._heals[data["batch"]] = (Scores.from_dict(data["after"]), data)
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

    def _not_healed(self, data: Mapping[str, Any]) -> None:
        self._others[data["batch"]] = "COALESCED" if "replaced_by" in data else "FAILED"
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

    def _rollback(self, data: Mapping[str, Any]) -> None:
        self._restored[data["batch"]] = data["version"]
        if data["batch"] in self.rows:
            self._fill(self.rows[data["batch"]])

    def _batch(self, data: Mapping[str, Any]) -> None:
        live, shadow = Scores.from_dict(data["live"]), Scores.from_dict(data["shadow"])
        row = Row(
            batch_idx=data["batch"],
            z_score=round(data["z"], 4),
            n_conflicts=data["conflicts"],
            baseline_acc=round(shadow.accuracy, 4),
            shadow_acc=round(shadow.accuracy, 4),
            healed_acc=0.0,
            baseline_f1=round(shadow.f1, 4),
            shadow_f1=round(shadow.f1, 4),
            healed_f1=0.0,
            acc_lift=0.0,
            f1_lift=0.0,
            state=data["state"],
            action="QUEUED" if data["heal_requested"] else "NONE",
            rolled_back=False,
            bce_real=0.0,
            bce_const=0.0,
            pre_acc=round(live.accuracy, 4),
            pre_f1=round(live.f1, 4),
            precision=0.0,
            recall=0.0,
            rows=live.rows,
            tp=live.tp,
            tn=live.tn,
            fp=live.fp,
            fn=live.fn,
            positive_share=round(data["positive_share"], 4),
            positive_weight=0.0,
        )
        _score(row, live, shadow.accuracy, shadow.f1)
        self.rows[row.batch_idx] = row
        self._fill(row, shadow)

    def _fill(self, row: Row, shadow: Scores | None = None) -> None:
        """Put in what is known of the batch's heal by now."""
        batch = row.batch_idx
        if batch in self._heals:
            after, data = self._heals.pop(batch)
            row.action = "HEALED"
            row.bce_real = round(data["label_loss"], 4)
            row.bce_const = round(data["rule_loss"], 4)
            row.positive_weight = round(data["positive_weight"], 4)
            before = Scores.from_dict(data["before"])
            row.pre_acc, row.pre_f1 = round(before.accuracy, 4), round(before.f1, 4)
            accuracy = shadow.accuracy if shadow else row.shadow_acc
            f1 = shadow.f1 if shadow else row.shadow_f1
            _score(row, after, accuracy, f1)
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


def _score(row: Row, scores: Scores, shadow_accuracy: float, shadow_f1: float) -> None:
    row.healed_acc, row.healed_f1 = round(scores.accuracy, 4), round(scores.f1, 4)
    row.acc_lift = round(scores.accuracy - shadow_accuracy, 4)
    row.f1_lift = round(scores.f1 - shadow_f1, 4)
    row.precision, row.recall = round(scores.precision, 4), round(scores.recall, 4)
    row.tp, row.tn, row.fp, row.fn = scores.tp, scores.tn, scores.fp, scores.fn
