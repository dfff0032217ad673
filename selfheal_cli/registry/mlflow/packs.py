"""Where the adapters of segments lie: each in a pack, which later versions share by hash; and the
packs that no version needs any more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from selfheal_cli.model.composite import SegmentManifest, split
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.layout import PACK_FILE
from selfheal_cli.registry.mlflow import artifacts
from selfheal_cli.registry.mlflow.runs import every, unless_gone

PACK = "tags.`selfheal.phase` = 'segments'"
UNREGISTERED_MS = 3_600_000  # a pack so young may be of a version that is being registered


class SegmentPacks:
    """The manifest of the latest version on each base."""

    def __init__(self) -> None:
        self._latest: dict[str, SegmentManifest] = {}

    def store(
        self,
        client: MlflowClient,
        lineage: Lineage,
        adapter: bytes,
        before: Callable[[], SegmentManifest | None],
    ) -> tuple[bytes, bytes]:
        """The adapter for all rows, and the manifest of segments; empty where there are none.

        Adapters that no version had before are stored as a pack; ``before`` is asked for the
        champion's manifest where none was stored from here.
        """
        parts = split(adapter)
        if parts is None:
            return adapter, b""
        known = self._latest.get(lineage.base) or before()
        manifest, pack = parts.manifest(known)
        if pack:
            name = _stored(client, lineage, pack)
            manifest = replace(manifest, packs=(*manifest.packs[:-1], name))
        self._latest[lineage.base] = manifest
        return parts.whole, manifest.as_bytes()


def _stored(client: MlflowClient, lineage: Lineage, pack: bytes) -> str:
    run = lineage.run_id
    experiment = client.get_run(run).info.experiment_id
    tags = {
        "selfheal.phase": "segments",
        "selfheal.base": lineage.base,
        "selfheal.model": lineage.model,
    }
    model = client.create_logged_model(experiment, name="segments", source_run_id=run, tags=tags)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, PACK_FILE).write_bytes(pack)
        artifacts.keep(model, Path(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def packs_of(client: MlflowClient, experiments: list[str], model: str) -> list[LoggedModel]:
    """Every pack of a model's versions, needed or not."""
    asked = f"{PACK} AND tags.`selfheal.model` = '{model}'"
    return [
        pack
        for experiment in experiments
        for pack in every(partial(client.search_logged_models, [experiment], filter_string=asked))
    ]


def may_go(pack: LoggedModel, needed: Collection[str], run_under_way: str) -> bool:
    """Whether no version needs a pack, and none that is being registered can be the one."""
    young = time.time() * 1000 - pack.creation_timestamp < UNREGISTERED_MS
    return not (young or pack.model_id in needed or pack.source_run_id == run_under_way)


def delete_pack(client: MlflowClient, pack: LoggedModel) -> int:
    """Its files first, so that whoever was interrupted can begin again; returns their bytes."""
    files = get_artifact_repository(pack.artifact_location)
    size = artifacts.size_of(files)
    files.delete_artifacts()  # type: ignore[no-untyped-call]
    with unless_gone():
        client.delete_logged_model(pack.model_id)
    return size
