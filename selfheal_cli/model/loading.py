"""Reads networks that others stored: safetensors, exported graphs, and pickles if allowed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model.description import find_named
from selfheal_cli.model.live import unwrapped

# numbers of torch's export schema, with what numpy reads them as
DTYPES: dict[int, tuple[np.dtype[Any], torch.dtype]] = {
    1: (np.dtype("u1"), torch.uint8), 2: (np.dtype("i1"), torch.int8),
    3: (np.dtype("<i2"), torch.int16), 4: (np.dtype("<i4"), torch.int32),
    5: (np.dtype("<i8"), torch.int64), 6: (np.dtype("<f2"), torch.float16),
    7: (np.dtype("<f4"), torch.float32), 8: (np.dtype("<f8"), torch.float64),
    12: (np.dtype("?"), torch.bool), 13: (np.dtype("<i2"), torch.bfloat16),
}  # fmt: skip
NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
CONFIG = "data/weights/model_weights_config.json"
MAX_BYTES = 8 << 30
PICKLE_RISK = (
    "it is a pickle, which runs whatever its author put into it when it is loaded; give "
    "--allow-pickle if you trust where it comes from, or name its class with --from and its "
    "weights as --weights FILE.safetensors"
)


def made(target: str, init: Mapping[str, Any], weights: Mapping[str, Tensor] | None) -> nn.Module:
    """An instance of ``package.module:Class``, or what the function of that name makes, with the
    weights; None leaves it those that it has. Raises `ModelError`.
    """
    if not NAMED.fullmatch(target):
        raise ModelError(f"'{target}' names no class: package.module:Class is needed")
    make = find_named(target)
    if not callable(make):
        raise ModelError(f"{target} is a {type(make).__name__}: a class or a function is needed")
    try:
        module: nn.Module = unwrapped(make(**init))
        if weights is not None:
            module.load_state_dict(dict(weights))
    except ModelError:
        raise
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit {target}: {one_line(exc)[:300]}") from exc
    except (Exception, SystemExit) as exc:  # the author's code, which may raise anything
        raise ModelError(
            f"{target} cannot be built with {dict(init) or 'no arguments'}: {one_line(exc)}"
            f"{_what_to_give(make)}"
        ) from exc
    return module


def _what_to_give(make: Any) -> str:
    """The arguments that it must be given, if it has any."""
    try:
        wanted = [
            one.name
            for one in signature(make).parameters.values()
            if one.default is Parameter.empty
            and one.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        ]
    except (TypeError, ValueError):
        return ""
    pairs = ", ".join(f'"{name}": ...' for name in wanted)
    return f"; give its arguments with --init '{{{pairs}}}'" if wanted else ""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """A state dictionary; raises `ModelError` for another file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as exc:
        raise ModelError(f"{path}: not a safetensors file ({exc})") from exc


def read_exported(path: Path) -> dict[str, Tensor]:
    """The weights of a graph that `torch.export` stored; nothing of it is unpickled.

    Raises `ModelError` for another file, or weights that are stored as a pickle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [member for member in archive.namelist() if member.endswith(CONFIG)]
            described = json.loads(archive.read(name))["config"]
            folder = name.removesuffix("model_weights_config.json")
            return {key: _tensor(archive, folder, weight) for key, weight in described.items()}
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as exc:
        raise ModelError(f"{path}: its weights cannot be read ({exc})") from exc


def read_pickle(path: Path) -> nn.Module:
    """A whole module, unpickled: only where the user allowed it.

    Raises `ModelError` where the file holds something else, or needs what cannot be imported.
    """
    try:
        return unwrapped(torch.load(path, map_location="cpu", weights_only=False))
    except ModelError:
        raise
    except ImportError as exc:
        raise ModelError(
            f"{path.name} needs what cannot be imported here ({one_line(exc)}): install its "
            "package, or stand in the folder that it is in"
        ) from exc
    except (Exception, SystemExit) as exc:  # whatever its author put into it
        raise ModelError(f"{path.name} cannot be unpickled: {one_line(exc)[:300]}") from exc


def _tensor(archive: zipfile.ZipFile, folder: str, described: Mapping[str, Any]) -> Tensor:
    meta = described["tensor_meta"]
    if described["use_pickle"] or meta["dtype"] not in DTYPES:
        raise ValueError(f"weight '{described['path_name']}' is a pickle or of an odd type")
    shape = tuple(int(size["as_int"]) for size in meta["sizes"])
    dtype, kind = DTYPES[meta["dtype"]]
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    place = folder + described["path_name"]
    if size > MAX_BYTES or archive.getinfo(place).file_size != size:
        raise ValueError(f"weight '{described['path_name']}' has another size than described")
    values = torch.from_numpy(np.frombuffer(archive.read(place), dtype).reshape(shape).copy())
    return values.view(kind)
