"""Latency over HTTP: the server with healing off and on, and MLflow's own server, one version.

The servers stand beside each other on loopback for the whole run, and take turns: a round asks
each of them for `--seconds` with wrk (Debian: apt-get install wrk), first with one row a request,
then with a hundred, the caller pausing `--pause` milliseconds after each answer. Only one is asked
at a time. Beside that, ten times a second a batch of 100 rows is asked for and, of our servers,
labelled: it disturbs a server with healing off as much as one with healing on. "Heals back to back"
has a policy that finds reason to heal in every batch; its healer is stopped (SIGSTOP) while the
others are asked, so that they have the machine for themselves. "Other core busy" is the control: a
server with healing off, beside a process that computes in the same idle time and has nothing to do
with it. Needs a folder in which ``selfheal run`` has registered the model.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from servers import (
    EAGER,
    Measured,
    Server,
    ask,
    body_of,
    every,
    free_port,
    post,
    process,
    selfheal_server,
)

OFF, ON, MLFLOW = "selfheal, healing off", "selfheal, heals back to back", "mlflow models serve"
BUSY = "selfheal, healing off, other core busy"
VARIANTS = (OFF, BUSY, ON, MLFLOW)
COMPUTE = """
import os, numpy
if hasattr(os, "SCHED_IDLE"):
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
x = numpy.ones((100, 64))
while True:
    x @ x.T
"""


def main() -> None:
    """Start all three, take turns, print medians and ratios."""
    options = _options()
    measurements: dict[tuple[str, int], list[Measured]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "eager.yaml").write_text(EAGER)
        off = _selfheal(stack, options, "--no-heal")
        on = _selfheal(stack, options, "--policy", str(folder / "eager.yaml"))
        urls = {OFF: off.url, BUSY: off.url, ON: on.url}
        urls[MLFLOW] = stack.enter_context(_mlflow(options))
        bodies = {rows: body_of(off.url, options.model, rows) for rows in (1, 100)}
        for url in urls.values():
            for body in bodies.values():
                ask(url, body, 1.0)  # warm
        heals = on.heals()
        for _ in range(options.rounds):
            for rows, body in bodies.items():
                for name in VARIANTS:
                    with ExitStack() as turn:
                        if name != ON:
                            turn.enter_context(_asleep(on))
                        if name == BUSY:
                            turn.enter_context(_busy())
                        turn.enter_context(_batches(urls[name], bodies[100], labels=name != MLFLOW))
                        measured = ask(urls[name], body, options.seconds, pause=options.pause)
                    measurements.setdefault((name, rows), []).append(measured)
        heals = on.heals() - heals
    _print(measurements, heals, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where 'selfheal run' was run")
    parser.add_argument("--model", default="fraud")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pause", type=float, default=2.0, help="milliseconds after an answer")
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    return given


def _selfheal(stack: ExitStack, options: argparse.Namespace, *more: str) -> Server:
    workspace = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    uri = f"sqlite:///{options.folder / 'mlflow.db'}"
    serving = selfheal_server(options.model, uri, options.folder, workspace, *more)
    return stack.enter_context(serving)


@contextmanager
def _mlflow(options: argparse.Namespace) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", f"models:/{options.model}@champion", "--port", str(port)]
    with process(command, options.folder, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _batches(url: str, body: bytes, *, labels: bool) -> Iterator[None]:
    """Ten batches a second and their labels: a healer is never without work."""
    numbers = count(1)

    def send() -> None:
        number, name = next(numbers), f"labelled-{time.time_ns()}"
        post(f"{url}/invocations", body, {"x-request-id": name})
        if labels:
            classes = ["fraud" if (number + place) % 7 == 0 else "normal" for place in range(100)]
            told = {"labels": [{"request_id": name, "labels": classes}]}
            post(f"{url}/feedback", json.dumps(told).encode())

    with every(0.1, send):
        yield


@contextmanager
def _busy() -> Iterator[None]:
    """Beside a process that computes."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", COMPUTE], env=os.environ | threads) as computing:
        try:
            yield
        finally:
            computing.kill()


@contextmanager
def _asleep(server: Server) -> Iterator[None]:
    """Without its healer."""
    pid = server.healer()
    if pid is not None:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)


def _print(
    measurements: dict[tuple[str, int], list[Measured]], heals: int, options: argparse.Namespace
) -> None:
    table = Table(title=f"Medians of {options.rounds} rounds of {options.seconds:g} s, 1 caller")
    for column in ("rows", "server", "p50 ms", "p99 ms", "requests/s", "p50 / off", "p99 / off",
                   "failed"):  # fmt: skip
        table.add_column(column, justify="left" if column == "server" else "right")
    for rows in (1, 100):
        for name in VARIANTS:
            turns, base = measurements[name, rows], measurements[OFF, rows]
            ratios = [
                median(
                    getattr(a, what) / getattr(b, what) for a, b in zip(turns, base, strict=True)
                )
                for what in ("p50", "p99")
            ]
            table.add_row(
                str(rows), name, f"{median(one.p50 for one in turns):.2f}",
                f"{median(one.p99 for one in turns):.2f}",
                f"{median(one.rate for one in turns):.0f}",
                *(f"{ratio:.2f}" for ratio in ratios), str(sum(one.failed for one in turns)),
            )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    console.print(f"heals while it was measured: {heals}")


if __name__ == "__main__":
    main()
