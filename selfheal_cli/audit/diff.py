"""How two versions differ: figures, tags, weights, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from selfheal_cli.model.checkpoint import probe_decisions
from selfheal_cli.model.network import Weights
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.verify import load_verified

OWN = ("selfheal.snapshot", "selfheal.log_head", "selfheal.probe")  # differ in any two versions


@dataclass(frozen=True, slots=True)
class Distance:
    """Euclidean distance of one tensor's values, and relative to the first one's own length."""

    distance: float
    relative: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """The second version beside the first; each pair holds the first's value, then the second's.

    ``weights`` is by tensor, with ``all`` for all of them; None where the two adapters are of
    different kinds. ``decided_differently`` counts rows of the ``probe_rows``, each version at its
    own threshold; None where they stand on different bases or on one without probe rows.
    """

    metrics: Mapping[str, tuple[float | None, float | None]]
    tags: Mapping[str, tuple[str | None, str | None]]
    weights: Mapping[str, Distance] | None
    decided_differently: int | None
    probe_rows: int


def compare_versions(registry: Registry, first: VersionRecord, second: VersionRecord) -> Difference:
    """Compare two versions, once both were checked; raises `VersionCorrupt` for one that fails."""
    before, after = load_verified(registry, first), load_verified(registry, second)
    names = sorted(first.metrics.keys() | second.metrics.keys())
    metrics = {name: (first.metrics.get(name), second.metrics.get(name)) for name in names}
    keys = sorted((first.tags.keys() | second.tags.keys()) - set(OWN))
    tags = {key: (first.tags.get(key), second.tags.get(key)) for key in keys}
    tags = {key: pair for key, pair in tags.items() if pair[0] != pair[1]}
    differing, rows = _decided(registry, (first, before), (second, after))
    return Difference(metrics, tags, _distances(before, after), differing, rows)


def _distances(before: Weights, after: Weights) -> dict[str, Distance] | None:
    if {name: value.shape for name, value in before.items()} != {
        name: value.shape for name, value in after.items()
    }:
        return None
    distances, moved, length = {}, 0.0, 0.0
    for name in sorted(before):
        step = float(((after[name] - before[name]).double() ** 2).sum())
        own = float((before[name].double() ** 2).sum())
        distances[name] = _distance(step, own)
        moved, length = moved + step, length + own
    return distances | {"all": _distance(moved, length)}


def _distance(step: float, own: float) -> Distance:
    return Distance(sqrt(step), sqrt(step / own) if own else None)


def _decided(
    registry: Registry, first: tuple[VersionRecord, Weights], second: tuple[VersionRecord, Weights]
) -> tuple[int | None, int]:
    if first[0].base != second[0].base:
        return None, 0
    base = registry.base(first[0].base)
    one, other = (
        bytes.fromhex(probe_decisions(base, weights, version.threshold, where=version.model))
        for version, weights in (first, second)
    )
    if not one:
        return None, 0
    return sum(a != b for a, b in zip(one, other, strict=True)), len(one)
