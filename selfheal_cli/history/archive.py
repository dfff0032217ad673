"""Where event logs are kept: one for each run, and one for each model's operations by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from selfheal_cli.config import WORKSPACE
from selfheal_cli.errors import EventLogError
from selfheal_cli.history.event_log import Clock, EventLog, read
from selfheal_cli.history.events import ACTIONS, Event, Kind
from selfheal_cli.records import AliasMove

LOG_NAME = "events.jsonl"
LATEST = "latest"
LOCK_SECONDS = 30


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


def record_operation(move: AliasMove, clock: Clock, workspace: Path = WORKSPACE) -> None:
    """Note an alias that somebody moved by hand."""
    path = _operations(move.model, workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        log = EventLog(path, clock)
        log.append(Kind.ALIAS_MOVED, move.as_dict())
        log.close()


def model_history(model: str, workspace: Path = WORKSPACE) -> list[Event]:
    """Heals, rollbacks and alias moves of a model, from all its runs and operations, by time."""
    found = [
        event for log in _logs_of(model, workspace) for event in read(log) if event.kind in ACTIONS
    ]
    return sorted(found, key=lambda event: event.at)


def run_history(log: Path) -> list[Event]:
    """Heals, rollbacks and alias moves of one run, in order."""
    return [event for event in read(log) if event.kind in ACTIONS]


def _logs_of(model: str, workspace: Path) -> Iterator[Path]:
    for log in sorted((workspace / "runs").glob(f"*/{LOG_NAME}")):
        first = next(read(log), None)
        if first is not None and first.data.get("model") == model:
            yield log
    operations = _operations(model, workspace)
    if operations.exists():
        yield operations


def _operations(model: str, workspace: Path) -> Path:
    return workspace / "models" / model / LOG_NAME
