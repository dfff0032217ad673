"""A registry that forgets: for tests and trials; the same contract as the real one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from selfheal_cli.errors import RegistryError, VersionCorrupt, VersionNotFound
from selfheal_cli.records import (
    STALE_TAG,
    AnyVersion,
    Base,
    ForeignVersion,
    Phase,
    Snapshot,
    StoredRun,
    StoredVersion,
    VersionRecord,
    digest,
)
from selfheal_cli.registry.base import (
    NOTHING,
    Added,
    Lineage,
    Outcome,
    StepMetrics,
    require_of_run,
    scored_tags,
)
from selfheal_cli.registry.journal import Entry, Mark
from selfheal_cli.registry.manifest import MANIFEST_FILE, Manifest
from selfheal_cli.registry.staleness import Sound
from selfheal_cli.scores import AnyScores

ADAPTER = "adapter"  # the name of the one file of a version


class MemoryRegistry:
    """See `Registry`."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, str]] = {}
        self.metrics: dict[str, list[StepMetrics]] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self._bases: dict[str, Base] = {}
        self._versions: dict[str, dict[int, VersionRecord]] = {}
        self._adapters: dict[tuple[str, int], bytes] = {}
        self._manifests: dict[tuple[str, int], bytes] = {}
        self._aliases: dict[tuple[str, str], int] = {}
        self._journals: dict[str, list[Entry]] = {}
        self._marks: dict[str, dict[int, Mark]] = {}
        self._numbers: dict[str, int] = {}
        self._foreign: dict[tuple[str, int], ForeignVersion] = {}

    def begin_run(
        self, experiment: str, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """See `Registry`."""
        run_id = f"run-{len(self.runs) + 1}"
        self.runs[run_id] = {**parameters, **tags, "experiment": experiment, "status": "RUNNING"}
        self.metrics[run_id] = []
        return run_id

    def log_metrics(self, run_id: str, steps: Sequence[StepMetrics]) -> None:
        """See `Registry`."""
        known = self.metrics[run_id]
        known.extend(step for step in steps if step not in known)

    def log_files(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """See `Registry`."""
        for path in paths:
            name = f"{folder}/{path.name}" if folder else path.name
            self.files[run_id, name] = path.read_bytes()

    def end_run(self, run_id: str, outcome: Outcome, tags: Mapping[str, str]) -> None:
        """See `Registry`."""
        self.runs[run_id].update(tags, status=outcome)

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """See `Registry`."""
        self._run(run_id).update(tags)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """See `Registry`."""
        return dict(self._run(run_id))

    def stored_run(self, run_id: str) -> StoredRun:
        """See `Registry`."""
        known = dict(self._run(run_id))
        figures: dict[str, list[tuple[int, float]]] = {}
        for step in self.metrics[run_id]:
            for name, value in step.figures.items():
                figures.setdefault(name, []).append((step.batch, value))
        return StoredRun(known, known, figures, known["status"])

    def run_status(self, run_id: str) -> str:
        """See `Registry`."""
        return self._run(run_id)["status"]

    def run_file(self, run_id: str, name: str, into: Path) -> Path:
        """See `Registry`."""
        if (run_id, name) not in self.files:
            raise RegistryError(f"run {run_id}: no file '{name}'")
        path = into / Path(name).name
        path.write_bytes(self.files[run_id, name])
        return path

    def model_files(self, uri: str, into: Path) -> Path:
        """See `Registry`; there are no models of others here."""
        raise RegistryError(f"{uri}: no such model")

    def store_base(self, run_id: str, base: Base) -> str:
        """See `Registry`."""
        base_id = f"m-{base.sha256[:12]}"
        self._bases[base_id] = base
        return base_id

    def base(self, base_id: str) -> Base:
        """See `Registry`."""
        if base_id not in self._bases:
            raise VersionCorrupt(f"base {base_id} is gone from the registry")
        return self._bases[base_id]

    def add_version(
        self,
        lineage: Lineage,
        snapshot: Snapshot,
        adapter: bytes,
        parent: int | None,
        *,
        again: bool = False,
    ) -> Added:
        """See `Registry`."""
        if again:
            for known in self._versions.get(lineage.model, {}).values():
                if (known.run_id, known.tags["selfheal.snapshot"]) == (lineage.run_id, snapshot.id):
                    adopted = replace(known, tags={**known.tags, **lineage.lease_tags})
                    self._versions[lineage.model][known.version] = adopted
                    manifest = self._manifests[lineage.model, known.version]
                    return Added(known.version, digest(manifest))
        tags = lineage.tags(snapshot, parent)
        files = {ADAPTER: digest(adapter)}
        manifest = Manifest(lineage.model, snapshot.id, files, tags, snapshot.metrics).as_bytes()
        number = self._numbers[lineage.model] = self._numbers.get(lineage.model, 0) + 1
        self._versions.setdefault(lineage.model, {})[number] = VersionRecord(
            model=lineage.model,
            version=number,
            phase=snapshot.phase,
            batch=snapshot.batch,
            metrics=dict(snapshot.metrics),
            tags=tags | lineage.lease_tags,
            created_ms=time.time_ns() // 1_000_000,
        )
        self._adapters[lineage.model, number] = adapter
        self._manifests[lineage.model, number] = manifest
        return Added(number, digest(manifest))

    def score_version(
        self,
        lineage: Lineage,
        number: int,
        batch: int,
        metrics: Mapping[str, float],
        scores: AnyScores,
    ) -> None:
        """See `Registry`."""
        known = self._versions[lineage.model][number]
        require_of_run(lineage, number, known.run_id)
        self._versions[lineage.model][number] = replace(
            known,
            metrics={**known.metrics, **metrics},
            tags={**known.tags, **scored_tags(scores)},
        )

    def mark_stale(self, model: str, number: int, lease: int) -> None:
        """See `Registry`."""
        known = self._versions[model][number]
        if known.lease == lease:
            tags = {**known.tags, STALE_TAG: str(lease)}
            self._versions[model][number] = replace(known, tags=tags)

    def stored(self, version: VersionRecord) -> StoredVersion:
        """See `Registry`."""
        known = self.version(version.model, version.version)
        files = {ADAPTER: self.adapter(version)}
        files[MANIFEST_FILE] = self._manifests[version.model, version.version]
        return StoredVersion(known.tags, known.tags, known.metrics, files)

    def adapter(self, version: VersionRecord) -> bytes:
        """See `Registry`."""
        adapter = self._adapters.get((version.model, version.version))
        if adapter is None:
            raise VersionCorrupt(f"{version.model} v{version.version}: the adapter file is gone")
        return adapter

    def version(self, model: str, number: int) -> VersionRecord:
        """See `Registry`."""
        version = self.any_version(model, number)
        if isinstance(version, ForeignVersion):
            raise VersionNotFound(f"{model} v{number} was not registered by selfheal")
        return version

    def any_version(self, model: str, number: int) -> AnyVersion:
        """See `Registry`."""
        version = self._versions.get(model, {}).get(number)
        if version is not None:
            return self._aliased(version)
        foreign = self._foreign.get((model, number))
        if foreign is None:
            raise VersionNotFound(f"model '{model}' has no version {number}")
        return foreign

    def snapshot_of(self, model: str, number: int) -> str | None:
        """See `Registry`."""
        version = self.any_version(model, number)
        return version.tags["selfheal.snapshot"] if isinstance(version, VersionRecord) else None

    def born_ms(self, model: str) -> int:
        """See `Registry`; nothing is older than this registry."""
        return 0

    def numbers(self, model: str, *, enough: int | None = None) -> list[int]:
        """See `Registry`."""
        if model not in self._versions:
            raise VersionNotFound(f"no registered model '{model}'")
        foreign = [number for name, number in self._foreign if name == model]
        return sorted([*self._versions[model], *foreign])

    def versions(
        self, model: str, *, phase: Phase | None = None, sort: str = "version", limit: int = 100
    ) -> list[VersionRecord]:
        """See `Registry`."""
        if model not in self._versions:
            raise VersionNotFound(f"no registered model '{model}'")
        versions = [v for v in self._versions[model].values() if phase in (None, v.phase)]
        versions.sort(key=lambda v: -v.version)
        if sort != "version":
            versions.sort(key=lambda v: -v.metrics.get(sort, float("-inf")))
        return [self._aliased(v) for v in versions[:limit]]

    def ranked(
        self, model: str, *, base: str, run_id: str | None = None
    ) -> Iterator[VersionRecord]:
        """See `Registry`."""
        candidates = [
            self._aliased(v)
            for v in self._versions.get(model, {}).values()
            if v.phase is Phase.POST_HEAL
            and v.base == base
            and v.f1 is not None
            and run_id in (None, v.run_id)
        ]
        candidates.sort(key=lambda v: (-v.metrics["f1"], -v.version))
        return Sound().among(self, model, candidates)

    def best(self, model: str, *, base: str, run_id: str | None = None) -> VersionRecord | None:
        """See `Registry`."""
        return next(self.ranked(model, base=base, run_id=run_id), None)

    def alias(self, model: str, alias: str) -> int | None:
        """See `Registry`."""
        return self._aliases.get((model, alias))

    def set_alias(self, model: str, alias: str, target: int) -> None:
        """See `Registry`."""
        if target == NOTHING:
            self._aliases.pop((model, alias), None)
        else:
            self._aliases[model, alias] = target

    def last_entry(self, model: str) -> Entry | None:
        """See `JournalStore`."""
        entries = self._journals.get(model)
        if not entries:
            return None
        marks = self._marks.get(model, {})
        return replace(entries[-1], standing=entries[-1].standing.marked(marks))

    def put_entry(self, model: str, entry: Entry) -> bool:
        """See `JournalStore`."""
        journal = self._journals.setdefault(model, [])
        if entry.sequence == len(journal) + 1:
            journal.append(entry)
        return journal[entry.sequence - 1].nonce == entry.nonce

    def entries(self, model: str) -> Iterator[Entry]:
        """See `JournalStore`."""
        return iter(tuple(self._journals.get(model, ())))

    def mark_move(self, model: str, sequence: int, mark: Mark) -> None:
        """See `JournalStore`."""
        self._marks.setdefault(model, {})[sequence] = mark

    def show_proposals(self, model: str, told: Mapping[int, str], waiting: Set[int]) -> None:
        """See `JournalStore`. Nobody browses it."""

    def delete_version(self, version: VersionRecord) -> int:
        """See `Registry`."""
        del self._versions[version.model][version.version]
        return len(self._adapters.pop((version.model, version.version), b""))

    def clear_packs(self, model: str, run: str) -> int:
        """See `Registry`. A version holds its own here."""
        return 0

    def delete_model(self, model: str) -> None:
        """See `Registry`."""
        self._versions.pop(model, None)
        self._journals.pop(model, None)
        for key in [key for key in self._aliases if key[0] == model]:
            del self._aliases[key]

    def models(self) -> list[str]:
        """See `Registry`."""
        return sorted(self._versions)

    def all_aliases(self) -> dict[str, dict[str, int]]:
        """See `Registry`."""
        return {model: self.aliases(model) for model in self.models()}

    def aliases(self, model: str) -> dict[str, int]:
        """See `Registry`."""
        return {alias: number for (name, alias), number in self._aliases.items() if name == model}

    def delete_run(self, run_id: str) -> None:
        """See `Registry`."""
        del self.runs[run_id]

    def require_writable(self) -> None:
        """It always is."""

    def add_foreign(self, model: str) -> int:
        """Register a version as another tool does; returns its number."""
        self._versions.setdefault(model, {})
        number = self._numbers[model] = self._numbers.get(model, 0) + 1
        self._foreign[model, number] = ForeignVersion(model, number, "runs:/another/model", 0)
        return number

    def _run(self, run_id: str) -> dict[str, str]:
        if run_id not in self.runs:
            raise RegistryError(f"no run {run_id}")
        return self.runs[run_id]

    def _aliased(self, record: VersionRecord) -> VersionRecord:
        names = sorted(
            alias
            for (model, alias), number in self._aliases.items()
            if (model, number) == (record.model, record.version)
        )
        return replace(record, aliases=tuple(names))
