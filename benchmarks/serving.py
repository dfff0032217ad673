"""Latency over HTTP: the server with healing off and on, and MLflow's own server, one version.

The servers stand beside each other on loopback for the whole run, and take turns: a round asks
each of them for `--seconds` with wrk (Debian: apt-get install wrk), first with one row a request,
then with a hundred, the caller pausing `--pause` milliseconds after each answer. Only one is asked
at a time. Beside that, ten times a second a batch of 100 rows is asked for and, of our servers,
labelled: it disturbs a server with healing off as much as one with healing on. "Heals back to back"
has a policy that finds reason to heal in every batch; its healer is stopped (SIGSTOP) while the
others are asked, so that they have the machine for themselves. Needs a folder in which
``selfheal run`` has registered the model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvicorn
from rich.console import Console
from rich.table import Table

from selfheal_cli.serve.standing import HEALER
from selfheal_cli.spool.board import Board
from selfheal_cli.spool.file import spool_path

OFF, ON, MLFLOW = "selfheal, healing off", "selfheal, heals back to back", "mlflow models serve"
EAGER = "fidi_threshold: 0\nfidi_min_batches: 1\n"
START_SECONDS = 180
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
delay = function() return {pause} end
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format("RESULT %f %f %d %d\\n", latency:percentile(50), latency:percentile(99),
    summary.requests, bad))
end
"""


@dataclass(frozen=True)
class Measured:
    """A turn: milliseconds, requests a second, requests that failed."""

    p50: float
    p99: float
    rate: float
    failed: int


@dataclass(frozen=True)
class Server:
    """A server that answers, and its healer where it has one."""

    url: str
    board: Path

    def healer(self) -> int | None:
        """The process beside it."""
        return _get(f"{self.url}/health/details").get("healer_pid")


def main() -> None:
    """Start all three, take turns, print medians and ratios."""
    options = _options()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not there: apt-get install wrk")
    found: dict[tuple[str, int], list[Measured]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        policy = folder / "eager.yaml"
        policy.write_text(EAGER)
        servers = {
            OFF: stack.enter_context(_selfheal(options, "--no-heal")),
            ON: stack.enter_context(_selfheal(options, "--policy", str(policy))),
            MLFLOW: stack.enter_context(_mlflow(options)),
        }
        bodies = {rows: _body(folder, servers[OFF].url, options, rows) for rows in (1, 100)}
        for server in servers.values():
            for body in bodies.values():
                _ask(server.url, body, 1.0)  # warm
        heals = _heals(servers[ON].board)
        for _ in range(options.rounds):
            for rows, body in bodies.items():
                for name, server in servers.items():
                    with ExitStack() as turn:
                        if name != ON:
                            turn.enter_context(_asleep(servers[ON]))
                        turn.enter_context(_batches(server, bodies[100], labels=name != MLFLOW))
                        measured = _ask(server.url, body, options.seconds)
                    found.setdefault((name, rows), []).append(measured)
        heals = _heals(servers[ON].board) - heals
    _print(found, heals, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where 'selfheal run' was run")
    parser.add_argument("--model", default="fraud")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pause", type=float, default=5.0, help="milliseconds after an answer")
    found = parser.parse_args()
    found.folder = found.folder.resolve()
    return found


@contextmanager
def _selfheal(options: argparse.Namespace, *more: str) -> Iterator[Server]:
    port = _free_port()
    main = "from selfheal_cli.cli.main import main; main()"
    command = [sys.executable, "-c", main, "serve", options.model, "--port", str(port), *more]
    with tempfile.TemporaryDirectory() as workspace:
        uri = f"sqlite:///{options.folder / 'mlflow.db'}"
        shutil.copytree(
            options.folder / "mlruns" / "selfheal", Path(workspace, "mlruns", "selfheal"),
            ignore=shutil.ignore_patterns("serving"),
        )  # fmt: skip
        with _process([*command, "--tracking-uri", uri], workspace, port):
            board = spool_path(options.model, Path(workspace, "mlruns", "selfheal"))
            yield Server(f"http://127.0.0.1:{port}", board)


@contextmanager
def _mlflow(options: argparse.Namespace) -> Iterator[Server]:
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", f"models:/{options.model}@champion", "--port", str(port)]
    with _process(command, str(options.folder), port):
        yield Server(f"http://127.0.0.1:{port}", options.folder)


@contextmanager
def _process(command: list[str], folder: str, port: int) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    scripts = Path(uvicorn.__file__).parents[4] / "bin"  # MLflow calls uvicorn by its name
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=quiet, stderr=quiet, process_group=0
    )
    try:
        _await(f"http://127.0.0.1:{port}/ping", command, process)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _await(url: str, command: list[str], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{command[-1]} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {START_SECONDS} s")


def _body(folder: Path, url: str, options: argparse.Namespace, rows: int) -> Path:
    columns = [one["name"] for one in _get(f"{url}/v2/models/{options.model}")["inputs"]]
    data = [[((7 * i + 3 * j) % 97) / 23 - 2 for j in range(len(columns))] for i in range(rows)]
    body, script = folder / f"{rows}.json", folder / f"{rows}.lua"
    body.write_text(json.dumps({"dataframe_split": {"columns": columns, "data": data}}))
    pause = f"{options.pause:g}"
    script.write_text(SCRIPT.replace("{body}", str(body)).replace("{pause}", pause))
    return script


def _ask(url: str, script: Path, seconds: float) -> Measured:
    command = ["wrk", "-t1", "-c1", f"-d{seconds:g}s", "-s", str(script), f"{url}/invocations"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\S+) (\S+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise SystemExit(done.stdout + done.stderr)
    p50, p99, count, failed = map(float, found.groups())
    return Measured(p50 / 1000, p99 / 1000, count / seconds, int(failed))


@contextmanager
def _batches(server: Server, script: Path, *, labels: bool) -> Iterator[None]:
    """Ten batches a second and their labels: a healer is never without work."""
    stop = threading.Event()
    body = script.with_suffix(".json").read_bytes()

    def send() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            name = f"labelled-{time.time_ns()}"
            _post(f"{server.url}/invocations", body, {"x-request-id": name})
            if not labels:
                continue
            classes = ["fraud" if (number + place) % 7 == 0 else "normal" for place in range(100)]
            told = {"labels": [{"request_id": name, "labels": classes}]}
            _post(f"{server.url}/feedback", json.dumps(told).encode(), {})

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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


def _heals(board: Path) -> int:
    """Heals so far, as the healer says on its board."""
    found, _ = Board(board).told(HEALER)
    return sum(found.get("heals", {}).values())


def _print(
    found: dict[tuple[str, int], list[Measured]], heals: int, options: argparse.Namespace
) -> None:
    table = Table(title=f"Medians of {options.rounds} rounds of {options.seconds:g} s, 1 caller")
    for column in ("rows", "server", "p50 ms", "p99 ms", "requests/s", "p50 / off", "p99 / off",
                   "failed"):  # fmt: skip
        table.add_column(column, justify="left" if column == "server" else "right")
    for rows in (1, 100):
        for name in (OFF, ON, MLFLOW):
            turns, base = found[name, rows], found[OFF, rows]
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


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    headers = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answer.read()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
