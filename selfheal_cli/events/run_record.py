"""What the event log of a run says of the versions that came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selfheal_cli.events.types import Event, Kind


@dataclass(frozen=True, slots=True)
class Account:
    """A snapshot as its run wrote it down.

    ``data`` and ``digest`` are those of the event; ``scored`` holds scores that came with late
    labels, ``parent`` the version that it came from. ``version`` is None until it is registered,
    and ``manifest`` the hash of the version's manifest, empty where it was made without one.
    """

    run_id: str
    base: str
    base_sha256: str
    data: Mapping[str, Any]
    digest: str
    scored: Mapping[str, Any] | None = None
    parent: int | None = None
    version: int | None = None
    manifest: str = ""


# what a record of versions is folded from
KINDS = (
    Kind.RUN_STARTED, Kind.TRAINED, Kind.SNAPSHOT, Kind.SCORED, Kind.REGISTERED, Kind.RUN_FINISHED,
    Kind.RUN_RESUMED,
)  # fmt: skip


@dataclass(slots=True)
class RunRecord:
    """A run's log, folded. ``started`` is the data of its first event."""

    started: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = ""
    base: str = ""
    base_sha256: str = ""
    sequence: int = 0
    head: str = ""
    ended: bool = False
    ended_by: str = ""  # by whom, where it was killed: what it had in memory alone is lost
    snapshots: dict[str, Account] = field(default_factory=dict)
    moves: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take the next event."""
        data = event.data
        self.sequence, self.head = event.sequence, event.digest
        if event.kind is Kind.RUN_STARTED:
            self.started, self.run_id = data, data["run_id"]
        elif event.kind is Kind.TRAINED:
            self.base, self.base_sha256 = data["base"], data["base_sha256"]
        elif event.kind is Kind.SNAPSHOT:
            self.snapshots[data["id"]] = Account(
                self.run_id, self.base, self.base_sha256, data, event.digest
            )
        elif event.kind is Kind.SCORED:
            self._complete(data["snapshot"], scored=data["scores"])
        elif event.kind is Kind.REGISTERED:
            registered = {"version": data["version"], "manifest": data.get("manifest", "")}
            self._complete(data["snapshot"], **registered)
        elif event.kind is Kind.ALIAS_MOVED:
            self.moves.append(data)
        if event.kind in (Kind.RUN_FINISHED, Kind.RUN_RESUMED):
            self.ended = event.kind is Kind.RUN_FINISHED
            self.ended_by = data.get("ended_by", "") if self.ended else ""

    def account(self, snapshot: str) -> Account | None:
        """Of a snapshot, with the version of its parent; None where the log knows none such."""
        account = self.snapshots.get(snapshot)
        parent = self.snapshots.get(account.data["parent"] or "") if account else None
        return replace(account, parent=parent.version) if account and parent else account

    def _complete(self, snapshot: str, **later: Any) -> None:
        if snapshot in self.snapshots:
            self.snapshots[snapshot] = replace(self.snapshots[snapshot], **later)
