"""Where the event logs of runs are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.workspace import WORKSPACE

LOG_NAME = "events.jsonl"
LATEST = "latest"
ALIVE_LOCK = "alive.lock"  # held as long as a run's process lives; the system lets go of it


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
    matches = [path for path in logs if path.parent.name == name] or [
        path for path in logs if path.parent.name.startswith(name)
    ]
    if len(matches) > 1:
        ids = ", ".join(sorted(path.parent.name for path in matches))
        raise EventLogError(f"several runs begin with '{name}': {ids}; give more of the id")
    return matches[0] if matches else None


def all_logs(workspace: Path = WORKSPACE) -> list[Path]:
    """Logs of every run in this folder."""
    return sorted((workspace / "runs").glob(f"*/{LOG_NAME}"))


def model_of(log: Path) -> str:
    """The model that a run heals, by the log's first line; empty where nothing was recorded."""
    first = next(read(log), None)
    return first.model if isinstance(first, RunStarted) else ""


def logs_of(model: str, workspace: Path = WORKSPACE) -> Iterator[Path]:
    """Logs of the model's runs in this folder."""
    return (log for log in all_logs(workspace) if model_of(log) == model)


def is_running(folder: Path) -> bool:
    """Whether a process goes through the run of this folder."""
    lock = FileLock(folder / ALIVE_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
