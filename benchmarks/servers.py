"""Servers in processes of their own, and what asks them."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.file import spool_path

EAGER = "fidi_threshold: 0\nfidi_min_batches: 1\n"  # a policy that finds reason in every batch
START_SECONDS = 180
WRK = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{delay}
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format("RESULT %f %f %d %d\\n", latency:percentile(50), latency:percentile(99),
    summary.requests, bad))
end
"""


@dataclass(frozen=True)
class Server:
    """A server of ours that answers, and the folder that it works in."""

    url: str
    pid: int
    workspace: Path
    model: str

    @property
    def spool(self) -> Path:
        """The file that it shares with its healer."""
        return spool_path(self.model, self.workspace / "mlruns" / "selfheal")

    def healer(self) -> int | None:
        """The process beside it."""
        pid: int | None = get(f"{self.url}/health/details").get("healer_pid")
        return pid

    def standing(self) -> Mapping[str, Any]:
        """What the healer says."""
        with contextlib.closing(ControlChannel(self.spool)) as channel:
            return channel.status(HEALER)[0]

    def heals(self) -> int:
        """Heals so far."""
        return sum(self.standing().get("heals", {}).values())


@dataclass(frozen=True)
class Measured:
    """What wrk found: milliseconds, requests a second, requests answered and failed."""

    p50: float
    p99: float
    rate: float
    answered: int
    failed: int


@contextmanager
def selfheal_server(
    model: str, uri: str, known: Path, workspace: Path, *more: str
) -> Iterator[Server]:
    """``selfheal serve`` in ``workspace``, with a copy of what is ``known`` of the model's runs."""
    port = free_port()
    main = "from selfheal_cli.cli.main import main; main()"
    command = [sys.executable, "-c", main, "serve", model, "--port", str(port), *more]
    target = workspace / "mlruns" / "selfheal"
    if not target.exists():
        ignore = shutil.ignore_patterns("serving")
        shutil.copytree(known / "mlruns" / "selfheal", target, ignore=ignore)
    with process([*command, "--tracking-uri", uri], workspace, port) as child:
        yield Server(f"http://127.0.0.1:{port}", child.pid, workspace, model)


@contextmanager
def tracking_server(folder: Path, port: int = 0) -> Iterator[str]:
    """MLflow's own server on loopback, with a store in ``folder`` and the artifacts through it."""
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db",
               "--artifacts-destination", str(folder / "server")]  # fmt: skip
    # without processes for jobs, which nobody asks for here
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with process(command, folder, port, route="health", env=quick):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def process(
    command: Sequence[str],
    folder: Path,
    port: int,
    route: str = "ping",
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from its first answer on. What it says stands in ``server.log``.

    It has a group of its own and not a session of its own: Linux shares the cores out by sessions
    first, so that the caller and a healer in idle time would be of equal weight.
    """
    scripts = Path(uvicorn.__file__).parents[4] / "bin"  # MLflow calls uvicorn by its name
    path = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **path, **(env or {})}, stdout=log, stderr=log,
            process_group=0,
        )  # fmt: skip
    try:
        _await(f"http://127.0.0.1:{port}/{route}", command, server)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(120)


def _await(url: str, command: Sequence[str], server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"{' '.join(command)} ended with {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {START_SECONDS} s")


def body_of(url: str, model: str, rows: int) -> bytes:
    """A request of so many rows of the model's columns."""
    columns = [one["name"] for one in get(f"{url}/v2/models/{model}")["inputs"]]
    data = [[((7 * i + 3 * j) % 97) / 23 - 2 for j in range(len(columns))] for i in range(rows)]
    return json.dumps({"dataframe_split": {"columns": columns, "data": data}}).encode()


def ask(url: str, body: bytes, seconds: float, *, callers: int = 1, pause: float = 0.0) -> Measured:
    """wrk with one body, each caller pausing so many milliseconds after an answer."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not there: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        file, script = Path(folder, "body.json"), Path(folder, "wrk.lua")
        file.write_bytes(body)
        delay = f"delay = function() return {pause:g} end" if pause else ""
        script.write_text(WRK.replace("{body}", str(file)).replace("{delay}", delay))
        command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds:g}s", "-s", str(script)]
        done = subprocess.run(
            [*command, f"{url}/invocations"], capture_output=True, text=True, check=True
        )
    match = re.search(r"RESULT (\S+) (\S+) (\d+) (\d+)", done.stdout)
    if match is None:
        raise SystemExit(done.stdout + done.stderr)
    p50, p99, count, failed = map(float, match.groups())
    return Measured(p50 / 1000, p99 / 1000, count / seconds, int(count), int(failed))


@contextmanager
def every(seconds: float, step: Callable[[], None]) -> Iterator[None]:
    """Do a step again and again in a thread."""
    stop, broken = threading.Event(), list[Exception]()

    def go() -> None:
        try:
            while not stop.wait(seconds):
                step()
        except Exception as exc:  # whatever it is, nothing was shown
            broken.append(exc)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if broken:
        raise broken[0]


def get(url: str) -> dict[str, Any]:
    """An answer in JSON."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        document: dict[str, Any] = json.load(answer)
        return document


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """An answer's body; raises `urllib.error.HTTPError` for a refusal."""
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        read: bytes = answer.read()
        return read


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
