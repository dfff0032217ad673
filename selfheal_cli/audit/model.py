"""The whole of one model, from its logs to its aliases."""

from __future__ import annotations

import tempfile
from pathlib import Path

from selfheal_cli.audit.aliases import audit_journal, audit_moves
from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import RunRecord, audit_head, audit_log
from selfheal_cli.audit.versions import audit_base, audit_presence, audit_version
from selfheal_cli.config import WORKSPACE
from selfheal_cli.errors import EventLogError, RegistryError, RegistryUnreachable
from selfheal_cli.history.archive import LOG_NAME, all_logs, is_running, model_of, run_folder
from selfheal_cli.registry.base import Registry

ALL = 10_000_000


def audit_model(registry: Registry, model: str, workspace: Path = WORKSPACE) -> Audit:
    """Check everything that is recorded of a model; raises `VersionNotFound` without it.

    Runs whose logs are not in ``workspace`` are read from the registry's copies.
    """
    audit = Audit()
    versions = registry.versions(model, limit=ALL)
    runs = {version.run_id for version in versions}
    runs |= _runs_here(audit, model, workspace)
    records = {run_id: _audit_run(audit, registry, run_id, workspace) for run_id in sorted(runs)}
    for version in sorted(versions, key=lambda one: one.version):
        audit_version(audit, registry, version, records.get(version.run_id))
    moves, pruned = audit_journal(audit, registry, model)
    present = {version.version for version in versions}
    known = [record for record in records.values() if record is not None]
    for record in known:
        audit_presence(audit, record, present, pruned, model)
    audit_moves(audit, known, moves, model)
    return audit


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


def _audit_run(audit: Audit, registry: Registry, run_id: str, workspace: Path) -> RunRecord | None:
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
        record = audit_log(audit, path, where, running=running)
    audit_head(audit, record, tags, where, running=running)
    audit_base(audit, registry, record, where)
    return record
