"""The loader that MLflow calls for a version: ``mlflow.pyfunc.load_model("models:/NAME/7")``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.metrics import classify
from selfheal_cli.model.allowed import asked_by_mlflow
from selfheal_cli.model.checkpoint import assemble, unpack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.registry.layout import ADAPTER_FILE, LINK_FILE, OUTPUTS
from selfheal_cli.registry.mlflow.artifacts import base_in, read_base, whole_adapter
from selfheal_cli.sources.encoding import Encoding

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


class ProbabilityModel:
    """Raw columns to probabilities, or to labels at the version's own threshold."""

    def __init__(
        self,
        network: SelfHealingNetwork,
        encoding: Encoding,
        labels: tuple[str, ...],
        threshold: float,
    ) -> None:
        self._network = network
        self._encoding = encoding
        self._labels = labels
        self._threshold = threshold

    def predict(
        self, model_input: pd.DataFrame | FloatArray, params: dict[str, object] | None = None
    ) -> FloatArray | pd.DataFrame | list[str]:
        """Of n rows of raw features, or of one tensor (n, ...): (n,) float32 probabilities of the
        positive class, a column a class where there are more than two, or with
        ``output="label"`` n labels.
        """
        output = asked_output(params)
        if isinstance(model_input, pd.DataFrame):
            rows = self._encoding.encode(self._encoding.raw(model_input))
        else:
            flat = model_input.reshape(len(model_input), -1)
            rows = self._encoding.filled(flat.astype("float32"))
        return as_answer(self._network.predict(rows), output, self._labels, self._threshold)


def asked_output(params: dict[str, object] | None) -> str:
    """Which output a caller wants; raises ValueError for one that there is not."""
    output = (params or {}).get("output", OUTPUTS[0])
    if output not in OUTPUTS:
        raise ValueError(f"output {output!r}: {' or '.join(OUTPUTS)} is allowed")
    return str(output)


def as_answer(
    probabilities: FloatArray, output: str, labels: tuple[str, ...], threshold: float
) -> FloatArray | pd.DataFrame | list[str]:
    """Probabilities (n,) or (n, K) as a version gives them to a caller of MLflow's."""
    if output == "label":
        return [labels[place] for place in classify(probabilities, threshold)]
    if probabilities.ndim == 1:
        return probabilities
    return pd.DataFrame(probabilities, columns=list(labels))


def _load_pyfunc(data_path: str) -> ProbabilityModel:
    """Called by MLflow with the version's folder; raises `VersionCorrupt` on a wrong hash.

    The process is the caller's: threads and import path stay as they are.
    """
    folder = Path(data_path)
    link = json.loads((folder / LINK_FILE).read_text(encoding="utf-8"))
    base = base_in(folder) or read_base(link["base"])
    if base.sha256 != link["base_sha256"]:
        raise VersionCorrupt(
            f"base {link['base']}: its bytes are not those that this version was registered with"
        )
    where = f"{folder.name}/{ADAPTER_FILE}"
    stored = whole_adapter(folder, where)
    adapter = unpack(stored, sha256=link["adapter_sha256"], where=where)
    document = base.describe()
    with asked_by_mlflow():
        encoding = encoding_of(base)
        network = assemble(base, adapter, where=where)
    labels, threshold = tuple(document["labels"]), link.get("threshold", 0.5)
    return ProbabilityModel(network, encoding, labels, threshold)
