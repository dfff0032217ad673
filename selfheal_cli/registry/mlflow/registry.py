"""The registry in MLflow's tracking store; it and `mlflow_runs` alone talk to it.

A snapshot is a logged model with metrics, and a version of the registered model that points to
it. It takes five small calls instead of `mlflow.pytorch.log_model`, which spends seconds on
inferring requirements.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from selfheal_cli.errors import RegistryError, VersionCorrupt, VersionNotFound
from selfheal_cli.model.composite import SegmentManifest
from selfheal_cli.records import (
    LEASE_TAG,
    SHOWN_TAGS,
    STALE_TAG,
    Base,
    Snapshot,
    StoredVersion,
    VersionRecord,
    digest,
)
from selfheal_cli.registry.base import (
    CHAMPION,
    DOUBLE_TAG,
    NOTHING,
    Added,
    Lineage,
    require_of_run,
    scored_tags,
)
from selfheal_cli.registry.carried import carried
from selfheal_cli.registry.layout import SEGMENTS_FILE
from selfheal_cli.registry.manifest import MANIFEST_FILE, Manifest, files_in, hashes_of
from selfheal_cli.registry.mlflow import artifacts
from selfheal_cli.registry.mlflow import format as mlmodel
from selfheal_cli.registry.mlflow.packs import SegmentPacks, delete_pack, may_go, packs_of
from selfheal_cli.registry.mlflow.runs import as_metrics, every, unless_gone, unless_there
from selfheal_cli.registry.mlflow.versions import PHASE_TAG, VERSIONS_TAG, MlflowVersions, is_copy
from selfheal_cli.scores import AnyScores

WHAT_IT_IS = "Versions of a network before and after its heals, by selfheal; 'champion' serves."


class MlflowRegistry(MlflowVersions):
    """See `Registry`. ``uri`` None takes MLflow's own choice.

    Where there is no store yet, ``create`` makes one; else `NoStore` is raised and nothing made.
    """

    def __init__(self, uri: str | None = None, *, create: bool = False) -> None:
        super().__init__(uri, create=create)
        self._bases: dict[str, Base] = {}
        self._packs = SegmentPacks()
        self._models: set[str] = set()  # known to exist
        self._next: dict[str, int] = {}  # the number that a model's next version should get

    def store_base(self, run_id: str, base: Base) -> str:
        """See `Registry`."""
        carried(base.document)  # now, since later it would be made beside scoring
        with self._doing("store the base"):
            experiment = self._client.get_run(run_id).info.experiment_id
            same = f"tags.`selfheal.base_sha256` = '{base.sha256}'"
            for model in self._client.search_logged_models([experiment], filter_string=same):
                if model.status == "READY":
                    self._bases[model.model_id] = base
                    return str(model.model_id)
            tags = {"selfheal.base_sha256": base.sha256, "selfheal.phase": "base"}
            model = self._client.create_logged_model(
                experiment, name="base", source_run_id=run_id, tags=tags
            )
            if self.may_repeat:
                mine = f"{same} AND source_run_id = '{run_id}'"
                made = self._client.search_logged_models([experiment], filter_string=mine)
                self._drop_doubles(model, made)
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, mlmodel.BASE_WEIGHTS_FILE).write_bytes(base.weights)
                Path(folder, mlmodel.BASE_DOCUMENT_FILE).write_text(base.document, encoding="utf-8")
                artifacts.keep(model, Path(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
        self._bases[model.model_id] = base
        return str(model.model_id)

    def model_files(self, uri: str, into: Path) -> Path:
        """See `Registry`."""
        try:
            return artifacts.fetch(uri, {"MLmodel"}, into)
        except FileNotFoundError as exc:
            raise VersionNotFound(
                f"{uri}: no such model ({exc}); give models:/NAME/VERSION or models:/NAME@ALIAS"
            ) from exc

    def base(self, base_id: str) -> Base:
        """See `Registry`."""
        if base_id not in self._bases:
            base = artifacts.read_base(base_id)
            with self._doing(f"look up base {base_id}"):
                recorded = self._client.get_logged_model(base_id).tags["selfheal.base_sha256"]
            if base.sha256 != recorded:
                raise VersionCorrupt(f"base {base_id}: its sha256 is not the recorded one")
            self._bases[base_id] = base
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
        tags = lineage.tags(snapshot, parent)
        with self._doing(f"register snapshot {snapshot.id}"):
            model, number = self._begun(lineage, snapshot) if again else (None, None)
            next_one = 0 if again else self._next.pop(lineage.model, 0)
            if model is None:
                model = self._client.create_logged_model(
                    self._experiment_of(lineage.run_id),
                    name=_display_name(lineage.model, snapshot),
                    source_run_id=lineage.run_id,
                    tags=tags | (_link(lineage.model, next_one) if next_one else {}),
                )
            if number is not None:
                for key, value in lineage.lease_tags.items():
                    self._client.set_model_version_tag(lineage.model, str(number), key, value)
                manifest = digest(self._files(model.model_id, snapshot.id)[MANIFEST_FILE])
            else:
                manifest = self._log_version(lineage, snapshot, adapter, model, tags)
                self._require_model(lineage.model)
                created = self._client.create_model_version(
                    lineage.model,
                    f"models:/{model.model_id}",
                    run_id=lineage.run_id,
                    tags=_shown(tags) | lineage.lease_tags,
                    model_id=model.model_id,  # a server refuses the source without it
                )
                number = int(created.version)
            if self.may_repeat:
                number = self._only_one(lineage, snapshot, model, number)
            if number != next_one:
                self._client.set_logged_model_tags(model.model_id, _link(lineage.model, number))
            self._next[lineage.model] = number + 1
            self._made = {f"models:/{model.model_id}": snapshot.id}
        return Added(number, manifest)

    def mark_stale(self, model: str, number: int, lease: int) -> None:
        """See `Registry`."""
        with self._doing(f"mark {model} v{number}"):
            entry = self._client.get_model_version(model, str(number))
            if entry.tags.get(LEASE_TAG) != str(lease):
                return
            self._client.set_model_version_tag(model, str(number), STALE_TAG, str(lease))
            # the run that has the lease may have registered the same snapshot
            same = self._client.search_model_versions(
                f"name = '{model}' AND source_path = '{entry.source}'"
            )
            sound = [int(one.version) for one in same if STALE_TAG not in one.tags]
            if sound:
                model_id = self._logged_model_of(entry)
                self._client.set_logged_model_tags(model_id, _link(model, max(sound)))

    def _begun(self, lineage: Lineage, snapshot: Snapshot) -> tuple[LoggedModel | None, int | None]:
        """The logged model that an earlier try left, and its version if it came to that."""
        tries = self._tries(lineage, snapshot)
        for model in tries:
            numbers = self._numbers_of(lineage.model, model)
            if numbers:
                return model, numbers[0]
        return (tries[0] if tries else None), None

    def _tries(self, lineage: Lineage, snapshot: Snapshot) -> list[LoggedModel]:
        """Every logged model of a snapshot."""
        return self._client.search_logged_models(
            [self._experiment_of(lineage.run_id)],
            filter_string=f"tags.`selfheal.snapshot` = '{snapshot.id}' "
            f"AND tags.`selfheal.run_id` = '{lineage.run_id}'",
        )

    def _numbers_of(self, name: str, model: LoggedModel) -> list[int]:
        """The versions of a logged model."""
        entries = self._client.search_model_versions(
            f"name = '{name}' AND source_path = 'models:/{model.model_id}'"
        )
        return sorted(int(entry.version) for entry in entries)

    def _only_one(
        self, lineage: Lineage, snapshot: Snapshot, model: LoggedModel, number: int
    ) -> int:
        """Take away what was made twice, since an answer was lost; returns the version that stays.

        The later ones are marked first, for whoever may not delete them.
        """
        self._drop_doubles(model, self._tries(lineage, snapshot))
        first, *doubles = self._numbers_of(lineage.model, model) or [number]
        for double in doubles:
            self._client.set_model_version_tag(lineage.model, str(double), DOUBLE_TAG, str(first))
            self._delete_entry(lineage.model, double)
        return first

    def _drop_doubles(self, model: LoggedModel, made: list[LoggedModel]) -> None:
        for other in made:
            if other.model_id != model.model_id:
                self._client.set_logged_model_tags(other.model_id, {DOUBLE_TAG: model.model_id})
                self._delete_logged_model(other.model_id)

    def _log_version(
        self,
        lineage: Lineage,
        snapshot: Snapshot,
        adapter: bytes,
        model: LoggedModel,
        tags: Mapping[str, str],
    ) -> str:
        """Files and figures of a version, before there is one: nobody sees half of it.

        Returns the hash of its manifest.
        """
        base = self.base(lineage.base)
        whole, segments = adapter, b""
        if '"directions"' in base.document:
            whole, segments = self._packs.store(
                self._client, lineage, adapter, partial(self._segments_of, lineage.model)
            )
        with tempfile.TemporaryDirectory() as folder:
            mlmodel.write_version(
                Path(folder),
                adapter=whole,
                segments=segments,
                adapter_sha256=snapshot.sha256,
                base_id=lineage.base,
                base_sha256=base.sha256,
                document=base.document,
                threshold=snapshot.threshold,
                model_id=model.model_id,
                run_id=lineage.run_id,
            )
            files = hashes_of(Path(folder))
            manifest = Manifest(lineage.model, snapshot.id, files, tags, snapshot.metrics)
            Path(folder, MANIFEST_FILE).write_bytes(manifest.as_bytes())
            artifacts.keep(model, Path(folder))
        self._client.finalize_logged_model(model.model_id, "READY")
        at_ms = model.creation_timestamp
        metrics = as_metrics(snapshot.metrics, snapshot.batch, model.model_id, at_ms=at_ms)
        self._client.log_batch(lineage.run_id, metrics=metrics)
        return digest(manifest.as_bytes())

    def _segments_of(self, model: str) -> SegmentManifest | None:
        """The manifest of segments of the champion; None where it has none, or is gone."""
        number = self.alias(model, CHAMPION)
        entry = self._entry(model, number) if number else None
        if entry is None:
            return None
        where = f"{model} v{number}"
        listed = self._files(self._logged_model_of(entry), where).get(SEGMENTS_FILE)
        return None if listed is None else SegmentManifest.parse(listed, where)

    def score_version(
        self,
        lineage: Lineage,
        number: int,
        batch: int,
        metrics: Mapping[str, float],
        scores: AnyScores,
    ) -> None:
        """See `Registry`."""
        with self._doing(f"score {lineage.model} v{number}"):
            entry = self._client.get_model_version(lineage.model, str(number))
            require_of_run(lineage, number, entry.run_id or "")
            model_id = self._logged_model_of(entry)
            figures = as_metrics(metrics, batch, model_id, at_ms=entry.creation_timestamp + 1)
            self._client.log_batch(lineage.run_id, metrics=figures)
            for key, value in scored_tags(scores).items():
                if key in entry.tags:  # 0.1.0 registered it
                    self._client.set_model_version_tag(lineage.model, str(number), key, value)
            self._client.set_logged_model_tags(model_id, scored_tags(scores))

    def stored(self, version: VersionRecord) -> StoredVersion:
        """See `Registry`."""
        where = f"{version.model} v{version.version}"
        entry = self._present(version, where)
        with self._doing(f"read {where}"):
            logged = self._client.get_logged_model(self._logged_model_of(entry))
        files = self._files(logged.model_id, where)
        figures = {metric.key: metric.value for metric in logged.metrics or ()}
        return StoredVersion(entry.tags, logged.tags, figures, files)

    def _present(self, version: VersionRecord, where: str) -> ModelVersion:
        entry = self._entry(version.model, version.version)
        if entry is None:
            raise VersionCorrupt(f"{where}: the version was deleted; use another one")
        return entry

    def _files(self, model_id: str, where: str) -> dict[str, bytes]:
        """Every file of a version.

        By the version's own name, MLflow would read every version of the model first.
        """
        with tempfile.TemporaryDirectory() as into:
            return files_in(self._fetched(model_id, where, Path(into)))

    def _fetched(self, model_id: str, where: str, into: Path) -> Path:
        try:
            return artifacts.fetch(f"models:/{model_id}", {mlmodel.ADAPTER_FILE}, into)
        except FileNotFoundError as exc:
            raise VersionCorrupt(
                f"{where}: {mlmodel.ADAPTER_FILE} is gone from the artifact store "
                f"({exc}); restore it from a backup or use another version"
            ) from exc

    def adapter(self, version: VersionRecord) -> bytes:
        """See `Registry`."""
        where = f"{version.model} v{version.version}"
        entry = self._present(version, where)
        with self._doing(f"read {where}"):
            model_id = self._logged_model_of(entry)
        with tempfile.TemporaryDirectory() as into:
            return artifacts.whole_adapter(self._fetched(model_id, where, Path(into)), where)

    def alias(self, model: str, alias: str) -> int | None:
        """See `Registry`."""
        try:
            return int(self._client.get_model_version_by_alias(model, alias).version)
        except MlflowException as exc:
            if exc.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            with self._doing(f"read alias '{alias}' of '{model}'"):
                raise

    def set_alias(self, model: str, alias: str, target: int) -> None:
        """See `Registry`."""
        with self._doing(f"point alias '{alias}' of '{model}' to v{target}"):
            # the public call reads every version first, to see whether the model is a prompt: two
            # seconds of a rollback among 100,000 versions
            inner = getattr(self._client, "_get_registry_client", lambda: self._client)()
            if target == NOTHING:
                inner.delete_registered_model_alias(model, alias)
            else:
                inner.set_registered_model_alias(model, alias, str(target))

    def delete_version(self, version: VersionRecord) -> int:
        """See `Registry`. The files of a copy belong to what it was copied from."""
        where = f"{version.model} v{version.version}"
        with self._doing(f"delete {where}"):
            entry = self._client.get_model_version(version.model, str(version.version))
            copies = self._client.search_model_versions(
                f"source_path = 'models:/{version.model}/{version.version}'"
            )
            if copies:
                raise RegistryError(
                    f"{where} was copied to {copies[0].name} v{copies[0].version}, which needs its "
                    "files; delete the copy first, or keep both"
                )
            if is_copy(entry):
                self._delete_entry(version.model, version.version)
                return 0
            logged = self._client.get_logged_model(self._logged_model_of(entry))
            files = get_artifact_repository(logged.artifact_location)
            size = artifacts.size_of(files)
            # files first: while there is a version, whoever was interrupted can begin again
            files.delete_artifacts()  # type: ignore[no-untyped-call]
            self._delete_entry(version.model, version.version)
            self._delete_logged_model(logged.model_id)
        return size

    def clear_packs(self, model: str, run: str) -> int:
        """See `Registry`. A version that cannot be read may need any of them: then all stay."""
        with self._doing(f"look for adapters of segments of '{model}' that no version needs"):
            packs = packs_of(self._client, self._all_experiments(), model)
            if not packs:
                return 0
            entries = every(partial(self._client.search_model_versions, f"name = '{model}'"))
            try:
                ours = [entry for entry in entries if PHASE_TAG in entry.tags]
                needed = {pack for entry in ours for pack in self._needs(entry)}
            except VersionCorrupt:
                return 0
            gone = (pack for pack in packs if may_go(pack, needed, run))
            return sum(delete_pack(self._client, pack) for pack in gone)

    def _needs(self, entry: ModelVersion) -> tuple[str, ...]:
        """The packs that a version's manifest names."""
        where = f"{entry.name} v{entry.version}"
        listed = self._files(self._logged_model_of(entry), where).get(SEGMENTS_FILE)
        return () if listed is None else SegmentManifest.parse(listed, where).packs

    def delete_model(self, model: str) -> None:
        """See `Registry`. MLflow keeps the files until ``mlflow gc``."""
        with self._doing(f"delete model '{model}'"):
            self.delete_journal(model)
            for entry in every(partial(self._client.search_model_versions, f"name = '{model}'")):
                if not is_copy(entry):
                    self._delete_logged_model(self._logged_model_of(entry))
            for pack in packs_of(self._client, self._all_experiments(), model):
                delete_pack(self._client, pack)
            with unless_gone():
                self._client.delete_registered_model(model)
        self._models.discard(model)

    def _delete_entry(self, model: str, number: int) -> None:
        with unless_gone():
            self._client.delete_model_version(model, str(number))

    def _delete_logged_model(self, model_id: str) -> None:
        with unless_gone():
            self._client.delete_logged_model(model_id)

    def models(self) -> list[str]:
        """See `Registry`."""
        return sorted(self.all_aliases())

    def all_aliases(self) -> dict[str, dict[str, int]]:
        """See `Registry`."""
        with self._doing("list the registered models"):
            return {
                model.name: {alias: int(number) for alias, number in model.aliases.items()}
                for model in every(partial(self._client.search_registered_models, max_results=100))
            }

    def aliases(self, model: str) -> dict[str, int]:
        """See `Registry`."""
        with self._doing(f"read the aliases of '{model}'"):
            aliases = self._client.get_registered_model(model).aliases
        return {alias: int(number) for alias, number in aliases.items()}

    def require_writable(self) -> None:
        """See `Registry`."""
        name = f"selfheal-doctor-{time.time_ns()}"
        with self._doing("write to the store"):
            with unless_there():
                self._client.create_registered_model(name)
            with unless_gone():
                self._client.delete_registered_model(name)

    def _require_model(self, model: str) -> None:
        if model in self._models:
            return
        with unless_there():
            self._client.create_registered_model(model, description=WHAT_IT_IS)
        self._models.add(model)


def _shown(tags: Mapping[str, str]) -> dict[str, str]:
    """Those that stand on the version itself."""
    return {key: value for key, value in tags.items() if key in SHOWN_TAGS}


def _link(name: str, number: int) -> dict[str, str]:
    """The tag by which a logged model names its version."""
    return {VERSIONS_TAG: json.dumps([{"name": name, "version": str(number)}])}


def _display_name(model: str, snapshot: Snapshot) -> str:
    """As MLflow's interface lists it; dots and slashes are not allowed there."""
    return f"{model}-batch-{snapshot.batch}-{snapshot.phase.value}".replace(".", "-")
