"""Do a version's files hold? What is seen of them without running the network, or loading torch."""

from __future__ import annotations

from selfheal_cli.model.stored import require_weights
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry


def check_files(registry: Registry, version: VersionRecord) -> None:
    """Hold adapter and base against their recorded hashes, and see that each weight is finite.

    Raises `VersionCorrupt` naming the version and what does not hold. Whether the two decide as
    was recorded is `load_verified`'s to say, before anything serves.
    """
    where = f"{version.model} v{version.version}"
    require_weights(registry.adapter(version), sha256=version.sha256, where=where)
    registry.base(version.base)  # which holds it against its hash
