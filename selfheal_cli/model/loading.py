"""Reads networks that others stored: safetensors, exported graphs, and pickles if allowed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model.cutting import ModuleSpec, build_module

# numbers of torch's export schema; state dictionaries of classifiers have no others
DTYPES: dict[int, np.dtype[Any]] = {5: np.dtype("<i8"), 7: np.dtype("<f4")}
CONFIG = "data/weights/model_weights_config.json"
MAX_BYTES = 8 << 30
PICKLE_RISK = (
    "it is a pickle, which runs whatever its author put into it when it is loaded; give "
    "--allow-pickle if you trust where it comes from, or name its class with --from and its "
    "weights as --weights FILE.safetensors"
)


def from_class(target: str, init: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """An instance of ``package.module:Class`` with the weights; raises `ModelError`."""
    try:
        spec = ModuleSpec(target=target, init=dict(init))
    except ValidationError as exc:
        raise ModelError(f"'{target}' names no class: package.module:Class is needed") from exc
    module = build_module(spec)
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit {target}: {one_line(exc)[:300]}") from exc
    return module


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

    Raises `ModelError` where the file holds something else.
    """
    module = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(module, nn.Module):
        raise ModelError(f"{path}: holds a {type(module).__name__}, not a torch.nn.Module")
    return module


def _tensor(archive: zipfile.ZipFile, folder: str, described: Mapping[str, Any]) -> Tensor:
    meta = described["tensor_meta"]
    if described["use_pickle"] or meta["dtype"] not in DTYPES:
        raise ValueError(f"weight '{described['path_name']}' is a pickle or of an odd type")
    shape = tuple(int(size["as_int"]) for size in meta["sizes"])
    dtype = DTYPES[meta["dtype"]]
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    place = folder + described["path_name"]
    if size > MAX_BYTES or archive.getinfo(place).file_size != size:
        raise ValueError(f"weight '{described['path_name']}' has another size than described")
    return torch.from_numpy(np.frombuffer(archive.read(place), dtype).reshape(shape).copy())
