"""Three replicas of a server on one folder: how soon does another one heal when a replica dies?

The server whose healer heals is killed together with it (SIGKILL), while the others are asked and
told labels; then the next one. Exit code 1 unless another healed within `--within` seconds, no
request to a living server failed, each row that was answered is in the log exactly once, and
``selfheal audit`` finds nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from servers import Server, body_of, every, selfheal_server
from serving_load import MODEL, Beside, Caller, drain, every_row_once, registered, require, selfheal

PATIENCE_SECONDS = 60.0
T = TypeVar("T")


def main() -> None:
    """Kill two of three, then look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within", type=float, default=10.0, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known, work, uri = registered(Path(folder))
        with ExitStack() as stack:
            replicas = [
                stack.enter_context(
                    selfheal_server(MODEL, uri, known, work, "--policy", "eager.yaml")
                )
                for _ in range(3)
            ]
            checks = [*_die(replicas, 1, options.within), *_die(replicas, 2, options.within)]
            drain(replicas[0])
        checks += [
            every_row_once(work),
            require("exit code of audit", selfheal(work, "audit", uri=uri), 0),
        ]
    sys.exit(0 if all(checks) else 1)


def _die(replicas: list[Server], number: int, within: float) -> Iterator[bool]:
    """The one that heals is killed with its healer; how soon does another heal?"""
    dying = until(lambda: next((one for one in replicas if one.healer() == _healer(one)), None))
    replicas.remove(dying)
    asked, seen = replicas[0], Beside(prefix=f"asked-{number}")
    with every(0.1, Caller(asked, body_of(asked.url, MODEL, 100), seen).ask):
        before = until(lambda: _healer(asked) if asked.heals() else None)
        for pid in (dying.pid, before):
            os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        until(lambda: _healer(asked) not in (None, before) and asked.heals())
        took = time.monotonic() - begun
        time.sleep(2)
    what = f"seconds from the death of replica {number} to a heal by another"
    yield require(what, round(took, 2), within)
    failed = len(seen.failures)
    yield require("requests to the living that failed", failed, 0, seen.failures[:3])


def _healer(server: Server) -> int | None:
    """The process that holds the lease."""
    standing = server.standing()
    return standing["pid"] if standing.get("run_id") and standing.get("batch") is not None else None


def until(
    holds: Callable[[], T | None], seconds: float = PATIENCE_SECONDS, look: float = 0.02
) -> T:
    """What is true in other processes, once it is."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() > end:
            raise SystemExit(f"nothing came of it within {seconds:g} s")
        time.sleep(look)
    return value


if __name__ == "__main__":
    main()
