"""The bytes of an adapter and of a base, their hashes, and networks from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save as save_arrays
from safetensors.torch import load, save
from torch import Tensor

from selfheal_cli.errors import VersionCorrupt, one_line
from selfheal_cli.installed import part_of, require_recorded
from selfheal_cli.kinds import BUILT_IN
from selfheal_cli.metrics import classify
from selfheal_cli.model.adapters import MIXTURE
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.mixture import BYTES
from selfheal_cli.model.network import SelfHealingNetwork, Weights, rebuild, unshared
from selfheal_cli.model.segmented import WHOLE
from selfheal_cli.model.stored import require_sound
from selfheal_cli.records import Base, digest

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


ANCHOR = "anchor."  # prefix of the training statistics that a base holds beside its weights
ESTIMATOR = "estimator"  # among these: the bytes of a model that is no torch network
PROBE = "probe.x"  # rows that every version decides on, so that a loaded one can be checked
PROBE_ROWS = 256


def estimator_tensors(data: bytes | None) -> dict[str, Tensor]:
    """The bytes of a model that is no torch network, as a base stores them; nothing for None."""
    return {} if data is None else {ESTIMATOR: torch.frombuffer(bytearray(data), dtype=torch.uint8)}


@dataclass(frozen=True, slots=True)
class Packed:
    """An adapter's bytes with their sha256."""

    data: bytes
    sha256: str

    @classmethod
    def of(cls, weights: Weights) -> Packed:
        """Pack and hash."""
        data = pack(weights)
        return cls(data, digest(data))


def pack(weights: Weights) -> bytes:
    """Tensors to safetensors bytes; the same tensors give the same bytes.

    It goes by way of numpy where numpy has the type: the same bytes in a fifth of the time.
    """
    whole, arrays = {}, {}
    for name, value in unshared(weights).items():
        whole[name] = value.detach().cpu().contiguous()
        if value.dtype in (torch.float32, torch.float64, torch.uint8):
            arrays[name] = whole[name].numpy()
    return save_arrays(arrays) if len(arrays) == len(whole) else save(whole)


def unpack(data: bytes, *, sha256: str, where: str) -> dict[str, Tensor]:
    """Safetensors bytes to tensors; raises `VersionCorrupt` unless their hash is ``sha256``."""
    require_sound(data, sha256=sha256, where=where)
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as exc:
        raise VersionCorrupt(f"{where}: not a safetensors file ({exc})") from exc
    return tensors


def make_base(
    network: SelfHealingNetwork,
    anchor: Mapping[str, Tensor],
    document: Mapping[str, Any],
    probe: FloatArray | None = None,
) -> Base:
    """The network's frozen part to store, with the training statistics of the ``anchor``.

    Of the ``probe`` rows (n, inputs) at most `PROBE_ROWS` are kept.
    """
    architecture = network.architecture.as_dict()
    adapter = network.architecture.adapter.partition(":")[0]
    brought = [] if adapter in BUILT_IN["adapter"] else [part_of("adapter", adapter)]
    parts = {"parts": [one.as_dict() for one in brought if one.distribution]}
    whole = {**document, "network": architecture} | (parts if parts["parts"] else {})
    text = json.dumps(whole, sort_keys=True, indent=1)
    stored = {f"{ANCHOR}{name}": value for name, value in anchor.items()}
    if probe is not None:
        stored[PROBE] = torch.from_numpy(probe[:PROBE_ROWS].copy())
    return Base(pack({**network.base_weights(), **stored}), text)


def probe_rows(base: Base) -> FloatArray | None:
    """The rows that every version on a base decides on; None where the base has none."""
    probe = load(base.weights).get(PROBE)
    return None if probe is None else probe.numpy()


def probe_decisions(
    base: Base, network: SelfHealingNetwork, threshold: float, *, where: str
) -> str:
    """A network's decisions on its base's probe rows, in hex; empty without such rows.

    Raises `VersionCorrupt` where a probability is not finite.
    """
    rows = probe_rows(base)
    if rows is None:
        return ""
    probabilities = network.predict(rows)
    if not bool(np.isfinite(probabilities).all()):
        raise VersionCorrupt(f"{where}: its probabilities are not finite; use another version")
    return classify(probabilities, threshold).tobytes().hex()


def assemble(base: Base, adapter: Weights, *, where: str) -> SelfHealingNetwork:
    """A frozen network from a stored base and adapter; raises `VersionCorrupt` if they differ, and
    `ConfigurationError` where the package that brought the adapter is not here.
    """
    document = base.describe()
    _require_types(document["network"], adapter, where)
    stored = unpack(base.weights, sha256=digest(base.weights), where=where)
    weights = {
        name: value for name, value in stored.items() if not name.startswith((ANCHOR, PROBE))
    }
    require_recorded(document.get("parts", ()))
    try:
        return rebuild(Architecture(**document["network"]), weights, adapter)
    except (RuntimeError, TypeError) as exc:
        reason = one_line(exc)
        raise VersionCorrupt(f"{where}: the adapter does not fit its base ({reason})") from exc


def _require_types(network: Mapping[str, Any], adapter: Weights, where: str) -> None:
    """Raise `VersionCorrupt` for what is not float32, nor the bytes of a text."""
    texts: tuple[str, ...] = BYTES if network.get("adapter") == MIXTURE else ()
    texts = tuple(f"{WHOLE}{name}" for name in texts) if network.get("directions") else texts
    for name, value in adapter.items():
        wanted = torch.uint8 if name in texts else torch.float32
        if value.dtype != wanted:
            raise VersionCorrupt(f"{where}: '{name}' is {value.dtype}, not {wanted}")
