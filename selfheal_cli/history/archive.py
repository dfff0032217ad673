"""Where the event logs of runs are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from selfheal_cli.config import WORKSPACE
from selfheal_cli.errors import EventLogError
from selfheal_cli.history.event_log import read

LOG_NAME = "events.jsonl"
LATEST = "latest"


def run_folder(run_id: str, workspace: Path = WORKSPACE) -> Path:
    """Where a run's working files are."""
    return workspace / "runs" / run_id


def find_run(name: str, workspace: Path = WORKSPACE) -> Path | None:
    """The log of a run by id, by the beginning of its id, or ``latest``; None if not here.

    Raises `EventLogError` where several runs begin so.
    """
    logs = list((workspace / "runs").glob(f"*/{LOG_NAME}"))
    if name == LATEST:
        return max(logs, key=lambda path: path.stat().st_mtime_ns, default=None)
    found = [path for path in logs if path.parent.name == name] or [
        path for path in logs if path.parent.name.startswith(name)
    ]
    if len(found) > 1:
        ids = ", ".join(sorted(path.parent.name for path in found))
        raise EventLogError(f"several runs begin with '{name}': {ids}; give more of the id")
    return found[0] if found else None


def logs_of(model: str, workspace: Path = WORKSPACE) -> Iterator[Path]:
    """Logs of the model's runs in this folder."""
    for log in sorted((workspace / "runs").glob(f"*/{LOG_NAME}")):
        first = next(read(log), None)
        if first is not None and first.data.get("model") == model:
            yield log
