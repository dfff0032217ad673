"""Audits the versions of a model against the logs of their runs, and their files."""

from __future__ import annotations

from collections.abc import Collection

from selfheal_cli.audit.finding import Audit
from selfheal_cli.errors import ModelError, RegistryUnreachable, SelfhealError, VersionNotFound
from selfheal_cli.events.run_record import RunRecord
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.carried import strangers
from selfheal_cli.registry.layout import ADAPTER_FILE, REQUIREMENTS_FILE, SEGMENTS_FILE
from selfheal_cli.rollback.agreement import differences
from selfheal_cli.rollback.verify import load_verified

BEFORE = "made before manifests: held against its run's log alone"


def audit_version(
    audit: Audit,
    registry: Registry,
    version: VersionRecord,
    record: RunRecord | None,
    *,
    arriving: bool,
) -> None:
    """Audit a version: its files, its base, the tags of both of its entries, its figures.

    Without a ``record`` there is no log of its run, which was reported already.
    """
    where = f"{version.model} v{version.version}"
    audit.checked["versions"] += 1
    try:
        stored = registry.stored(version)
    except RegistryUnreachable:
        raise
    except VersionNotFound:
        return  # it was removed during the audit
    except SelfhealError as exc:
        audit.report(where, str(exc).removeprefix(f"{where}: "))
        return
    if strangers(stored.files.get(REQUIREMENTS_FILE, b"").decode(errors="replace")):
        audit.strangers.append(version.version)
    snapshot = version.tags.get("selfheal.snapshot", "")
    account = record.account(snapshot) if record is not None else None
    if record is not None and account is None:
        audit.report(where, f"the log of run {record.run_id} knows no such snapshot '{snapshot}'")
        return
    number = version.version
    if account is not None and version.tags.get("selfheal.model") != version.model:
        number = account.version or number  # a copy, under the name of another model
    for difference in differences(stored, account, number, in_flight=arriving):
        audit.report(where, difference)
    if account is not None and account.version is not None and not account.manifest:
        audit.checked[BEFORE] += 1
    try:
        in_parts = SEGMENTS_FILE in stored.files
        load_verified(registry, version, None if in_parts else stored.files.get(ADAPTER_FILE))
        audit.checked["files"] += len(stored.files)
    except RegistryUnreachable:
        raise
    except ModelError as exc:  # a class that is not allowed here is no fault of the version
        audit.note(where, f"was held against its record and not loaded: {exc}")
    except SelfhealError as exc:
        audit.report(where, str(exc).removeprefix(f"{where}: "))


def audit_presence(
    audit: Audit, record: RunRecord, present: Collection[int], pruned: Collection[int], model: str
) -> None:
    """Report versions that a log says were registered and that are gone without a prune."""
    for account in record.snapshots.values():
        number = account.version
        if number is not None and number not in present and number not in pruned:
            audit.report(
                f"{model} v{number}",
                f"was registered by run {record.run_id} (snapshot {account.taken.id}) and is "
                "gone; no 'selfheal prune' removed it",
            )


def audit_base(audit: Audit, registry: Registry, record: RunRecord, where: str) -> None:
    """Compare the sha256 of a run's base with its log."""
    if not record.base:
        return
    audit.checked["bases"] += 1
    try:
        stored = registry.base(record.base).sha256
    except RegistryUnreachable:
        raise
    except SelfhealError as exc:
        audit.report(where, str(exc))
        return
    if stored != record.base_sha256:
        audit.report(
            where,
            f"base {record.base} has sha256 {stored[:12]}…, trained was {record.base_sha256[:12]}…",
        )
