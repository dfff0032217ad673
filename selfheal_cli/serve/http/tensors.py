"""Tensors of the V2 protocol as values and back: in JSON, or as bytes behind the JSON.

Sources: https://github.com/kserve/open-inference-protocol and, for the bytes, Triton's extension
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import chain
from math import isfinite, prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.errors import RequestRefused

DataType = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BF16", "BYTES",
]  # fmt: skip
WIRE = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2",
}  # fmt: skip
LARGEST_BF16 = 3.3895313892515355e38
DIMENSIONS = 4
MOST = 2**31 - 1
SIZE, WANTED, WANTED_ALL = "binary_data_size", "binary_data", "binary_data_output"
LENGTH = struct.Struct("<I")
ELSEWHERE = "shared_memory_region"


class Spoken(BaseModel):
    """A part of a request or an answer; keys that it does not know are the caller's own."""

    model_config = ConfigDict(frozen=True)


class Tensor(Spoken):
    """A tensor; ``data`` flat or nested, in the order of the last dimension first, or, where
    ``parameters`` has a ``binary_data_size``, as so many bytes behind the JSON.
    """

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MOST)]], Field(max_length=DIMENSIONS)]
    datatype: DataType
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


def values_of(tensors: Sequence[Tensor], behind: bytes) -> dict[str, list[Any]]:
    """Each tensor's values in one flat list; ``behind`` are the bytes after the JSON.

    Raises `RequestRefused` where they are not of the shape and the datatype that a tensor names.
    """
    read: dict[str, list[Any]] = {}
    place = 0
    for tensor in tensors:
        parameters = tensor.parameters or {}
        if ELSEWHERE in parameters:
            raise RequestRefused("inputs: tensors in shared memory are not read here")
        size = parameters.get(SIZE)
        if size is None:
            read[tensor.name] = _from_json(tensor)
            continue
        if type(size) is not int or not 0 <= size <= len(behind) - place or tensor.data is not None:
            raise RequestRefused(f"inputs: {SIZE}: so many bytes do not follow the JSON")
        read[tensor.name] = _from_bytes(tensor, behind[place : place + size])
        place += size
    if place != len(behind):
        raise RequestRefused("inputs: more bytes follow the JSON than its tensors name")
    return read


def as_bytes(tensor: Tensor) -> tuple[Tensor, bytes]:
    """A tensor of FP32 or BYTES without its data, and its data."""
    values = tensor.data or []
    if tensor.datatype == "BYTES":
        texts = [str(value).encode() for value in values]
        content = b"".join(chain.from_iterable((LENGTH.pack(len(text)), text) for text in texts))
    else:
        content = np.array(values, dtype=WIRE[tensor.datatype]).tobytes()
    given = {"data": None, "parameters": {SIZE: len(content)}}
    return tensor.model_copy(update=given), content


def _from_json(tensor: Tensor) -> list[Any]:
    if tensor.data is None:
        raise RequestRefused(f"inputs: a tensor has neither data nor a {SIZE}")
    values = tensor.data
    for _ in range(DIMENSIONS):
        if not values or not isinstance(values[0], list):
            break
        if not all(isinstance(one, list) for one in values):
            raise RequestRefused("inputs: a tensor's data is flat, or nested as its shape")
        values = list(chain.from_iterable(values))
    if len(values) != prod(tensor.shape):
        raise RequestRefused("inputs: a tensor's data has other than its shape's number of values")
    if not _are_of(values, tensor.datatype):
        raise RequestRefused(f"inputs: a tensor's data has values that are no {tensor.datatype}")
    return values


def _are_of(values: list[Any], datatype: DataType) -> bool:
    """Whether all of them can be held by the datatype; null is a missing value of any."""
    kinds = set(map(type, values)) - {type(None)}
    if datatype == "BYTES":
        return kinds <= {str, int}
    if datatype == "BOOL":
        return kinds <= {bool}
    known = [value for value in values if value is not None]
    if "INT" in datatype:
        limits = np.iinfo(WIRE[datatype])
        whole = kinds <= {int} or (kinds <= {int, float} and all(v == v // 1 for v in known))
        return whole and (not known or (min(known) >= limits.min and max(known) <= limits.max))
    if not kinds <= {bool, int, float}:
        return False
    largest = LARGEST_BF16 if datatype == "BF16" else float(np.finfo(WIRE[datatype]).max)
    return all(
        abs(value) <= largest or (type(value) is float and not isfinite(value)) for value in known
    )


def _from_bytes(tensor: Tensor, content: bytes) -> list[Any]:
    count = prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _texts(content, count)
    kind = np.dtype(WIRE[tensor.datatype])
    if len(content) != count * kind.itemsize:
        raise RequestRefused(
            f"inputs: {SIZE}: {count} values of {tensor.datatype} have {count * kind.itemsize} "
            f"bytes, and not {len(content)}"
        )
    values = np.frombuffer(content, dtype=kind)
    if tensor.datatype == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    return list(values.tolist())


def _texts(content: bytes, count: int) -> list[Any]:
    """Texts, each behind its length in four bytes."""
    texts: list[Any] = []
    place = 0
    while place + LENGTH.size <= len(content) and len(texts) < count:
        (length,) = LENGTH.unpack_from(content, place)
        place += LENGTH.size + length
        texts.append(content[place - length : place])
    if place != len(content) or len(texts) != count:
        raise RequestRefused("inputs: BYTES are texts, each behind its length in four bytes")
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError as exc:
        raise RequestRefused("inputs: BYTES are texts in UTF-8") from exc
