"""The versions of a model against the logs of the runs that made them, and their files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isclose
from typing import Any

from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import RunRecord, Taken
from selfheal_cli.errors import RegistryUnreachable, SelfhealError
from selfheal_cli.records import Evaluation, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.scores import Scores, scores_from

AS_LOGGED = ("phase", "batch", "sha256", "reason", "threshold", "heal_id")


def audit_version(
    audit: Audit, registry: Registry, version: VersionRecord, record: RunRecord | None
) -> None:
    """One version: its file, its base, its tags and figures."""
    where = f"{version.model} v{version.version}"
    audit.checked["versions"] += 1
    try:
        load_verified(registry, version)
        audit.checked["files"] += 1
    except RegistryUnreachable:
        raise
    except SelfhealError as exc:
        audit.found(where, str(exc).removeprefix(f"{where}: "))
    if record is None:
        return
    snapshot = version.tags.get("selfheal.snapshot", "")
    taken = record.snapshots.get(snapshot)
    if taken is None or record.versions.get(snapshot, version.version) != version.version:
        audit.found(where, f"the log of run {version.run_id} knows no such snapshot '{snapshot}'")
        return
    _audit_tags(audit, version, record, taken, where)
    _audit_figures(audit, version, taken, where)


def audit_presence(
    audit: Audit, record: RunRecord, present: Collection[int], pruned: Collection[int], model: str
) -> None:
    """Versions that a log says were registered, and that are there no more."""
    for snapshot, number in record.versions.items():
        if snapshot in record.snapshots and number not in present and number not in pruned:
            audit.found(
                f"{model} v{number}",
                f"was registered by run {record.run_id} (snapshot {snapshot}) and is gone; no "
                "'selfheal prune' removed it",
            )


def audit_base(audit: Audit, registry: Registry, record: RunRecord, where: str) -> None:
    """The frozen part that a run's versions stand on."""
    if not record.base:
        return
    audit.checked["bases"] += 1
    try:
        found = registry.base(record.base).sha256
    except RegistryUnreachable:
        raise
    except SelfhealError as exc:
        audit.found(where, str(exc))
        return
    if found != record.base_sha256:
        audit.found(
            where,
            f"base {record.base} has sha256 {found[:12]}…, trained was {record.base_sha256[:12]}…",
        )


def _audit_tags(
    audit: Audit, version: VersionRecord, record: RunRecord, taken: Taken, where: str
) -> None:
    for name, expected in _expected_tags(taken, record).items():
        found = version.tags.get(f"selfheal.{name}")
        if found != expected:
            audit.found(where, f"tag selfheal.{name} is {found!r}, the log says {expected!r}")


def _expected_tags(taken: Taken, record: RunRecord) -> dict[str, str | None]:
    data = taken.data
    expected = {name: data[name] for name in AS_LOGGED}
    scores = taken.scored or data["scores"]
    expected["evaluation"] = Evaluation.PREQUENTIAL.value if taken.scored else data["evaluation"]
    found = scores_from(scores) if scores else None
    expected["eval_rows"] = found.rows if found else 0
    if isinstance(found, Scores):
        expected["counts"] = f"{found.tp},{found.tn},{found.fp},{found.fn}"
    expected["rejected"] = data["rejected"] or None
    expected["log_head"] = taken.digest
    expected["base"], expected["run_id"] = record.base, record.run_id
    if data["parent"] in record.versions:
        expected["parent"] = record.versions[data["parent"]]
    return {name: None if value is None else str(value) for name, value in expected.items()}


def _audit_figures(audit: Audit, version: VersionRecord, taken: Taken, where: str) -> None:
    scores: Mapping[str, Any] | None = taken.scored or taken.data["scores"]
    if scores is None:
        return
    for name, expected in scores_from(scores).figures().items():
        found = version.metrics.get(name)
        if found is None or not isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12):
            audit.found(where, f"metric {name} is {found}, the log says {expected}")
