"""What a run has come to by its events: the one fold, which every reader of a log builds on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from selfheal_cli.events.types import (
    AliasMoved,
    BaseStored,
    BatchScored,
    BatchSetApart,
    Event,
    HealingHeld,
    HealingReleased,
    ModelTrained,
    RuleStale,
    RunFinished,
    RunResumed,
    RunStarted,
    SnapshotScored,
    SnapshotTaken,
    VersionRegistered,
)
from selfheal_cli.records import AliasMove
from selfheal_cli.scores import AnyScores

# what a `RunRecord` is folded from, where its moves are not wanted
OF_VERSIONS = (
    RunStarted, ModelTrained, SnapshotTaken, SnapshotScored, VersionRegistered, RunFinished,
    RunResumed,
)  # fmt: skip


@dataclass
class RunState:
    """A run so far. `apply` takes its events in order; a subclass adds what it looks at.

    ``batch`` is the last that was gone through; ``finished`` is None until the run's end, and again
    once it is ``resumed``, which counts how often it was. ``stale`` are the rules that are.
    """

    started: RunStarted | None = None
    stored: BaseStored | None = None
    finished: RunFinished | None = None
    events: int = 0
    head: str = ""
    first: str = ""
    last: str = ""
    batch: int = 0
    resumed: int = 0
    held: bool = False
    stale: dict[str, None] = field(default_factory=dict)
    counts: Counter[type[Event]] = field(default_factory=Counter)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """A whole log."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take the next event."""
        self.events, self.head = self.events + 1, event.digest
        self.first, self.last = self.first or event.at, event.at
        self.counts[type(event)] += 1
        match event:
            case BatchScored() | BatchSetApart():
                self.batch = event.batch
            case RunStarted():
                self.started = event
            case BaseStored():
                self.stored = event
            case RunFinished():
                self.finished = event
            case RunResumed():
                self.resumed, self.finished = self.resumed + 1, None
            case HealingHeld() | HealingReleased():
                self.held = isinstance(event, HealingHeld)
            case RuleStale(treatment=""):
                self.stale.pop(event.rule, None)
            case RuleStale():
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
    def trained(self) -> ModelTrained | None:
        """The training of the network; None before that, and where a model was only wrapped."""
        return self.stored if isinstance(self.stored, ModelTrained) else None

    def times(self, *kinds: type[Event]) -> int:
        """How often an event of these kinds came."""
        return sum(count for kind, count in self.counts.items() if issubclass(kind, kinds))


@dataclass(frozen=True, slots=True)
class Account:
    """A snapshot as its run wrote it down.

    ``digest`` is that of the event ``taken``; ``scored`` holds scores that came with late labels,
    ``parent`` the version that it came from. ``version`` is None until it is registered, and
    ``manifest`` the hash of the version's manifest, empty where it was made without one.
    """

    run_id: str
    base: str
    base_sha256: str
    taken: SnapshotTaken
    digest: str
    scored: AnyScores | None = None
    parent: int | None = None
    version: int | None = None
    manifest: str = ""


@dataclass
class RunRecord(RunState):
    """What a run wrote down of its versions and of the aliases that it moved."""

    snapshots: dict[str, Account] = field(default_factory=dict)
    moves: list[AliasMove] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        match event:
            case SnapshotTaken():
                self.snapshots[event.id] = Account(
                    self.run_id, self.base, self.base_sha256, event, event.digest
                )
            case SnapshotScored():
                self._complete(event.snapshot, scored=event.scores)
            case VersionRegistered():
                self._complete(event.snapshot, version=event.version, manifest=event.manifest)
            case AliasMoved():
                self.moves.append(event.move)

    @property
    def base(self) -> str:
        """The id of what is frozen; empty before it was stored."""
        return self.stored.base if self.stored else ""

    @property
    def base_sha256(self) -> str:
        """Its hash."""
        return self.stored.base_sha256 if self.stored else ""

    def account(self, snapshot: str) -> Account | None:
        """Of a snapshot, with the version of its parent; None where the log knows none such."""
        account = self.snapshots.get(snapshot)
        parent = self.snapshots.get(account.taken.parent or "") if account else None
        return replace(account, parent=parent.version) if account and parent else account

    def _complete(self, snapshot: str, **later: Any) -> None:
        if snapshot in self.snapshots:
            self.snapshots[snapshot] = replace(self.snapshots[snapshot], **later)
