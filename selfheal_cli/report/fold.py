"""Events folded into what a run was: rows, snapshots, what was done, the end.

A whole log is folded onto a shelf on disk and into running figures: the memory that it takes does
not grow with the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import astuple, dataclass, field
from heapq import merge
from typing import Any

from selfheal_cli.history.events import ACTIONS, Event, Kind
from selfheal_cli.report.rows import Row, RowFold
from selfheal_cli.report.shelf import Shelf, Shelved
from selfheal_cli.scores import AnyScores, scores_from

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

    shelf: Shelf = field(default_factory=Shelf)
    started: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    finished: Mapping[str, Any] = field(default_factory=dict)
    happened: dict[str, Happened] = field(default_factory=dict)
    by_batch: RowFold = field(init=False)
    snapshots: MutableMapping[str, SnapshotRow] = field(init=False)
    _actions: MutableMapping[int, Action] = field(init=False)

    def __post_init__(self) -> None:
        self.by_batch = RowFold.on(self.shelf)
        self.snapshots = Shelved(self.shelf, str, astuple, lambda found: SnapshotRow(*found))
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
        found = merge(*known, key=lambda pair: pair[0])
        return [action for _, action in found][-LATEST:]

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
