"""The Open Inference Protocol (V2, as KServe and Triton speak it) with JSON tensors.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.errors import RequestRefused
from selfheal_cli.metrics import classify
from selfheal_cli.registry.layout import OUTPUTS
from selfheal_cli.serve.http.extent import require_rows
from selfheal_cli.serve.http.feedback import REQUEST_ID
from selfheal_cli.serve.http.invocations import ScoredRequest
from selfheal_cli.serve.http.model import ServedModel
from selfheal_cli.serve.http.tables import as_key
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.sources.values import one_number
from selfheal_cli.sources.values import one_text as values_text

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

DataType = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
]  # fmt: skip
DIMENSIONS = 4
MOST = 2**31 - 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tensor(_Part):
    """A tensor in JSON; ``data`` flat or nested, in the order of the last dimension first."""

    name: str
    shape: list[Annotated[int, Field(ge=0, le=MOST)]]
    datatype: DataType
    parameters: dict[str, Any] | None = None
    data: list[Any]


class Wanted(_Part):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(_Part):
    """One tensor [n, columns], or a tensor [n] or [n, 1] for each column by its name."""

    id: Annotated[str, Field(pattern=REQUEST_ID)] | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor]
    outputs: list[Wanted] | None = None


class Response(_Part):
    """The model's answer: ``probability`` and ``label``, or those that were asked for."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


class Described(_Part):
    """A tensor that a model takes or gives; -1: any number of rows."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(_Part):
    """A model's metadata."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Described]
    outputs: list[Described]


def metadata(served: ServedModel, model: str) -> Metadata:
    """What the model takes and gives."""
    classes = len(served.labels)
    return Metadata(
        name=model,
        versions=[served.shown_version],
        platform="mlflow_pyfunc",
        inputs=[
            Described(
                name=column.name,
                datatype="BYTES" if column.kind == "categorical" else "FP64",
                shape=[-1],
            )
            for column in served.quick.encoding.columns
        ],
        outputs=[
            Described(
                name=OUTPUTS[0], datatype="FP32", shape=[-1] if classes == 2 else [-1, classes]
            ),
            Described(name=OUTPUTS[1], datatype="BYTES", shape=[-1]),
        ],
    )


def infer(
    served: ServedModel,
    request: Request,
    *,
    model: str,
    request_id: str,
    key: str | None,
    most: int,
) -> tuple[Response, ScoredRequest]:
    """Score the tensors. Raises `RequestRefused`."""
    wanted = OUTPUTS if request.outputs is None else [one.name for one in request.outputs]
    for name in wanted:
        if name not in OUTPUTS:
            raise RequestRefused(f"outputs: {' and '.join(OUTPUTS)} are there to be asked for")
    columns, keys = _columns(served, request.inputs, key, most)
    probabilities = served.score(columns)
    tensors = {
        OUTPUTS[0]: Tensor(
            name=OUTPUTS[0], datatype="FP32", shape=list(probabilities.shape),
            data=probabilities.ravel().tolist(),
        ),
        OUTPUTS[1]: Tensor(
            name=OUTPUTS[1], datatype="BYTES", shape=[len(probabilities)],
            data=[served.labels[y] for y in classify(probabilities, served.threshold)],
        ),
    }  # fmt: skip
    answer = Response(
        model_name=model,
        model_version=served.shown_version,
        id=request_id,
        outputs=[tensors[name] for name in wanted],
    )
    return answer, ScoredRequest(served, columns, probabilities, keys)


def _columns(
    served: ServedModel, tensors: list[Tensor], key: str | None, most: int
) -> tuple[Columns, tuple[str, ...] | None]:
    encoding = served.quick.encoding
    read = {tensor.name: (tensor, _flat(tensor)) for tensor in tensors}
    if not tensors or len(read) != len(tensors):
        raise RequestRefused("inputs: tensors of different names are expected, at least one")
    kinds = {column.name: column.kind == "categorical" for column in encoding.columns}
    first, flat = read[tensors[0].name]
    if len(tensors) == 1 and len(first.shape) == 2 and first.shape[1] == len(kinds):
        require_rows(first.shape[0], most)
        names = list(kinds)
        turned = {name: flat[place :: len(names)] for place, name in enumerate(names)}
        return {name: _column(encoding, name, turned[name], kinds[name]) for name in names}, None
    missing = [name for name in kinds if name not in read]
    if missing:
        raise RequestRefused(
            f"inputs: one tensor [n, {len(kinds)}] or a tensor [n] for each column is expected; "
            f"missing: {', '.join(missing)}"
        )
    wanted = [*kinds, *([key] if key in read and key is not None else [])]
    shapes = {name: read[name][0].shape for name in wanted}
    rows = (first.shape or [0])[0]
    for name, shape in shapes.items():
        if shape not in ([rows], [rows, 1]):
            raise RequestRefused(f"inputs: '{name}': a shape [n] or [n, 1] is expected, n as all")
    require_rows(rows, most)
    keys = tuple(map(as_key, read[key][1])) if key is not None and key in read else None
    return {name: _column(encoding, name, read[name][1], kinds[name]) for name in kinds}, keys


def _flat(tensor: Tensor) -> list[Any]:
    values = tensor.data
    for _ in range(DIMENSIONS):
        if not values or not isinstance(values[0], list):
            break
        if not all(isinstance(one, list) for one in values):
            raise RequestRefused("inputs: a tensor's data is flat, or nested as its shape")
        values = list(chain.from_iterable(values))
    if len(values) != prod(tensor.shape):
        raise RequestRefused("inputs: a tensor's data has other than its shape's number of values")
    none = type(None)
    allowed = (str, int, none) if tensor.datatype == "BYTES" else (bool, int, float, none)
    if any(type(value) not in allowed for value in values):
        raise RequestRefused(f"inputs: a tensor's data has values that are no {tensor.datatype}")
    return values


def _column(
    encoding: Encoding, name: str, values: list[Any], categorical: bool
) -> np.ndarray[Any, Any]:
    if encoding.contract == 2:
        cells = [(values_text if categorical else one_number)(value) for value in values]
        if not categorical and None in cells:
            raise RequestRefused(f"inputs: '{name}': numbers are expected")
        return np.array(cells, dtype=object if categorical else np.float64)
    if categorical:
        if not {str} >= set(map(type, values)):
            raise RequestRefused(f"inputs: '{name}': texts (BYTES) are expected")
        return np.array([one_text(value) for value in values], dtype=object)
    try:
        if str in set(map(type, values)):
            raise ValueError
        return np.array(values, dtype=np.float64)
    except (OverflowError, ValueError) as exc:
        raise RequestRefused(f"inputs: '{name}': numbers are expected") from exc
