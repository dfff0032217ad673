"""A server under load that heals, is rolled back and told labels: does anything go wrong?

In a new folder ``selfheal run`` registers a model, which is served with a policy that finds reason
to heal in every batch. Its peak is taken with wrk (Debian: apt-get install wrk), one row a request.
Then for `--seconds` it is asked at `--share` of that; beside it ten requests of 100 rows a second
are answered and labelled, and every `--every` seconds an operator rolls back to another version.

Afterwards, with exit code 1 where it does not hold: no request failed; each sampled answer is,
value by value, that of the one snapshot which its header names; each row that was answered is in
the log exactly once; the memory of server and healer is level; `selfheal audit` finds nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any
from urllib.error import HTTPError

import numpy as np
import requests
from servers import EAGER, Server, ask, body_of, every, post, selfheal_server

from selfheal_cli.events.log import read
from selfheal_cli.events.types import BatchScored, RunStarted
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.spool.store import Spool

MODEL = "fraud"
CALLERS = 16
LEVEL = 1.05  # times the memory of the second sixth
DRAIN_SECONDS = 300


@dataclass
class Beside:
    """What went on beside the load, and what was seen of it."""

    prefix: str = "asked"
    answers: list[tuple[str, list[float]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    moves: list[tuple[float, int]] = field(default_factory=list)
    served: list[tuple[float, str]] = field(default_factory=list)
    overtaken: int = 0
    later: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)


def main() -> None:
    """Load, then look."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        known, work, uri = registered(Path(folder))
        seen = Beside()
        with selfheal_server(MODEL, uri, known, work, "--policy", "eager.yaml") as server:
            one, hundred = (body_of(server.url, MODEL, rows) for rows in (1, 100))
            peak = ask(server.url, one, 4.0, callers=CALLERS).rate
            pause = _pause_for(server, one, options.share * peak)
            ask(server.url, hundred, 3.0)  # as many rows as wait for labels at most
            drain(server)
            heals = server.heals()
            with _all_beside(server, hundred, options.every, seen):
                measured = ask(server.url, one, options.seconds, callers=CALLERS, pause=pause)
            heals = server.heals() - heals
            drain(server)
        rate = f"{measured.rate:.0f}/s ({measured.rate / peak:.0%})"
        print(f"peak {peak:.0f}/s; asked at {rate} for {options.seconds:g} s")
        print(f"p50 {measured.p50:.2f} ms, p99 {measured.p99:.2f} ms; {heals} heals")
        print(f"{len(seen.answers)} answers of 100 rows labelled")
        known_versions = _versions(uri)
        _print_moves(seen, known_versions)
        checks = [
            require("failed requests", measured.failed + len(seen.failures), 0, seen.failures[:3]),
            require(
                "answers that are not one snapshot's", _mixed(uri, known_versions, hundred, seen), 0
            ),
            every_row_once(work),
            *_level(seen),
            require("exit code of audit", selfheal(work, "audit", uri=uri), 0),
        ]
    sys.exit(0 if all(checks) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the peak")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between rollbacks")
    return parser.parse_args()


def registered(folder: Path, uri: str = "") -> tuple[Path, Path, str]:
    """A run's folder, one to serve in with an eager policy, and the store of both."""
    known, work = folder / "run", folder / "work"
    known.mkdir()
    work.mkdir()
    (work / "eager.yaml").write_text(EAGER)
    selfheal(known, "run", uri=uri)
    return known, work, uri or f"sqlite:///{known / 'mlflow.db'}"


def selfheal(folder: Path, *arguments: str, uri: str = "") -> int:
    """The command in a folder; what it says is shown where it fails."""
    main = "from selfheal_cli.cli.main import main; main()"
    more = ["--tracking-uri", uri] if uri else []
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments, *more],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return done.returncode


def require(what: str, measured: float, most: float, more: object = "") -> bool:
    """Print a check; whether it holds."""
    holds = measured <= most
    print(f"{'ok ' if holds else 'NOT'} {what}: {measured:g} (at most {most:g})", more or "")
    return holds


def reached(what: str, measured: float, least: float) -> bool:
    """Print a check; whether it holds."""
    holds = measured >= least
    print(f"{'ok ' if holds else 'NOT'} {what}: {measured:g} (at least {least:g})")
    return holds


def drain(server: Server) -> None:
    """Wait until the healer has gone through all that was answered, and the registry has it."""
    end = time.monotonic() + DRAIN_SECONDS
    runs = server.workspace / "mlruns" / "selfheal" / "runs"
    while server.standing().get("waiting", 1) or any(map(pending_in, runs.glob("*/outbox.db"))):
        if time.monotonic() > end:
            raise SystemExit(f"something still waits after {DRAIN_SECONDS} s: {server.standing()}")
        time.sleep(0.2)


def _pause_for(server: Server, body: bytes, rate: float) -> float:
    """Milliseconds that the callers pause so that they come to a rate together."""
    pause = 1000 * CALLERS / rate
    for _ in range(3):
        measured = ask(server.url, body, 3.0, callers=CALLERS, pause=max(1.0, pause))
        pause += 1000 * CALLERS * (1 / rate - 1 / measured.rate)
    return max(1.0, pause)


@contextmanager
def _all_beside(server: Server, body: bytes, seconds: float, seen: Beside) -> Iterator[None]:
    caller = Caller(server, body, seen)
    healer = server.healer()

    def weigh() -> None:
        if healer is not None:
            seen.memory.append((resident(server.pid), resident(healer)))

    with every(0.1, caller.ask), every(seconds, lambda: _roll_back(server, seen)), every(1, weigh):
        yield


