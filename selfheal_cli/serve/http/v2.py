"""The Open Inference Protocol, V2, as KServe and Triton speak it.

Source: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import RequestRefused
from selfheal_cli.metrics import classify
from selfheal_cli.registry.layout import OUTPUTS
from selfheal_cli.serve.http.extent import require_rows
from selfheal_cli.serve.http.invocations import ScoredRequest, both, numbers_expected
from selfheal_cli.serve.http.model import ServedModel, Turn
from selfheal_cli.serve.http.parsing import parsed
from selfheal_cli.serve.http.tables import as_key
from selfheal_cli.serve.http.tensors import (
    ELSEWHERE,
    WANTED,
    WANTED_ALL,
    Spoken,
    Tensor,
    as_bytes,
    values_of,
)
from selfheal_cli.sources.encoding import TEXTS, Encoding
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.sources.values import one_number
from selfheal_cli.sources.values import one_text as values_text

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

JSON_LENGTH = "inference-header-content-length"  # the header: of the JSON, where bytes follow
LENGTH = re.compile(r"[0-9]{1,15}")
NOT_HERE = ("sequence_id", "sequence_start", "sequence_end")  # models with a memory of callers
NOT_THERE = ("classification", ELSEWHERE)  # of an output


class Wanted(Spoken):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(Spoken):
    """One tensor [n, columns], or a tensor [n] or [n, 1] for each column by its name."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[Tensor]
    outputs: list[Wanted] | None = None


class Response(Spoken):
    """The model's answer: ``probability`` and ``label``, or those that were asked for."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


class Described(Spoken):
    """A tensor that a model takes or gives; -1: any number of rows."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(Spoken):
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
                datatype="BYTES" if column.kind in TEXTS else "FP64",
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


@dataclass(frozen=True, slots=True)
class Inference:
    """An answer as it is sent: JSON, and from ``json_length`` on bytes where there are some.

    ``id`` is the caller's own, where one came.
    """

    content: bytes
    json_length: int | None
    id: str | None
    scored: ScoredRequest


Choose = Callable[[str], tuple[ServedModel, Turn | None]]


def infer(
    choose: Choose,
    body: bytes,
    json_length: str | None,
    *,
    model: str,
    request_id: str,
    key: str | None,
    most: int,
) -> Inference:
    """Score the tensors of a body whose JSON has ``json_length`` bytes, by who is to answer it.
    Raises `RequestRefused`.
    """
    document, behind = _parts(body, json_length)
    request = parsed(Request, document)
    _require_known(request)
    served, trial = choose(request.id or request_id)
    columns, keys = _columns(served, request.inputs, behind, key, most)
    kept = columns
    if trial is not None:
        others = (
            _tried_columns(trial, request.inputs, behind, key, most) if trial.apart else columns
        )
        if others is not None:
            kept = both(columns, others)
            if trial.takes(columns):
                served, columns = trial.served, others
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
    outputs, after = _outputs(request, tensors)
    answer = Response(
        model_name=model,
        model_version=served.shown_version,
        id=request_id if request.id is None else request.id,
        outputs=outputs,
    )
    text = answer.model_dump_json(exclude_none=True).encode()
    length = len(text) if any(one.data is None for one in outputs) else None
    scored = ScoredRequest(served, kept, probabilities, keys)
    return Inference(text + after, length, request.id, scored)


def _parts(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    if not LENGTH.fullmatch(json_length) or (length := int(json_length)) > len(body):
        raise RequestRefused("Inference-Header-Content-Length: the body has fewer bytes")
    return body[:length], body[length:]


def _require_known(request: Request) -> None:
    """Nothing is accepted and ignored that would change an answer."""
    unknown = [name for name in NOT_HERE if name in (request.parameters or {})]
    wanted = request.outputs or []
    if len({one.name for one in wanted}) != len(wanted):
        raise RequestRefused("outputs: each may be asked for once")
    for one in wanted:
        if one.name not in OUTPUTS:
            raise RequestRefused(f"outputs: {' and '.join(OUTPUTS)} are there to be asked for")
        unknown += [name for name in NOT_THERE if name in (one.parameters or {})]
    if unknown:
        raise RequestRefused(f"parameters: {unknown[0]} is an extension that is not served here")


def _outputs(request: Request, tensors: dict[str, Tensor]) -> tuple[list[Tensor], bytes]:
    """The tensors that are wanted, and the bytes of those that are wanted as bytes."""
    binary = (request.parameters or {}).get(WANTED_ALL) is True
    wanted = request.outputs or [Wanted(name=name) for name in OUTPUTS]
    outputs, after = [], b""
    for one in wanted:
        tensor = tensors[one.name]
        if (one.parameters or {}).get(WANTED, binary) is True:
            tensor, content = as_bytes(tensor)
            after += content
        outputs.append(tensor)
    return outputs, after


def _columns(
    served: ServedModel, tensors: list[Tensor], behind: bytes, key: str | None, most: int
) -> tuple[Columns, tuple[str, ...] | None]:
    encoding = served.quick.encoding
    if not tensors or len({tensor.name for tensor in tensors}) != len(tensors):
        raise RequestRefused("inputs: tensors of different names are expected, at least one")
    values = values_of(tensors, behind)
    read = {tensor.name: (tensor, values[tensor.name]) for tensor in tensors}
    kinds = {column.name: column.kind in TEXTS for column in encoding.columns}
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


def _tried_columns(
    trial: Turn, tensors: list[Tensor], behind: bytes, key: str | None, most: int
) -> Columns | None:
    """None where the caller does not send what is tried needs; one tensor [n, columns] names none:
    it means those of the champion.
    """
    names = trial.served.quick.encoding.names
    if not {tensor.name for tensor in tensors} >= set(names):
        return None
    try:
        return _columns(trial.served, tensors, behind, key, most)[0]
    except RequestRefused:
        return None


def _column(
    encoding: Encoding, name: str, values: list[Any], categorical: bool
) -> np.ndarray[Any, Any]:
    if encoding.contract == 2:
        cells = [(values_text if categorical else one_number)(value) for value in values]
        if not categorical and None in cells:
            raise RequestRefused(f"inputs: '{name}': {numbers_expected(values)}")
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
        raise RequestRefused(f"inputs: '{name}': {numbers_expected(values)}") from exc
