"""A python_function model when it is taken: its folder packed, what its signature says of it, and
whether what it gives are probabilities.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from selfheal_cli.estimators.spec import Kind, Matrix

LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of each file, so that the bytes tell of nothing but content
KINDS: Mapping[str, Kind] = {
    "boolean": "flag", "integer": "integer", "long": "integer", "float": "float",
    "double": "float", "string": "text",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """What MLflow kept of a model's inputs and outputs: its schemas, None where it kept none."""

    inputs: Any
    outputs: Any

    @property
    def takes_array(self) -> bool:
        """Whether it takes one array instead of a table."""
        return self.inputs is not None and self.inputs.is_tensor_spec()

    @property
    def width(self) -> int:
        """Columns of a row, or values of one tensor; 0 where it does not say."""
        if self.takes_array:
            return max(0, int(np.prod(self.inputs.inputs[0].shape[1:])))
        return 0 if self.inputs is None else len(self.inputs.inputs)

    @property
    def names(self) -> tuple[str, ...] | None:
        """What its signature calls its columns; None where it does not."""
        if self.inputs is None or self.takes_array or not self.inputs.has_input_names():
            return None
        return tuple(self.inputs.input_names())

    @property
    def kinds(self) -> tuple[Kind, ...] | None:
        """Of each column, by the signature; raises `ModelError` for one that is no plain value."""
        if self.inputs is None or self.takes_array:
            return None
        types = [getattr(one.type, "name", str(one.type)) for one in self.inputs.inputs]
        odd = next((one for one in types if one not in KINDS), None)
        if odd is not None:
            raise ModelError(
                f"the model's signature has a column of {odd}; {', '.join(KINDS)} are supported"
            )
        return tuple(KINDS[one] for one in types)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What its signature calls its outputs, one a class."""
        schema = self.outputs
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