class Caller:
    """Asks for 100 rows, keeps what was answered, and tells the labels."""

    def __init__(self, server: Server, body: bytes, seen: Beside) -> None:
        self._url = server.url
        self._body = body
        self._seen = seen
        self._session = requests.Session()
        self._untold: list[dict[str, Any]] = []

    def ask(self) -> None:
        """Once."""
        number = len(self._seen.answers)
        name = f"{self._seen.prefix}-{number}"
        headers = {"content-type": "application/json", "x-request-id": name}
        url = f"{self._url}/invocations"
        answer = self._session.post(url, self._body, headers=headers, timeout=30)
        if answer.status_code != 200:
            self._seen.failures.append(answer.text[:200])
            return
        snapshot = answer.headers["x-selfheal-snapshot"]
        predictions = answer.json()["predictions"]
        self._seen.answers.append((snapshot, predictions))
        self._seen.served.append((time.time(), snapshot))
        classes = [
            "fraud" if (number + place) % 7 == 0 else "normal" for place in range(len(predictions))
        ]
        self._untold.append({"request_id": name, "labels": classes})
        self._tell()

    def _tell(self) -> None:
        """Labels that could not be kept are sent again, as the answer says."""
        told = {"labels": self._untold}
        answer = self._session.post(f"{self._url}/feedback", json=told, timeout=30)
        if answer.status_code == 503:
            self._seen.later += 1
            return
        rows = sum(len(one["labels"]) for one in self._untold)
        self._untold = []
        if answer.json() != {"joined": rows, "repeated": 0, "unknown": 0}:
            self._seen.failures.append(answer.text[:200])


def _roll_back(server: Server, seen: Beside) -> None:
    """As an operator does: look at the plan, then agree to it; a heal may come between."""
    for _ in range(20):
        with suppress(HTTPError):
            plan = json.loads(post(f"{server.url}/operate/plan", b'{"to": "previous"}'))["plan"]
            agreed = {"to": "previous", "digest": plan["digest"], "reason": "load"}
            post(f"{server.url}/operate/rollback", json.dumps(agreed).encode())
            seen.moves.append((time.time(), plan["to"]))
            return
        seen.overtaken += 1
    seen.failures.append("a rollback did not come through in 20 tries")


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def _versions(uri: str) -> dict[str, VersionRecord]:
    """By snapshot."""
    versions = MlflowRegistry(uri).versions(MODEL, limit=1_000_000)
    return {one.tags["selfheal.snapshot"]: one for one in versions}


def _print_moves(seen: Beside, known: dict[str, VersionRecord]) -> None:
    """How soon a rollback was seen in answers, where no heal had come first."""
    number = {snapshot: version.version for snapshot, version in known.items()}
    waits = []
    for at, version in seen.moves:
        answers = [t for t, snapshot in seen.served if t >= at and number[snapshot] == version]
        waits += [answers[0] - at] if answers else []
    print(f"{len(seen.moves)} rollbacks, {seen.overtaken} more refused since a heal had come first")
    if waits:
        print(f"    {len(waits)} seen in answers (ten a second) after {median(waits):.2f} s in the "
              f"median, {max(waits):.2f} s at most")  # fmt: skip


def _mixed(uri: str, known: dict[str, VersionRecord], body: bytes, seen: Beside) -> int:
    """Answers that differ anywhere from what the snapshot of their header gives alone."""
    registry = MlflowRegistry(uri)
    split = json.loads(body)["dataframe_split"]
    matrix = np.array(split["data"], dtype=np.float64)
    columns = {name: matrix[:, at] for at, name in enumerate(split["columns"])}
    expected: dict[str, list[float]] = {}
    for snapshot in {snapshot for snapshot, _ in seen.answers}:
        version = known[snapshot]
        base = registry.base(version.base)
        network = assemble(base, load_verified(registry, version), where=snapshot)
        x = Encoding.model_validate(base.describe()["encoding"]).encode(columns)
        expected[snapshot] = json.loads(json.dumps(network.predict(x).tolist()))
    print(f"    {len(expected)} snapshots answered")
    return sum(answer != expected[snapshot] for snapshot, answer in seen.answers)


def every_row_once(work: Path) -> bool:
    """Whether the logs under a folder have as many rows as its spool."""
    spool = Spool(next(work.glob("mlruns/selfheal/serving/**/*.db")))
    logged = 0
    for log in work.glob("mlruns/selfheal/runs/*/events.jsonl"):
        first, *events = read(log)
        if isinstance(first, RunStarted) and first.config["source"]["kind"] == "served":
            logged += sum(one.rows for one in events if isinstance(one, BatchScored))
    answered = spool.rows_beyond(0)
    spool.close()
    print(f"    {answered} rows answered, {logged} in the log")
    return require("rows of difference", abs(answered - logged), 0)


def _level(seen: Beside) -> Iterator[bool]:
    part = max(1, len(seen.memory) // 6)
    for name, held in zip(("server", "healer"), zip(*seen.memory, strict=True), strict=True):
        first, last = fmean(held[part : 2 * part]), fmean(held[-part:])
        print(f"    {name}: {first / 1e6:.0f} MB early, {last / 1e6:.0f} MB at the end")
        yield require(f"growth of the {name}'s memory", round(last / first, 3), LEVEL)


if __name__ == "__main__":
    main()
