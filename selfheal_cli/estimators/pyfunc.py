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
import yaml

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.records import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal_cli.estimators.spec import Kind, Matrix

FLAVOR = "python_function"
WITHOUT_CODE = ("mlflow.onnx",)  # loaders that run nothing of what is stored
OURS = "selfheal_"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of each file, so that the bytes tell of nothing but content
KINDS: Mapping[str, Kind] = {
    "boolean": "flag", "integer": "integer", "long": "integer", "float": "float",
    "double": "float", "string": "text",
}  # fmt: skip


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

    @property
    def takes_array(self) -> bool:
        """Whether it takes one array instead of a table."""
        return self.schema is not None and self.schema.is_tensor_spec()

    @property
    def width(self) -> int:
        """Columns of a row, or values of one tensor; 0 where it does not say."""
        if self.takes_array:
            return max(0, int(np.prod(self.schema.inputs[0].shape[1:])))
        return 0 if self.schema is None else len(self.schema.inputs)

    @property
    def names(self) -> tuple[str, ...] | None:
        """What its signature calls its columns; None where it does not."""
        if self.schema is None or self.takes_array or not self.schema.has_input_names():
            return None
        return tuple(self.schema.input_names())

    @property
    def kinds(self) -> tuple[Kind, ...] | None:
        """Of each column, by the signature; raises `ModelError` for one that is no plain value."""
        if self.schema is None or self.takes_array:
            return None
        types = [getattr(one.type, "name", str(one.type)) for one in self.schema.inputs]
        odd = next((one for one in types if one not in KINDS), None)
        if odd is not None:
            raise ModelError(
                f"the model's signature has a column of {odd}; {', '.join(KINDS)} are supported"
            )
        return tuple(KINDS[one] for one in types)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What its signature calls its outputs, one a class."""
        schema = self.model.metadata.get_output_schema()
        if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
            return None
        return tuple(schema.input_names()) if len(schema.inputs) > 1 else None


def packed(folder: Path) -> bytes:
    """A stored model's folder as one zip archive, whose bytes depend on its files alone."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), LONG_AGO)
                files.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED, 6)
    return archive.getvalue()


def own_code(data: bytes) -> tuple[str, ...]:
    """What must be allowed before a packed model is loaded: nothing, or the name of its content.

    Raises `ModelError` for what is no such archive.
    """
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


def labels_said(table: Matrix, rows: int, *, drawn: bool) -> str | None:
    """Why an answer to so many ``rows`` is labels and no probabilities; None where it is not."""
    if table.dtype.kind not in "fiub":
        first = str(table.ravel()[0]) if table.size else "nothing"
        return f"gives {first[:40]!r}, and no probability"
    known = table[~np.isnan(table)] if table.dtype.kind == "f" else table
    if table.ndim > 2 or known.size == 0 or not bool((known == np.round(known)).all()):
        return None
    values = sorted(set(known.ravel().tolist()))[:4]
    where = f"{rows:,} {'drawn ' if drawn else ''}rows"
    return (
        f"gives only {', '.join(f'{one:g}' for one in values)} on {where}: labels, and no "
        "probabilities"
    )
