"""What a version is at its birth: each file, tag and figure that decides something of it.

The manifest is a file of the version. Its hash goes into the log of the run that made it, so that
none of it can be changed without the log's chain telling of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.records import digest

MANIFEST_FILE = "manifest.json"
DESCRIPTION_FILE = "MLmodel"
OF_A_DOWNLOAD = "registered_model_meta"  # MLflow writes it beside what it fetches
FORMAT = 1
# A line of MLflow's description that each version has of its own: an id or a time and nothing else,
# since whatever else stands there may change what is loaded.
OWN_LINE = re.compile(
    rb"^(?:model_id|model_uuid|utc_time_created): (?:[\w-]+|'[\w:. -]*')\n", re.MULTILINE | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files`` are sha256 by name, that of MLflow's description without its ids and times."""

    model: str
    snapshot: str
    files: Mapping[str, str]
    tags: Mapping[str, str]
    figures: Mapping[str, float]

    def as_bytes(self) -> bytes:
        """The file."""
        document = {"format": FORMAT, **asdict(self)}
        return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def file_hash(name: str, data: bytes) -> str:
    """A file's hash as a manifest has it."""
    return digest(OWN_LINE.sub(b"", data) if name == DESCRIPTION_FILE else data)


def hashes_of(folder: Path) -> dict[str, str]:
    """Every file of a version by its name, the manifest itself left out."""
    return {
        name: file_hash(name, data)
        for name, data in files_in(folder).items()
        if name != MANIFEST_FILE
    }


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder and of those in it, by their path from there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if path != folder / OF_A_DOWNLOAD]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def parse_manifest(data: bytes, where: str) -> Manifest:
    """A manifest from its file; raises `VersionCorrupt` for anything else."""
    try:
        document = json.loads(data)
        if document.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}: a later selfheal made it")
        return Manifest(**document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise VersionCorrupt(f"{where}: {MANIFEST_FILE} is not a manifest ({exc})") from exc
