"""A segmented adapter as its parts: the one for all rows, and a small one of each segment, by hash.

A version stores the first, a manifest that names the others by their sha256, and of those the ones
that it is the first to have, in a pack; the rest lies in the packs of versions before. Torch is not
loaded: what is stored is stacked and sliced as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.records import digest
from selfheal_cli.segment_keys import as_codes, whole_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE, CODE = "whole.", "code"  # as `segmented` calls them
OWN = ("share", "theta")
MOST_PACKS = 16  # that a version may need; then it has all of its segments in one of its own


@dataclass(frozen=True, slots=True)
class SegmentManifest:
    """Which adapter each segment has: ``segments`` is by code, 12 hexadecimal digits, the sha256 of
    its bytes and the place in ``packs`` of the one that holds them; ``whole`` is the sha256 of the
    adapter for all rows.
    """

    whole: str
    segments: Mapping[str, tuple[str, int]]
    packs: tuple[str, ...]

    def as_bytes(self) -> bytes:
        """The file."""
        document = {"whole": self.whole, "packs": self.packs, "segments": self.segments}
        return json.dumps(document, sort_keys=True).encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> SegmentManifest:
        """From its file; raises `VersionCorrupt` for anything else."""
        try:
            document = json.loads(data)
            segments = {code: (str(one), int(at)) for code, (one, at) in
                        document["segments"].items()}  # fmt: skip
            return cls(str(document["whole"]), segments, tuple(document["packs"]))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise VersionCorrupt(f"{where}: the manifest of segments is none ({exc})") from exc


@dataclass(frozen=True, slots=True)
class Parts:
    """The bytes of the adapter for all rows, and those of each segment's by its code."""

    whole: bytes
    segments: Mapping[str, bytes]

    def manifest(self, before: SegmentManifest | None) -> tuple[SegmentManifest, bytes]:
        """Which adapters these are, those that ``before`` has too where it has them; and the pack
        of the others, empty where there is none. The pack is the last, and has no name yet.
        """
        known = {} if before is None else dict(before.segments.values())
        packs = () if before is None else before.packs
        hashes = {code: digest(data) for code, data in self.segments.items()}
        needed = sorted({known[one] for one in hashes.values() if one in known})
        if len(needed) >= MOST_PACKS:
            needed, known = [], {}
        place = {at: new for new, at in enumerate(needed)}
        fresh = {code: self.segments[code] for code, one in hashes.items() if one not in known}
        segments = {
            code: (one, place[known[one]] if one in known else len(needed))
            for code, one in hashes.items()
        }
        named = tuple(packs[at] for at in needed) + (("",) if fresh else ())
        stored = {code: np.frombuffer(data, dtype=np.uint8) for code, data in fresh.items()}
        return (
            SegmentManifest(digest(self.whole), segments, named),
            save(stored) if stored else b"",
        )


def split(adapter: bytes) -> Parts | None:
    """The parts of an adapter's bytes; None for one without segments."""
    arrays = _load(adapter, "adapter")
    if CODE not in arrays or not any(name.startswith(WHOLE) for name in arrays):
        return None
    whole = {name: value for name, value in arrays.items() if name.startswith(WHOLE)}
    segments = {
        f"{code:012x}": save({name: np.ascontiguousarray(arrays[name][at]) for name in OWN})
        for at, code in enumerate(whole_code(arrays[CODE]).tolist())
    }
    empty = {name: arrays[name][:0] for name in (CODE, *OWN)}
    return Parts(save({**whole, **empty}), segments)


def joined(
    whole: bytes, manifest: SegmentManifest, pack_of: Callable[[str], bytes], where: str
) -> bytes:
    """The adapter's bytes, as `split` got them; ``pack_of`` gives a pack by its name.

    Raises `VersionCorrupt` where a part is not the one that the manifest names.
    """
    _require(whole, manifest.whole, f"{where}: the adapter for all rows")
    packs = [_load(pack_of(name), f"{where}: pack {name}") for name in manifest.packs]
    segments: dict[str, bytes] = {}
    for code, (sha256, at) in manifest.segments.items():
        stored = packs[at].get(code) if 0 <= at < len(packs) else None
        segments[code] = b"" if stored is None else stored.tobytes()
        _require(segments[code], sha256, f"{where}: the adapter of segment {code}")
    return composed(Parts(whole, segments))


def composed(parts: Parts) -> bytes:
    """One adapter's bytes: the inverse of `split`."""
    arrays = _load(parts.whole, "adapter")
    if parts.segments:
        codes = sorted(parts.segments)
        held = [_load(parts.segments[code], f"segment {code}") for code in codes]
        arrays[CODE] = as_codes(np.array([int(code, 16) for code in codes], dtype=np.int64))
        arrays |= {name: np.stack([one[name] for one in held]) for name in OWN}
    return save(arrays)


def _require(data: bytes, sha256: str, what: str) -> None:
    if digest(data) != sha256:
        raise VersionCorrupt(
            f"{what} is not the one that was registered (sha256 {sha256[:12]}…): restore it from a "
            "backup or use another version"
        )


def _load(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    try:
        return load(data)
    except SafetensorError as exc:
        raise VersionCorrupt(f"{where}: not a safetensors file ({exc})") from exc
