"""The loader that MLflow calls for a version: ``mlflow.pyfunc.load_model("models:/NAME/7")``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.model.network import SelfHealingNetwork, use_one_thread
from selfheal_cli.registry.mlmodel import (
    ADAPTER_FILE,
    BASE_DOCUMENT_FILE,
    BASE_WEIGHTS_FILE,
    LINK_FILE,
)
from selfheal_cli.snapshot import Base, assemble, unpack
from selfheal_cli.source.encoding import Encoding

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


class ProbabilityModel:
    """Raw columns to the probability of the positive class."""

    def __init__(self, network: SelfHealingNetwork, encoding: Encoding) -> None:
        self._network = network
        self._encoding = encoding

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> FloatArray:
        """(n,) float32 probabilities for n rows of raw features."""
        return self._network.predict(self._encoding.encode(self._encoding.raw(model_input)))


def _load_pyfunc(data_path: str) -> ProbabilityModel:
    """Called by MLflow with the version's folder; raises `VersionCorrupt` on a wrong hash."""
    use_one_thread()
    folder = Path(data_path)
    link = json.loads((folder / LINK_FILE).read_text(encoding="utf-8"))
    base = read_base(link["base"])
    if base.sha256 != link["base_sha256"]:
        raise VersionCorrupt(
            f"base {link['base']}: its bytes are not those that this version was registered with"
        )
    where = f"{folder.name}/{ADAPTER_FILE}"
    adapter = unpack(
        (folder / ADAPTER_FILE).read_bytes(), sha256=link["adapter_sha256"], where=where
    )
    encoding = Encoding.model_validate(base.describe()["encoding"])
    return ProbabilityModel(assemble(base, adapter, where=where), encoding)


def read_base(base_id: str) -> Base:
    """Fetch a stored base from the tracking store that MLflow is set to."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{base_id}"))
        return Base(
            (folder / BASE_WEIGHTS_FILE).read_bytes(),
            (folder / BASE_DOCUMENT_FILE).read_text(encoding="utf-8"),
        )
    except (MlflowException, OSError) as exc:
        reason = " ".join(str(exc).split())
        raise VersionCorrupt(
            f"base {base_id}: cannot be fetched from {mlflow.get_tracking_uri()} ({reason}); "
            "set MLFLOW_TRACKING_URI to the store that the version came from"
        ) from exc
