"""A server whose surroundings fail one after the other, under load: who else notices?

The model lies in a tracking server of MLflow's, the working folder on a small disk of its own where
one can be mounted (Linux, as root; left out otherwise, which is said). All the while wrk asks for
one row at a time, and requests of 100 rows are labelled. In turn: the registry goes away and comes
back; the healer is killed; requests are malformed; callers send a byte a second; a body has 100 MB;
labels come for rows that nobody saw; the disk is full, and has room again.

Exit code 1 unless nobody else's request failed, every fault shows in its counter, each row that was
answered is in the log once (but those that were counted as not recorded), and `selfheal audit`
finds nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

from servers import (
    EAGER,
    Measured,
    Server,
    ask,
    body_of,
    every,
    free_port,
    get,
    post,
    selfheal_server,
    tracking_server,
)
from serving_load import MODEL, Beside, Caller, drain, every_row_once, reached, require, selfheal

DISK = "1g"
FULL_SECONDS = 6.0
AWAY_SECONDS = 10.0


class Registry:
    """A tracking server that can go and come back at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._stack = ExitStack()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """From its first answer on."""
        self._stack.enter_context(tracking_server(self._folder, self._port))

    def stop(self) -> None:
        """Gone."""
        self._stack.close()


def main() -> None:
    """Fail one thing after the other, then look."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        known, work = folder / "run", folder / "work"
        for made in (known, work, folder / "registry"):
            made.mkdir()
        mounted = stack.enter_context(disk(work))
        registry = Registry(folder / "registry")
        stack.callback(registry.stop)
        registry.start()
        selfheal(known, "run", uri=registry.uri)
        (work / "eager.yaml").write_text(EAGER)
        seen, checks = Beside(), []
        policy = ("--policy", "eager.yaml", "--timeout", "5")
        with selfheal_server(MODEL, registry.uri, known, work, *policy) as server:
            one, hundred = (body_of(server.url, MODEL, rows) for rows in (1, 100))
            measurements: list[Measured] = []
            with load(server, one, measurements), every(1.0, Caller(server, hundred, seen).ask):
                checks += [
                    *registry_away(server, registry),
                    *healer_killed(server),
                    *bad_requests(server, hundred),
                    *([] if not mounted else disk_full(server, work)),
                ]
            drain(server)
            lost = int(counter(server, "selfheal_rows_unrecorded_total"))
        answered = sum(one.answered for one in measurements)
        failed = sum(one.failed for one in measurements)
        print(f"{answered} requests of one row, {len(seen.answers)} of a hundred answered")
        checks += [
            require("others' requests that failed", failed + len(seen.failures), 0, seen.failures),
            every_row_once(work),
            require("exit code of audit", selfheal(work, "audit", uri=registry.uri), 0),
        ]
        print(f"    labels were told to come again later {seen.later} times")
        print(f"    {lost} rows counted as not recorded")
    sys.exit(0 if all(checks) else 1)


@contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """A small disk at a folder; False where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if not mounted or subprocess.run(command, check=False).returncode:
        print("NOT SHOWN: a full disk (no disk can be mounted here)")
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


@contextmanager
def load(server: Server, body: bytes, measurements: list[Measured]) -> Iterator[None]:
    """Ask all the time, some seconds at once."""
    with every(0.0, lambda: measurements.append(ask(server.url, body, 2.0, callers=4, pause=10))):
        yield


def counter(server: Server, name: str, label: str = "") -> float:
    """A figure of ``/metrics``: those lines together whose labels have ``label`` in them."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:  # noqa: S310
        text = answer.read().decode()
    lines = re.findall(rf"^{name}({{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(float(figure) for labels, figure in lines if label in labels)


def until(holds: Callable[[], object], seconds: float, what: str) -> Iterator[bool]:
    """How long something took; whether it came within ``seconds``."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        with suppress(URLError, OSError):
            if holds():
                break
        time.sleep(0.05)
    yield require(f"seconds until {what}", round(time.monotonic() - begun, 2), seconds)


def registry_away(server: Server, registry: Registry) -> Iterator[bool]:
    """Away for a while; the healer says so, and brings later what waited."""
    yield from until(lambda: server.heals() > 2, 60, "the first heals")
    registry.stop()
    heals, begun = server.heals(), time.monotonic()
    time.sleep(AWAY_SECONDS)
    yield reached("heals while it was away", server.heals() - heals, 5)
    registry.start()
    print(f"    {time.monotonic() - begun:.0f} s away, {_pending(server):.0f} writes waited")
    yield from until(lambda: _pending(server) < 10, 120, "it has what waited")


def _pending(server: Server) -> float:
    return float(server.standing().get("pending_writes") or 0)


def healer_killed(server: Server) -> Iterator[bool]:
    """Killed in its work: another one goes on."""
    before = server.healer()
    if before is not None:
        os.kill(before, signal.SIGKILL)
    yield from until(lambda: server.healer() not in (None, before), 10, "another healer is there")
    yield from until(
        lambda: server.standing().get("pid") == server.healer() and server.heals(), 60, "it heals"
    )
    yield reached("restarts counted", counter(server, "selfheal_healer_restarts_total"), 1)


def bad_requests(server: Server, body: bytes) -> Iterator[bool]:
    """Malformed, slow, large, and labels of rows that nobody saw."""
    refused = counter(server, "selfheal_refused_total")
    unknown = counter(server, "selfheal_labels_total", "unknown")
    answers = [_status(server, body[:-20]) for _ in range(20)]
    yield require("malformed requests that did not get a 400", 20 - answers.count(400), 0)
    large = _status(server, b"0" * 100_000_000)
    yield require("a body of 100 MB got another answer than 413", abs(large - 413), 0)
    slow = [_one_byte_a_second(server) for _ in range(2)]
    yield require("slow callers that did not get a 408", 2 - slow.count(408), 0)
    told = {"labels": [{"request_id": "never-asked", "label": "fraud"}]}
    outcome = json.loads(post(f"{server.url}/feedback", json.dumps(told).encode()))
    yield reached("labels that were said to be unknown", outcome["unknown"], 1)
    grown = counter(server, "selfheal_refused_total") - refused
    yield reached("refusals counted", grown, 23)
    grown = counter(server, "selfheal_labels_total", "unknown") - unknown
    yield reached("unknown labels counted", grown, 1)


def _status(server: Server, body: bytes) -> int:
    try:
        post(f"{server.url}/invocations", body)
    except HTTPError as exc:
        return exc.code
    except OSError:  # it hung up while more was sent, having answered
        return 413
    return 200


def _one_byte_a_second(server: Server) -> int:
    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as caller:
        caller.sendall(head + b"content-length: 100\r\n\r\n")
        caller.settimeout(1.0)
        for _ in range(20):
            with suppress(TimeoutError):
                return int(caller.recv(100).split()[1])
            caller.sendall(b"{")
    return 0


def disk_full(server: Server, work: Path) -> Iterator[bool]:
    """No room for some seconds, then room again."""
    filler = work / "filler"
    with suppress(OSError), filler.open("wb") as stream:
        while True:
            stream.write(b"\0" * 65_536)
            stream.flush()
    print(f"    free: {shutil.disk_usage(work).free} bytes")
    time.sleep(FULL_SECONDS)
    print(f"    it says: {get(f'{server.url}/health/details')}")
    filler.unlink()
    heals = server.heals()
    yield from until(lambda: server.heals() > heals, 90, "it heals again")


if __name__ == "__main__":
    main()
