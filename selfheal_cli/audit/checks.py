"""Audits all records of one model, from its logs to its aliases."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

from selfheal_cli.audit.aliases import (
    JournalRecord,
    audit_aliases,
    audit_journal,
    audit_moves,
    audit_targets,
)
from selfheal_cli.audit.finding import Audit, ChainHead
from selfheal_cli.audit.run_log import AuditedRun, audit_log, audit_stored_run
from selfheal_cli.audit.signature import Statement, audit_signed_versions
from selfheal_cli.audit.versions import audit_base, audit_presence, audit_version
from selfheal_cli.errors import (
    EventLogError,
    RegistryError,
    RegistryUnreachable,
    VersionCorrupt,
    VersionNotFound,
)
from selfheal_cli.events.archive import LOG_NAME, all_logs, model_of, run_folder
from selfheal_cli.events.log import read
from selfheal_cli.events.run_record import RunRecord
from selfheal_cli.events.types import ModelWrapped, SegmentRestored
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import DOUBLE_TAG, Registry
from selfheal_cli.registry.journal import Lease, standing
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.workspace import WORKSPACE

STRANGERS = (
    "{}: requirements.txt asks for 'selfheal', which is another project on PyPI: make no "
    "environment of it; 'selfheal export VERSION --bundle DIR' writes the version anew"
)


@dataclass(frozen=True, slots=True)
class AuditCheckpoint:
    """The state of all records: chains, the sha256 of versions by number, aliases; to be signed."""

    runs: Mapping[str, ChainHead]
    journal: ChainHead
    versions: Mapping[int, str]
    aliases: Mapping[str, int]


Alive = Callable[[Lease], bool]  # whether the process that holds a lease is running


def audit_model(
    registry: Registry,
    model: str,
    workspace: Path = WORKSPACE,
    signed: Statement | None = None,
    alive: Alive = lambda lease: False,
    others: Sequence[Path] = (),
) -> tuple[Audit, AuditCheckpoint]:
    """Check everything that is recorded of a model, against ``signed`` too if that is given.

    ``others`` are the workspaces of other machines: their runs are of the same history. Runs whose
    logs are in none of them are read from the registry's copies. Raises
    `VersionNotFound` where there is no such model.
    """
    look = Look(registry, model, (workspace, *others), signed, alive)
    audit, checkpoint = look.take()
    if audit.findings and look.live_run:
        # a live run writes while it is audited: only what a second look finds too is a finding
        again, checkpoint = look.take()
        again.findings = [finding for finding in again.findings if finding in audit.findings]
        audit = again
    if not audit.checked.total():
        audit.report(model, "nothing was checked: it has no version, no log and no journal")
    return audit, checkpoint


class Look:
    """One pass over all records of a model."""

    def __init__(
        self,
        registry: Registry,
        model: str,
        workspaces: Sequence[Path],
        signed: Statement | None,
        alive: Alive,
    ) -> None:
        self._registry = registry
        self._model = model
        self._workspaces = workspaces
        self._signed = signed
        self._alive = alive
        self.live_run = ""
        self._waiting: dict[str, int] = {}  # writes by run

    def take(self) -> tuple[Audit, AuditCheckpoint]:
        """The audit, and the state of all records."""
        audit, registry, model, signed = Audit(), self._registry, self._model, self._signed
        self._waiting.clear()
        lease = standing(registry, model).lease
        self.live_run = lease.run if lease is not None and self._alive(lease) else ""
        journal = audit_journal(audit, registry, model, signed.journal if signed else None)
        numbers = registry.numbers(model)
        versions = self._versions(audit, numbers)
        marks = signed.runs if signed else {}
        runs = {version.tags.get("selfheal.run_id", "") for version in versions.values()} - {""}
        runs |= self._runs_here(audit, journal) | marks.keys() | journal.runs.keys()
        runs -= journal.deleted
        logs = {run: self._audit_run(audit, run, journal, marks.get(run)) for run in sorted(runs)}
        records = {run: log[0] for run, log in logs.items() if log is not None}
        self._audit_versions(audit, versions, records, journal)
        if audit.strangers:
            audit.note(model, STRANGERS.format(", ".join(f"v{n}" for n in audit.strangers)))
        of_model = [record for record in records.values() if record.model == model]
        for record in of_model:
            audit_presence(audit, record, numbers, journal.pruned, model)
        audit_moves(audit, of_model, journal.moves, model)
        audit_targets(audit, journal, numbers, model)
        present = {number: version.sha256 for number, version in versions.items()}
        if signed is not None:
            audit_signed_versions(audit, signed, present, journal.pruned)
        audit_aliases(audit, registry, journal, model)
        heads = {run: log[1] for run, log in logs.items() if log is not None}
        return audit, AuditCheckpoint(heads, journal.mark, present, registry.aliases(model))

    def _versions(self, audit: Audit, numbers: list[int]) -> dict[int, VersionRecord]:
        """The versions that selfheal made; others are findings, since no log records them."""
        versions = {}
        for number in numbers:
            try:
                versions[number] = self._registry.version(self._model, number)
            except RegistryUnreachable:
                raise
            except (VersionNotFound, VersionCorrupt) as exc:
                where = f"{self._model} v{number}"
                audit.report(where, f"no run of selfheal wrote it down ({exc})")
        return versions

    def _audit_versions(
        self,
        audit: Audit,
        versions: Mapping[int, VersionRecord],
        records: Mapping[str, RunRecord],
        journal: JournalRecord,
    ) -> None:
        for number, version in versions.items():
            run = version.tags.get("selfheal.run_id", "")
            record = records.get(run)
            if _is_double(version, record):
                audit.note(
                    f"{self._model} v{number}",
                    f"was made twice, beside v{version.tags[DOUBLE_TAG]}, since an answer of the "
                    "store was lost: nothing counts it",
                )
                continue
            if number in journal.pruned:
                audit.note(
                    f"{self._model} v{number}",
                    f"is left of a prune that was interrupted (entry {journal.pruned[number]}); "
                    "'selfheal prune' decides anew",
                )
                continue
            arriving = run == self.live_run or self._pending(run) > 0
            audit_version(audit, self._registry, version, record, arriving=arriving)
            copied = version.tags.get("selfheal.model") != self._model
            # what a person puts together or wraps is no heal: it may be registered beside who heals
            own = record is not None and isinstance(record.stored, SegmentRestored | ModelWrapped)
            if journal.runs and run not in journal.runs and not copied and not own:
                audit.report(
                    f"{self._model} v{number}", f"its run {run} never had the model's lease"
                )

    def _runs_here(self, audit: Audit, journal: JournalRecord) -> set[str]:
        """Runs of the model in this folder; a log that does not name its model is a finding.

        Runs of an earlier model of the same name, which was deleted, are left out.
        """
        runs, born = set[str](), self._registry.born_ms(self._model)
        for path in chain.from_iterable(map(all_logs, self._workspaces)):
            run = path.parent.name
            try:
                if model_of(path) != self._model:
                    continue
                if run not in journal.runs and _ended_before(path, born):
                    audit.note(f"run {run}", "is of an earlier model of this name, now deleted")
                else:
                    runs.add(run)
            except EventLogError as exc:
                audit.report(f"run {run}", str(exc))
        return runs

    def _folder(self, run: str) -> Path:
        """Where a run's log is, on whichever machine; here where it is on none."""
        folders = [run_folder(run, one) for one in self._workspaces]
        return next((one for one in folders if (one / LOG_NAME).exists()), folders[0])

    def _pending(self, run: str) -> int:
        """Number of a run's writes that wait in its outbox here for the registry."""
        if run not in self._waiting:
            outbox = self._folder(run) / OUTBOX_NAME
            self._waiting[run] = pending_in(outbox) if outbox.exists() else 0
        return self._waiting[run]

    def _audit_run(
        self, audit: Audit, run: str, journal: JournalRecord, signed: ChainHead | None
    ) -> tuple[RunRecord, ChainHead] | None:
        """Audit a run: its log, here or in the registry, its base, and its entry there."""
        where, alive = f"run {run}", run == self.live_run
        log = self._folder(run) / LOG_NAME
        try:
            stored = self._registry.stored_run(run)
        except RegistryUnreachable:
            raise
        except RegistryError as exc:
            named = f" (entry {journal.runs[run]} of the journal names it)"
            named = named if run in journal.runs else ""
            audit.report(where, f"is gone from the registry{named}: {exc}")
            stored = None
        record = AuditedRun(heads=dict(journal.heads.get(run, {})))
        with tempfile.TemporaryDirectory() as into:
            if not log.exists():
                try:
                    log = self._registry.run_file(run, LOG_NAME, Path(into))
                except RegistryUnreachable:
                    raise
                except RegistryError as exc:
                    if stored is not None and stored.status == "RUNNING":
                        audit.note(
                            where,
                            "its log is not here, and the registry is given it when the run ends: "
                            "stand in the folder in which it was begun, or name that with --folder",
                        )
                    elif stored is not None:
                        audit.report(
                            where, f"its event log is neither here nor in the registry ({exc})"
                        )
                    return None
            mark = audit_log(audit, record, log, where, alive=alive, signed=signed)
        for head, entry in record.heads.items():
            audit.report(
                where,
                f"its log had come to {head[:12]}… by entry {entry} of the journal, and holds no "
                "such event: it was cut, or the whole log was replaced",
            )
        waiting = self._pending(run)
        if waiting and not alive:
            audit.note(where, f"{waiting} writes wait here; 'selfheal flush' brings them")
        if stored is not None and record.started:
            arriving = alive or waiting > 0 or not record.finished
            audit_stored_run(audit, record, stored, where, arriving=arriving)
        audit_base(audit, self._registry, record, where)
        return record, mark


def _is_double(version: VersionRecord, record: RunRecord | None) -> bool:
    """Whether a version is marked as made twice, and its run registered the other one."""
    account = record.account(version.tags.get("selfheal.snapshot", "")) if record else None
    return account is not None and version.tags.get(DOUBLE_TAG) == str(account.version) != str(
        version.version
    )


def _ended_before(log: Path, born_ms: int) -> bool:
    """Whether all of a log was written before a time, in milliseconds since 1970."""
    try:
        return all(
            datetime.fromisoformat(event.at).timestamp() * 1000 < born_ms for event in read(log)
        )
    except EventLogError:
        return False  # the log's own audit reports what is wrong with it
