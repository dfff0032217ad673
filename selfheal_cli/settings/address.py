"""The kind of a source, where only its address is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from selfheal_cli.config_sources import NDJSON_SUFFIXES
from selfheal_cli.settings.layers import Layer, beside, single
from selfheal_cli.settings.schema import KINDS, SYNTHETIC

STDIN = Path("-")
ADDRESSES = {"url": "sql", "bootstrap": "kafka", "provider": "own"}  # keys that one kind alone has


def source_at(path: Path) -> dict[str, Any]:
    """The keys of a source that is a file, a folder or - for standard input."""
    if path == STDIN:
        return {"kind": "stdin"}
    with suppress(OSError):  # a name that is too long for a folder is for whoever opens it
        if path.is_dir():
            return {"kind": "folder", "path": path}
    kind = "ndjson" if path.suffix.lower() in NDJSON_SUFFIXES else "table"
    return {"kind": kind, "path": path}


def with_kind(layer: Layer, below: Layer) -> Layer:
    """The layer with the kind that its address tells, unless it, or what stands below, says one
    that has such an address. A file says its kind itself.
    """
    source = layer.get("source")
    if not isinstance(source, Mapping) or "kind" in source:
        return layer
    name = next((one for one in (*ADDRESSES, "path") if one in source), None)
    if name is None or layer.origin(("source", name)).kind == "file":
        return layer
    kind = below.get("source", "kind") or SYNTHETIC
    if not isinstance(kind, str) or kind not in KINDS or name in KINDS[kind].model_fields:
        return layer
    kind = ADDRESSES.get(name) or source_at(Path(str(source[name])))["kind"]
    return beside([layer, single(("source", "kind"), kind, layer.origin(("source", name)))])
