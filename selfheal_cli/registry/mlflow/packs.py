"""Where the adapters of segments lie: each in a pack, which later versions share by hash."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient

from selfheal_cli.model.composite import SegmentManifest, split
from selfheal_cli.registry.layout import PACK_FILE


class SegmentPacks:
    """The manifest of the latest version on each base."""

    def __init__(self) -> None:
        self._latest: dict[str, SegmentManifest] = {}

    def store(
        self,
        client: MlflowClient,
        base: str,
        adapter: bytes,
        run_id: str,
        before: Callable[[], SegmentManifest | None],
    ) -> tuple[bytes, bytes]:
        """The adapter for all rows, and the manifest of segments; empty where there are none.

        Adapters that no version had before are stored as a pack; ``before`` is asked for the
        champion's manifest where none was stored from here.
        """
        parts = split(adapter)
        if parts is None:
            return adapter, b""
        known = self._latest.get(base) or before()
        manifest, pack = parts.manifest(known)
        if pack:
            name = _stored(client, base, pack, run_id)
            manifest = replace(manifest, packs=(*manifest.packs[:-1], name))
        self._latest[base] = manifest
        return parts.whole, manifest.as_bytes()


def _stored(client: MlflowClient, base: str, pack: bytes, run_id: str) -> str:
    experiment = client.get_run(run_id).info.experiment_id
    tags = {"selfheal.phase": "segments", "selfheal.base": base}
    model = client.create_logged_model(experiment, name="segments", source_run_id=run_id, tags=tags)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, PACK_FILE).write_bytes(pack)
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)
