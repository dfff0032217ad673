"""What is asked of a registry, of whichever kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from selfheal_cli.errors import RegistryRestored
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import AliasMoved, MoveRefused, ProposalMade, VersionRegistered
from selfheal_cli.records import (
    BEFORE,
    LEASE_TAG,
    AnyVersion,
    Base,
    Evaluation,
    Phase,
    Snapshot,
    StoredRun,
    StoredVersion,
    VersionRecord,
)
from selfheal_cli.registry.journal import JournalStore
from selfheal_cli.scores import AnyScores, Scores


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Figures of a batch by name; ``at_ms`` makes a repeated write the same write."""

    batch: int
    figures: Mapping[str, float]
    at_ms: int


class Added(NamedTuple):
    """A version that was registered, and the hash of its manifest."""

    version: int
    manifest: str


DOUBLE_TAG = "selfheal.double_of"  # on what a lost answer made twice
MAX_PARAM = 6_000  # characters of a parameter that MLflow takes
BASELINE, CHAMPION, CANARY = "baseline", "champion", "canary"
NOTHING = 0  # the target of a move that takes an alias away
TRIES_TAG = "selfheal.canary_share"  # on a served run whose policy tries versions as canaries
HEAL = "heal "  # what the reason of a heal's move begins with
Outcome = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the versions of one run have in common."""

    model: str
    run_id: str
    base: str
    recipe: str
    labels: str
    schema: str
    drift_threshold: float = 1.0
    lease: int = 0  # the number of the lease that they are registered under

    @property
    def lease_tags(self) -> dict[str, str]:
        """Of a version beside `tags`: what a run registers may be finished under another lease."""
        return {LEASE_TAG: str(self.lease)} if self.lease else {}

    def tags(self, snapshot: Snapshot, parent: int | None) -> dict[str, str]:
        """The tags of a version, all of them text."""
        facts = {
            "phase": snapshot.phase.value,
            "batch": snapshot.batch,
            "heal_id": snapshot.heal_id,
            "parent": parent,
            "pre_heal": f"v{parent}" if snapshot.carries and parent is not None else None,
            "base": self.base,
            "sha256": snapshot.sha256,
            "run_id": self.run_id,
            "snapshot": snapshot.id,
            "model": self.model,
            "recipe": self.recipe,
            "labels": self.labels,
            "reason": snapshot.reason,
            "evaluation": snapshot.evaluation.value,
            "eval_rows": snapshot.scores.rows if snapshot.scores else 0,
            "threshold": snapshot.threshold,
            "rejected": snapshot.rejected or None,
            "log_head": snapshot.log_head or None,
            "probe": snapshot.probe or None,
            "counts": _counts(snapshot.scores),
            "regime": self._regime(snapshot),
            "schema": self.schema,
        }
        return {f"selfheal.{key}": str(value) for key, value in facts.items() if value is not None}

    def _regime(self, snapshot: Snapshot) -> str | None:
        drift = snapshot.metrics.get("drift_z")
        if drift is None:
            return None
        return "drifting" if drift > self.drift_threshold else "steady"


def scored_tags(scores: AnyScores) -> dict[str, str]:
    """The tags of a version that change when its labels have come."""
    counts = _counts(scores)
    return {
        "selfheal.evaluation": Evaluation.PREQUENTIAL.value,
        "selfheal.eval_rows": str(scores.rows),
        **({"selfheal.counts": counts} if counts else {}),
    }


def require_of_run(lineage: Lineage, number: int, run_id: str) -> None:
    """Raises `RegistryRestored` where a version that a run registered is of another run by now."""
    if run_id != lineage.run_id:
        raise RegistryRestored(
            f"'{lineage.model}' v{number} is of run {run_id or 'nobody'}, and run {lineage.run_id} "
            "registered it: the registry was restored from an earlier state; begin a new run"
        )


def _counts(scores: AnyScores | None) -> str | None:
    if not isinstance(scores, Scores):
        return None
    return f"{scores.tp},{scores.tn},{scores.fp},{scores.fn}"


class Registry(JournalStore, Protocol):
    """Runs, versions, aliases, journals and files. Raises `RegistryError` and its kinds.

    Every write may be repeated: the second one changes nothing.
    """

    def begin_run(
        self, experiment: str, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """Open a run; returns its id."""

    def log_metrics(self, run_id: str, steps: Sequence[StepMetrics]) -> None:
        """Figures of some batches."""

    def log_files(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep files with the run."""

    def end_run(self, run_id: str, outcome: Outcome, tags: Mapping[str, str]) -> None:
        """Close a run."""

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Tags of a run; raises `RegistryError` for one that is not there."""

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Every tag of a run."""

    def stored_run(self, run_id: str) -> StoredRun:
        """All that is kept of a run; raises `RegistryError` for one that is not there."""

    def run_status(self, run_id: str) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""

    def run_file(self, run_id: str, name: str, into: Path) -> Path:
        """Fetch a file that was kept with a run."""

    def model_files(self, uri: str, into: Path) -> Path:
        """The folder of any model of MLflow's, ``models:/NAME/VERSION``, fetched into ``into``."""

    def store_base(self, run_id: str, base: Base) -> str:
        """Store the frozen part unless the same bytes are stored already; returns its id."""

    def base(self, base_id: str) -> Base:
        """A stored base, its hash checked."""

    def add_version(
        self,
        lineage: Lineage,
        snapshot: Snapshot,
        adapter: bytes,
        parent: int | None,
        *,
        again: bool = False,
    ) -> Added:
        """Register a snapshot with its manifest.

        ``again`` where an earlier try may have come through, in part or whole: what it left is
        found by the snapshot's id and completed.
        """

    def score_version(
        self,
        lineage: Lineage,
        number: int,
        batch: int,
        metrics: Mapping[str, float],
        scores: AnyScores,
    ) -> None:
        """Give a version the figures that it was registered without."""

    def mark_stale(self, model: str, number: int, lease: int) -> None:
        """Mark a version that a run registered once its ``lease`` was somebody else's, so that it
        is never restored; one that was registered under another lease is left alone.
        """

    def stored(self, version: VersionRecord) -> StoredVersion:
        """All that is kept of a version; raises `VersionCorrupt` where its files are gone."""

    def adapter(self, version: VersionRecord) -> bytes:
        """The adapter's bytes as stored; raises `VersionCorrupt` where the file is gone."""

    def version(self, model: str, number: int) -> VersionRecord:
        """One version of selfheal's; raises `VersionNotFound`, also for another tool's."""

    def any_version(self, model: str, number: int) -> AnyVersion:
        """One version, whoever registered it; raises `VersionNotFound`."""

    def snapshot_of(self, model: str, number: int) -> str | None:
        """Which snapshot a version is; None for another tool's; raises `VersionNotFound`."""

    def born_ms(self, model: str) -> int:
        """When a model was made, in milliseconds since 1970; a name may be taken again."""

    def numbers(self, model: str, *, enough: int | None = None) -> list[int]:
        """Of every version there is, whoever made it; raises `VersionNotFound` without the model.

        No tag decides what is among them. Once ``enough`` are known it may look no further.
        """

    def versions(
        self, model: str, *, phase: Phase | None = None, sort: str = "version", limit: int = 100
    ) -> list[VersionRecord]:
        """Versions from the highest ``sort`` down; raises `VersionNotFound` without the model."""

    def ranked(
        self, model: str, *, base: str, run_id: str | None = None
    ) -> Iterator[VersionRecord]:
        """Post-heal versions on a base from the highest F1 down.

        Those without one are left out, and those that a run registered once its lease was lost.
        """

    def best(self, model: str, *, base: str, run_id: str | None = None) -> VersionRecord | None:
        """The post-heal version with the highest F1, among those on ``base``."""

    def alias(self, model: str, alias: str) -> int | None:
        """The version that an alias points to."""

    def set_alias(self, model: str, alias: str, target: int) -> None:
        """Point an alias to a version, or take it away where that is `NOTHING`; only `aliases`
        calls it, which writes the journal first.
        """

    def delete_version(self, version: VersionRecord) -> int:
        """Remove a version with its logged model and files; returns the bytes that came back."""

    def clear_packs(self, model: str, run: str) -> int:
        """Remove the adapters of segments that no version needs, and none that ``run``, which is
        under way, may be about to name; returns the bytes that came back.
        """

    def models(self) -> list[str]:
        """Names of the registered models."""

    def all_aliases(self) -> dict[str, dict[str, int]]:
        """The aliases of each registered model, those of a model without any too."""

    def aliases(self, model: str) -> dict[str, int]:
        """Every alias of a model with its version."""

    def delete_model(self, model: str) -> None:
        """Remove a model with its versions."""

    def delete_run(self, run_id: str) -> None:
        """Remove a run."""

    def require_writable(self) -> None:
        """Write something and take it away again; raises `RegistryError`."""


