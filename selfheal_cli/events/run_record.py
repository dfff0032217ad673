"""What a run wrote down of its versions, and of the aliases that it moved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from selfheal_cli.events.event import Event
from selfheal_cli.events.state import RunState
from selfheal_cli.events.types import (
    AliasMoved,
    ModelTrained,
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
