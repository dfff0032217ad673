"""A model of MLflow's python_function flavour: its folder as bytes, and rows as it takes them.

It is asked through MLflow, which runs the code and the pickles that were stored with it. So its
folder has a name by its content, which must have been allowed on this machine.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import warnings
import weakref
import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.records import digest

if TYPE_CHECKING:
    from selfheal_cli.estimators.spec import Matrix

FLAVOR = "python_function"
WITHOUT_CODE = ("mlflow.onnx",)  # loaders that run nothing of what is stored
OURS = "selfheal_"


@dataclass(frozen=True, slots=True)
class AskedPyfunc:
    """A loaded model."""

    model: Any

    def __call__(self, rows: Any) -> Matrix:
        """What it gives for rows as its signature has them: (n,) or (n, K)."""
        given = self.model.predict(_as_signed(rows, self.schema))
        table: Matrix = np.asarray(given)
        return table[:, 0] if table.ndim == 2 and table.shape[1] == 1 else table

    @property
    def schema(self) -> Any:
        """Of its inputs; None where its signature says nothing of them."""
        return self.model.metadata.get_input_schema()


def own_code(data: bytes) -> tuple[str, ...]:
    """What must be allowed before a packed model is loaded: nothing, or the name of its content.

    Raises `ModelError` for what is no such archive.
    """
    import yaml

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as files:
            flavors = yaml.safe_load(files.read("MLmodel"))["flavors"]
        loader = str(flavors[FLAVOR]["loader_module"])
    except (zipfile.BadZipFile, KeyError, TypeError, yaml.YAMLError) as exc:
        raise ModelError(f"no folder of MLflow's {FLAVOR} flavour ({one_line(exc)[:200]})") from exc
    if loader.startswith(OURS):
        raise ModelError("it is a version of selfheal's own: heal it with selfheal run --from")
    is_plain = loader in WITHOUT_CODE and "code" not in flavors[FLAVOR]
    return () if is_plain else (f"pyfunc-{digest(data)[:16]}",)


def opened(data: bytes) -> AskedPyfunc:
    """Load a packed model; raises `ModelError` where MLflow or its own code fails."""
    folder = Path(tempfile.mkdtemp(prefix="selfheal-pyfunc-"))
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        files.extractall(folder)  # drops what would lead out of the folder
    # a library that reads a model, as the others here; the registry is another matter
    pyfunc = import_module("mlflow.pyfunc")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = pyfunc.load_model(folder.as_uri(), suppress_warnings=True)
    except Exception as exc:  # MLflow's, or whatever the model's own code raises
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelError(f"MLflow cannot load the model: {one_line(exc)[:300]}") from exc
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)  # it may go on reading there
    return AskedPyfunc(model)


def _as_signed(rows: Any, schema: Any) -> Any:
    """A table or a matrix in the types that the signature names; MLflow itself takes no others."""
    if schema is None:
        return rows
    if schema.is_tensor_spec():
        tensor = schema.inputs[0]
        array = np.asarray(rows, dtype=tensor.type)
        return array.reshape(len(array), *tensor.shape[1:])
    given = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    columns = schema.inputs
    if schema.has_input_names():
        given = given[schema.input_names()]
    return pd.DataFrame(
        {name: _typed(given[name], one) for name, one in zip(given, columns, strict=True)},
        index=given.index,
    )


def _typed(values: pd.Series[Any], column: Any) -> pd.Series[Any]:
    if column.type.name == "string":
        return values.astype(object)
    return values.astype(column.type.to_pandas())
