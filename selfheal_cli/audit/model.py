"""The whole of one model, from its logs to its aliases."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfheal_cli.audit.aliases import audit_journal, audit_moves
from selfheal_cli.audit.chain import Mark
from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import RunRecord, audit_head, audit_log
from selfheal_cli.audit.statement import Statement, audit_signed_versions
from selfheal_cli.audit.versions import audit_base, audit_presence, audit_version
from selfheal_cli.config import WORKSPACE
from selfheal_cli.errors import EventLogError, RegistryError, RegistryUnreachable
from selfheal_cli.history.archive import LOG_NAME, all_logs, is_running, model_of, run_folder
from selfheal_cli.registry.base import Registry

ALL = 10_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where everything of a model stands: chains, the sha256 of versions by number, aliases."""

    runs: Mapping[str, Mark]
    journal: Mark
    versions: Mapping[int, str]
    aliases: Mapping[str, int]


def audit_model(
    registry: Registry, model: str, workspace: Path = WORKSPACE, signed: Statement | None = None
) -> tuple[Audit, Standing]:
    """Check everything that is recorded of a model, against ``signed`` too if that is given.

    Runs whose logs are not in ``workspace`` are read from the registry's copies. Raises
    `VersionNotFound` where there is no such model.
    """
    audit = Audit()
    marks = signed.runs if signed else {}
    versions = registry.versions(model, limit=ALL)
    runs = {version.run_id for version in versions}
    runs |= _runs_here(audit, model, workspace) | marks.keys()
    records = {
        run_id: _audit_run(audit, registry, run_id, workspace, marks.get(run_id))
        for run_id in sorted(runs)
    }
    for version in sorted(versions, key=lambda one: one.version):
        audit_version(audit, registry, version, records.get(version.run_id))
    journal = audit_journal(audit, registry, model, signed.journal if signed else None)
    present = {version.version: version.sha256 for version in versions}
    known = {run_id: record for run_id, record in records.items() if record is not None}
    for record in known.values():
        audit_presence(audit, record, present, journal.pruned, model)
    audit_moves(audit, known.values(), journal.moves, model)
    if signed is not None:
        audit_signed_versions(audit, signed, present, journal.pruned)
    stand = {run_id: record.mark for run_id, record in known.items()}
    return audit, Standing(stand, journal.mark, present, registry.aliases(model))


def _runs_here(audit: Audit, model: str, workspace: Path) -> set[str]:
    """Runs of the model in this folder; a log that does not say whose it is is a finding."""
    found = set()
    for path in all_logs(workspace):
        try:
            if model_of(path) == model:
                found.add(path.parent.name)
        except EventLogError as exc:
            audit.found(f"run {path.parent.name}", str(exc))
    return found


def _audit_run(
    audit: Audit, registry: Registry, run_id: str, workspace: Path, signed: Mark | None
) -> RunRecord | None:
    """One run's log, here or in the registry, with its base and its kept end."""
    folder, where = run_folder(run_id, workspace), f"run {run_id}"
    running = folder.exists() and is_running(folder)
    with tempfile.TemporaryDirectory() as into:
        try:
            tags = registry.run_tags(run_id)
            path = folder / LOG_NAME
            if not path.exists():
                path = registry.run_file(run_id, LOG_NAME, Path(into))
        except RegistryUnreachable:
            raise
        except RegistryError as exc:
            audit.found(where, f"its event log is neither here nor in the registry ({exc})")
            return None
        record = audit_log(audit, path, where, running=running, signed=signed)
    audit_head(audit, record, tags, where, running=running)
    audit_base(audit, registry, record, where)
    return record
