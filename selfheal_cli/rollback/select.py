"""Which version is the best one to go back to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

from selfheal_cli.errors import NothingToRestore, RegistryError, RegistryUnreachable
from selfheal_cli.records import Phase, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.trust import Trust, told

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


@dataclass(slots=True)
class Candidates:
    """Versions of a model that a rollback may go to, taken at their word only where they are what
    their runs wrote down. ``passed_over`` says of each other one that came up what is wrong.
    """

    registry: Registry
    model: str
    base: str
    trust: Trust
    wanted: Wanted = Wanted()
    run_id: str | None = None
    passed_over: list[str] = field(default_factory=list)

    def best(self) -> VersionRecord:
        """The best version that fits; raises `NothingToRestore` saying what none fits.

        By the lower bound the walk ends where no F1 that follows can reach the best bound so far.
        """
        best = next(iter(self), None) if self.wanted.by == "f1" else self._surest()
        if best is None:
            raise self._none()
        return best

    def __iter__(self) -> Iterator[VersionRecord]:
        """Those that fit and are trusted, the highest F1 first."""
        return filter(self._is_trusted, self._fitting())

    def _surest(self) -> VersionRecord | None:
        best: VersionRecord | None = None
        bound = -1.0
        for version in self._fitting():
            if version.f1 is not None and version.f1 <= bound:
                break
            lower = f1_lower_bound(version)
            if lower is not None and lower > bound and self._is_trusted(version):
                best, bound = version, lower
        return best

    def _fitting(self) -> Iterator[VersionRecord]:
        for version in self.registry.ranked(self.model, base=self.base, run_id=self.run_id):
            fits = version.eval_rows >= self.wanted.min_rows
            if fits and self.wanted.regime in ("", version.regime):
                yield version

    def _is_trusted(self, version: VersionRecord) -> bool:
        doubts = self.trust.judge(version).doubts
        if doubts:
            self.passed_over.append(f"v{version.version} was passed over: {told(doubts)}")
        return not doubts

    def _none(self) -> NothingToRestore:
        if self.passed_over:
            count = len(self.passed_over)
            return NothingToRestore(
                f"model '{self.model}': {count} versions fit, and none is what its run wrote down "
                f"({self.passed_over[0]}); see 'selfheal audit', --unverified takes it all the same"
            )
        if self.wanted == Wanted(self.wanted.by):
            self._require_unscored()
            within = f" of run {self.run_id}" if self.run_id else ""
            return NothingToRestore(
                f"model '{self.model}' has no post-heal version{within} on the base that serves; "
                "a heal must come first: see 'selfheal snapshots --phase post-heal'"
            )
        return NothingToRestore(f"model '{self.model}' has no version with the {self.wanted}")

    def _require_unscored(self) -> None:
        """Raises `NothingToRestore` where there are healed versions, and no F1 to choose by."""
        healed = [
            version
            for version in self.registry.versions(self.model, phase=Phase.POST_HEAL)
            if version.base == self.base and self.run_id in (None, version.run_id)
        ]
        if not healed:
            return
        why = "their labels have not come yet"
        try:
            self.registry.run_status(healed[0].run_id)
        except RegistryUnreachable:
            raise
        except RegistryError:
            why = f"run {healed[0].run_id} was removed from the store, and its figures with it"
        raise NothingToRestore(
            f"model '{self.model}' has healed versions, as v{healed[0].version}, and none with an "
            f"F1 to choose by: {why}; name one with --to VERSION"
        )


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