def snapshots(
    registry: Registry, model: str, *, phase: Phase | None, sort: str, limit: int
) -> list[VersionRecord]:
    """Versions as `Registry.versions` gives them, and what served before each heal.

    That one has the number of the version that it is, and what was measured of it there.
    """
    versions = registry.versions(model, phase=phase, sort=sort, limit=limit)
    healed = versions if phase is None else []
    if phase is Phase.PRE_HEAL:
        by = sort if sort == "version" else f"{BEFORE}{sort}"
        for one in (Phase.POST_HEAL, Phase.REJECTED):
            healed = healed + registry.versions(model, phase=one, sort=by, limit=limit)
    listed = [(float(one.version), one) for one in versions]
    listed += [(one.version - 0.5, one.pre_heal) for one in healed if one.pre_heal is not None]
    lowest = float("-inf")
    listed.sort(key=lambda pair: (pair[1].metrics.get(sort, lowest), pair[0]), reverse=True)
    return [one for _, one in listed[:limit]]


def result_of(kind: str, result: Mapping[str, Any]) -> Event | None:
    """Of a job of this kind that is done; None for those that nobody waits to hear of."""
    if kind == "version":
        return VersionRegistered.from_dict(result)
    if kind == "move":
        if "refused" in result:
            return MoveRefused(key=result["key"], alias=result["alias"], reason=result["refused"])
        return AliasMoved.from_dict(result)
    if kind == "proposal" and "refused" not in result:
        return ProposalMade.from_dict(result)
    return None


def identity(event: Event) -> tuple[str, str]:
    """What tells one result from another."""
    if isinstance(event, VersionRegistered):
        return event.kind, event.snapshot
    if isinstance(event, AliasMoved):
        return event.kind, event.move.key
    if isinstance(event, ProposalMade):
        return event.kind, event.snapshot
    return event.kind, event.key if isinstance(event, MoveRefused) else ""
