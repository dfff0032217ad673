"""Verifies a version before it serves: its hash, its weights and its recorded decisions."""

from __future__ import annotations

import torch

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.model.checkpoint import assemble, probe_decisions, unpack
from selfheal_cli.model.network import Weights
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry

ROUNDING = 1 / 128  # share of the probe rows that another processor may round to another class


def load_verified(
    registry: Registry, version: VersionRecord, adapter: bytes | None = None
) -> Weights:
    """The adapter's weights, after all checks of the version.

    Checked are its hash, its fit to the base (and the base's hash), finite weights, and on the
    base's probe rows finite probabilities and the decisions that were recorded. ``adapter`` is the
    adapter's file where it was read before. Raises `VersionCorrupt` naming the version and the
    check that failed.
    """
    where = f"{version.model} v{version.version}"
    adapter = registry.adapter(version) if adapter is None else adapter
    weights = unpack(adapter, sha256=version.sha256, where=where)
    base = registry.base(version.base)
    network = assemble(base, weights, where=where)
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise VersionCorrupt(f"{where}: weight '{broken[0]}' is not finite; use another version")
    _check_decisions(version, probe_decisions(base, network, version.threshold, where=where), where)
    return weights


def _check_decisions(version: VersionRecord, decisions: str, where: str) -> None:
    recorded = version.tags.get("selfheal.probe")
    if recorded is None or recorded == decisions:  # versions from before probes have no record
        return
    now, then = bytes.fromhex(decisions), bytes.fromhex(recorded)
    differing = sum(a != b for a, b in zip(now, then, strict=False))
    if len(now) != len(then) or differing > ROUNDING * len(then):
        raise VersionCorrupt(
            f"{where}: decides {differing} of {len(then)} probe rows otherwise than recorded; its "
            "base or its threshold was changed: use another version"
        )
