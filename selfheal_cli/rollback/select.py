"""Which version is the best one to go back to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from selfheal_cli.errors import NothingToRestore, RegistryError, RegistryUnreachable
from selfheal_cli.records import Phase, VersionRecord
from selfheal_cli.registry.base import Registry

By = Literal["f1", "f1_lcb"]
Z = 1.96  # two-sided 95 %
FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a version must be: by which figure the best, on how many rows, from which regime."""

    by: By = "f1"
    min_rows: int = 0
    regime: str = ""

    def __str__(self) -> str:
        text = "highest F1" if self.by == "f1" else "highest lower bound of F1"
        text += " of the post-heal versions on this base"
        text += f" with {self.min_rows} rows or more" if self.min_rows else ""
        return text + (f" from a {self.regime} stream" if self.regime else "")


def find_best(
    registry: Registry, model: str, *, base: str, run_id: str | None = None
) -> VersionRecord:
    """The post-heal version with the highest F1 on this base; raises `NothingToRestore`."""
    found = registry.best(model, base=base, run_id=run_id)
    if found is None:
        within = f" of run {run_id}" if run_id else ""
        _require_unscored(registry, model, base, run_id)
        raise NothingToRestore(
            f"model '{model}' has no post-heal version{within} on the base that serves; "
            "a heal must come first: see 'selfheal snapshots --phase post-heal'"
        )
    return found


def _require_unscored(registry: Registry, model: str, base: str, run_id: str | None) -> None:
    """Raises `NothingToRestore` where there are healed versions, and no F1 to choose by."""
    healed = [
        version
        for version in registry.versions(model, phase=Phase.POST_HEAL)
        if version.base == base and run_id in (None, version.run_id)
    ]
    if not healed:
        return
    why = "their labels have not come yet"
    try:
        registry.run_status(healed[0].run_id)
    except RegistryUnreachable:
        raise
    except RegistryError:
        why = f"run {healed[0].run_id} was removed from the store, and its figures with it"
    raise NothingToRestore(
        f"model '{model}' has healed versions, as v{healed[0].version}, and none with an F1 to "
        f"choose by: {why}; name one with --to VERSION"
    )


def candidates(
    registry: Registry, model: str, *, base: str, wanted: Wanted
) -> Iterator[VersionRecord]:
    """Versions that fit, the highest F1 first."""
    for version in registry.ranked(model, base=base):
        fits = version.eval_rows >= wanted.min_rows
        if fits and wanted.regime in ("", version.regime):
            yield version


def choose(registry: Registry, model: str, *, base: str, wanted: Wanted) -> VersionRecord:
    """The best version that fits; raises `NothingToRestore` saying what none fits.

    By the lower bound the walk ends where no F1 that follows can reach the best bound so far.
    """
    best: VersionRecord | None = None
    bound = -1.0
    for version in candidates(registry, model, base=base, wanted=wanted):
        if wanted.by == "f1":
            return version
        if version.f1 is not None and version.f1 <= bound:
            break
        lower = f1_lower_bound(version)
        if lower is not None and lower > bound:
            best, bound = version, lower
    if best is None and wanted == Wanted(wanted.by):
        return find_best(registry, model, base=base)  # which says what must come first
    if best is None:
        raise NothingToRestore(f"model '{model}' has no version with the {wanted}")
    return best


def f1_lower_bound(version: VersionRecord) -> float | None:
    """Lower end of the 95 % interval of a version's F1; None where its counts are not known.

    F1 = 2p / (1 + p) rises with p = tp / (tp + fp + fn), the share of right ones among the rows
    that are positive or were called so. p's interval is Wilson's (Journal of the American
    Statistical Association 22, 1927, 209-212).

    >>> from types import SimpleNamespace as One
    >>> round(f1_lower_bound(One(counts=(9, 9, 1, 1))), 3), f1_lower_bound(One(counts=(0, 9, 0, 0)))
    (0.687, 0.0)
    """
    counts = version.counts
    if counts is None:
        return None
    tp, _, fp, fn = counts
    n = tp + fp + fn
    if n == 0:
        return 0.0
    p = tp / n
    middle = p + Z**2 / (2 * n)
    spread = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    lower = max(0.0, (middle - spread) / (1 + Z**2 / n))
    return 2 * lower / (1 + lower)
