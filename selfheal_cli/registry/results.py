"""What came of the jobs that a run waits to hear of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfheal_cli.records import AliasMove


@dataclass(frozen=True, slots=True)
class Registered:
    """A snapshot became a version; ``manifest`` is the hash of the version's manifest.

    It is empty where 0.1.0 registered the version, which knew of no manifests.
    """

    snapshot: str
    version: int
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """An alias was not moved, since somebody else had moved it."""

    key: str
    alias: str
    reason: str


Result = Registered | AliasMove | Refused


def result_of(kind: str, found: Mapping[str, Any]) -> Result | None:
    """The result of a job of this kind; None for those that nobody waits to hear of."""
    if kind == "version":
        return Registered(**found)
    if kind == "move":
        if "refused" in found:
            return Refused(found["key"], found["alias"], found["refused"])
        return AliasMove(**found)
    return None
