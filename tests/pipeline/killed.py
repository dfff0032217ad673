"""Runs that are killed at any moment, each in a process of its own that is forked from here.

A kill is counted in calls of functions, in whatever thread: so one may fall into the middle of a
write to the log, the outbox or the registry.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from selfheal_cli.config import NetworkSettings, RunConfig, SyntheticSettings
from selfheal_cli.errors import EventLogError
from selfheal_cli.events.archive import find_run
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import RunFinished
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.forked import in_fork
from tests.registry.chains import check_chain

CALLS = ("call", "c_call")
ACTIONS = ("heal", "rollback", "rollback-failed")


def settings(**changes: Any) -> RunConfig:
    """A run of a second, with two heals in it."""
    values: dict[str, Any] = {
        "source": SyntheticSettings(train_rows=400, test_rows=200),
        "network": NetworkSettings(epochs=1, shadow="plain"),
        "rules": ("V14 < -1.5 => 1",),
        "batches": 4,
        "batch_size": 50,
        "plots": False,
    }
    return RunConfig(**(values | changes))


def start(config: RunConfig) -> None:
    """A run in the working folder."""
    run(config, open_source(config), around())


def go_on(config: RunConfig) -> None:
    """Resume the run of the working folder; start it where nothing was recorded yet."""
    log = find_run("latest")
    if log is None or not log.stat().st_size or b"\n" not in log.read_bytes():
        start(config)
        return
    try:
        resume(log, around(), open_source)
    except EventLogError as exc:
        if "the registry has everything" not in str(exc):  # it was killed after its very end
            raise


def around() -> RunContext:
    return RunContext(MlflowRegistry(), lambda: datetime.now(UTC), "ann", follow_seconds=0)


def what_came_of_it() -> dict[str, Any]:
    """Versions, table, actions and champion; nothing that differs by run id or clock."""
    registry = MlflowRegistry()
    logs = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    (log,) = [path for path in logs if path.stat().st_size]  # killed before anything was recorded
    verify(log)
    events = list(read(log))
    (*_, end) = (event.as_dict() for event in events if isinstance(event, RunFinished))
    versions = registry.versions("fraud", limit=1000)
    assert check_chain(registry, "fraud") > 0
    return {
        "versions": [
            (v.version, v.phase, v.batch, v.sha256, v.tags.get("selfheal.parent"), dict(v.metrics))
            for v in versions
        ],
        "champion": registry.alias("fraud", "champion"),
        "table": end["stages"],
        "serving": end["serving_sha256"],
        "actions": [e.kind for e in events if e.kind in ACTIONS],
        "registered": sorted(e.version for e in events if e.kind == "registered"),
        "metrics.csv": Path("monitoring_export/metrics.csv").read_text(),
    }


def forked(
    work: Callable[[], None], *, kill_at: int | None = None, calls: Path | None = None
) -> int:
    """Do the work in a child; returns its exit code, negative for a signal."""
    counter = count(1)

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event in CALLS and next(counter) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched() -> None:
        if kill_at is not None or calls is not None:
            threading.setprofile(watch)
            sys.setprofile(watch)
        work()
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        if calls is not None:
            calls.write_text(str(next(counter)))

    return in_fork(watched)
