"""Trust: versions whose bytes, tags and figures agree with the log of the run that made them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from selfheal_cli.errors import EventLogError, RegistryError, RegistryUnreachable, VersionCorrupt
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import read_only
from selfheal_cli.events.run_record import OF_VERSIONS, Account, RunRecord
from selfheal_cli.records import AnyVersion, ForeignVersion, StoredVersion, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind
from selfheal_cli.rollback.agreement import differences
from selfheal_cli.workspace import WORKSPACE

OwnAccount = Callable[[str], Account | None]  # of a snapshot by id, from this process's own run
OWN_TAGS = {f"selfheal.{name}" for name in ("run_id", "snapshot", "base", "sha256", "model")}
OTHERS = "selfheal did not register it: nothing of it can be checked"
BEFORE = "was made before manifests; its adapter, tags and figures are as its run's log has them"


@dataclass(frozen=True, slots=True)
class TrustVerdict:
    """Doubts about a version, and where there are none, a note that a person should know.

    ``counted``: its figures are known to rest on rows that its run counted.
    """

    doubts: tuple[str, ...] = ()
    note: str = ""
    counted: bool = False


def summed_up(doubts: Sequence[str]) -> str:
    """The first doubt, and how many more there are."""
    more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
    return doubts[0] + more


class Trust(Protocol):
    """Judges versions by other records than the registry's entries."""

    def judge(self, version: AnyVersion) -> TrustVerdict:
        """The verdict on a version; raises `RegistryUnreachable` alone."""


class Unverified:
    """`Trust` in the registry's entries as they are."""

    def judge(self, version: AnyVersion) -> TrustVerdict:
        """A verdict without doubts, with a note that nothing was checked."""
        return TrustVerdict(note="is taken as the registry has it: its record was not looked at")


class ByTheLog:
    """`Trust` by the logs of the runs, each read once: from the workspace, else the registry.

    Where the run ``own_run`` is under way in this process, ``own`` gives its accounts.
    """

    def __init__(
        self,
        registry: Registry,
        workspace: Path = WORKSPACE,
        own_run: str = "",
        own: OwnAccount = lambda snapshot: None,
    ) -> None:
        self._registry = registry
        self._workspace = workspace
        self._own_run = own_run
        self._own = own
        self._verdicts: dict[tuple[str, int], TrustVerdict] = {}
        self._records: dict[str, RunRecord | None] = {}

    def judge(self, version: AnyVersion) -> TrustVerdict:
        """The verdict on a version, by the log of its run."""
        key = version.model, version.version
        if key not in self._verdicts:
            self._verdicts[key] = (
                TrustVerdict((OTHERS,))
                if isinstance(version, ForeignVersion)
                else self._judge(version)
            )
        return self._verdicts[key]

    def _judge(self, version: VersionRecord) -> TrustVerdict:
        if not version.tags.keys() >= OWN_TAGS:
            return TrustVerdict(("it has not the tags that each of selfheal's versions has",))
        run_id, snapshot = version.run_id, version.tags["selfheal.snapshot"]
        try:
            if run_id == self._own_run:
                account, under_way = self._own(snapshot), True
            else:
                record = self._record(run_id)
                if record is None:
                    return self._by_itself(version)
                account, under_way = record.account(snapshot), record.finished is None
            if account is None or (account.version is None and not under_way):
                return TrustVerdict((f"the log of run {run_id} knows no such version",))
            return self._compare(version, account, under_way=under_way)
        except RegistryUnreachable:
            raise
        except (VersionCorrupt, EventLogError) as exc:
            return TrustVerdict((str(exc).removeprefix(f"{version.model} v{version.version}: "),))

    def _compare(
        self, version: VersionRecord, account: Account, *, under_way: bool
    ) -> TrustVerdict:
        if self._registry.base(version.base).sha256 != account.base_sha256:
            return TrustVerdict((f"its base {version.base} is not the one that its run trained",))
        stored = self._stored(version)
        number = version.version
        if version.tags["selfheal.model"] != version.model:
            number = account.version or number  # a copy, under the name of another model
        doubts = differences(stored, account, number, in_flight=under_way)
        if doubts:
            return TrustVerdict(tuple(doubts))
        before = account.version is not None and not account.manifest
        return TrustVerdict(note=BEFORE if before else "", counted=True)

    def _stored(self, version: VersionRecord) -> StoredVersion:
        """A version's files, tags and figures; raises `VersionCorrupt` where its F1 is another."""
        # read by number: a search goes by the tags of logged models, which may name another's
        stored = self._registry.stored(version)
        if stored.figures.get("f1") != version.f1:
            raise VersionCorrupt(f"its F1 is {stored.figures.get('f1')}, searched was {version.f1}")
        return stored

    def _by_itself(self, version: VersionRecord) -> TrustVerdict:
        """The verdict without a log, by the manifest alone."""
        # only a run that is under way elsewhere has a reason to have no log
        run_id = version.run_id
        if not self._is_under_way(version.model, run_id):
            return TrustVerdict((f"the log of run {run_id} is neither here nor in the registry",))
        doubts = differences(self._stored(version), None, version.version)
        note = (
            f"was held against its own manifest alone: its run {run_id} is under way, and its log "
            "is not in this folder"
        )
        return TrustVerdict(tuple(doubts), note)

    def _is_under_way(self, model: str, run_id: str) -> bool:
        """Whether the run had the model's lease and has not ended by the registry."""
        try:
            if self._registry.run_status(run_id) != "RUNNING":
                return False
        except RegistryUnreachable:
            raise
        except RegistryError:  # no such run
            return False
        return any(
            entry.kind is EntryKind.LEASED and entry.data.get("run") == run_id
            for entry in self._registry.entries(model)
        )

    def _record(self, run_id: str) -> RunRecord | None:
        if run_id not in self._records:
            self._records[run_id] = self._read(run_id)
        return self._records[run_id]

    def _read(self, run_id: str) -> RunRecord | None:
        path = run_folder(run_id, self._workspace) / LOG_NAME
        with tempfile.TemporaryDirectory() as into:
            if not path.exists():
                try:
                    path = self._registry.run_file(run_id, LOG_NAME, Path(into))
                except RegistryUnreachable:
                    raise
                except RegistryError:
                    return None
            return RunRecord.of(read_only(path, OF_VERSIONS))
