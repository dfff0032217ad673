"""Weights as bytes that were stored; what can be seen of them without loading torch."""

from __future__ import annotations

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.records import digest

MAX_BYTES = 1 << 30


def require_sound(data: bytes, *, sha256: str, where: str) -> None:
    """Raise `VersionCorrupt` unless the bytes' hash is ``sha256``."""
    if len(data) > MAX_BYTES:
        raise VersionCorrupt(f"{where}: {len(data)} bytes; more than any adapter has")
    actual = digest(data)
    if actual != sha256:
        raise VersionCorrupt(
            f"{where}: its sha256 is {actual[:12]}…, recorded was {sha256[:12]}…; the file was "
            "changed after it was registered: restore it from a backup or use another version"
        )


def require_weights(data: bytes, *, sha256: str, where: str) -> None:
    """Raise `VersionCorrupt` unless the bytes have their hash and hold finite weights."""
    require_sound(data, sha256=sha256, where=where)
    try:
        weights = load(data)
    except SafetensorError as exc:
        raise VersionCorrupt(f"{where}: not a safetensors file ({exc})") from exc
    broken = [name for name, value in weights.items() if not bool(np.isfinite(value).all())]
    if broken:
        raise VersionCorrupt(f"{where}: weight '{broken[0]}' is not finite; use another version")
