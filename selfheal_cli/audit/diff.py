"""Compares two versions: figures, tags, weights, and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from selfheal_cli.model.checkpoint import assemble, probe_decisions
from selfheal_cli.model.network import Weights
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.verify import load_verified

ALWAYS_DIFFERENT = ("selfheal.snapshot", "selfheal.log_head", "selfheal.probe")  # tags


@dataclass(frozen=True, slots=True)
class Distance:
    """Euclidean distance of two tensors, and relative to the length of the first (None if 0)."""

    distance: float
    relative: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The second version beside the first; each pair holds the first's value, then the second's.

    ``weights`` is by tensor, with ``all`` for all of them; None where the two adapters are of
    different kinds. ``decided_differently`` counts rows of the ``probe_rows``, each version at its
    own threshold; None where they have different bases or one without probe rows.
    """

    metrics: Mapping[str, tuple[float | None, float | None]]
    tags: Mapping[str, tuple[str | None, str | None]]
    weights: Mapping[str, Distance] | None
    decided_differently: int | None
    probe_rows: int


def compare_versions(registry: Registry, first: VersionRecord, second: VersionRecord) -> Difference:
    """Verify and compare two versions; raises `VersionCorrupt` for one that fails."""
    before, after = load_verified(registry, first), load_verified(registry, second)
    names = sorted(first.metrics.keys() | second.metrics.keys())
    metrics = {name: (first.metrics.get(name), second.metrics.get(name)) for name in names}
    keys = sorted((first.tags.keys() | second.tags.keys()) - set(ALWAYS_DIFFERENT))
    tags = {key: (first.tags.get(key), second.tags.get(key)) for key in keys}
    tags = {key: pair for key, pair in tags.items() if pair[0] != pair[1]}
    differing, rows = _differing_decisions(registry, (first, before), (second, after))
    return Difference(metrics, tags, _distances(before, after), differing, rows)


def _distances(before: Weights, after: Weights) -> dict[str, Distance] | None:
    if {name: value.shape for name, value in before.items()} != {
        name: value.shape for name, value in after.items()
    }:
        return None
    distances, moved, total = {}, 0.0, 0.0
    for name in sorted(before):
        step = float(((after[name] - before[name]).double() ** 2).sum())
        length = float((before[name].double() ** 2).sum())
        distances[name] = _distance(step, length)
        moved, total = moved + step, total + length
    return distances | {"all": _distance(moved, total)}


def _distance(step: float, length: float) -> Distance:
    """From the sums of squares of the difference and of the first tensor."""
    return Distance(sqrt(step), sqrt(step / length) if length else None)


def _differing_decisions(
    registry: Registry, first: tuple[VersionRecord, Weights], second: tuple[VersionRecord, Weights]
) -> tuple[int | None, int]:
    if first[0].base != second[0].base:
        return None, 0
    base = registry.base(first[0].base)
    where = first[0].model
    networks = [(version, assemble(base, one, where=where)) for version, one in (first, second)]
    before, after = (
        bytes.fromhex(probe_decisions(base, network, version.threshold, where=where))
        for version, network in networks
    )
    if not before:
        return None, 0
    return sum(a != b for a, b in zip(before, after, strict=True)), len(before)
