"""A FastAPI service of several workers whose model heals: killed worker by worker, begun again.

``python benchmarks/many_workers.py`` prints what came of it. Every label comes late and twice, to
whichever worker answers. ``--server`` says who begins the workers: uvicorn, gunicorn, or gunicorn
with ``--preload``, whose workers are forks of a process that has the model already. At last all are
killed at once, and begun again. Shown are labels by what the workers said of them, rows and labels
as the spool has them, rows that were learned from and heals that were published by the logs, the
versions of them that the registry has, and what `selfheal audit` says.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 600.0
COMMAND = "from selfheal_cli.cli.main import main; main()"
JSON = {"Content-Type": "application/json"}
SERVICE = """
import asyncio
import os
from contextlib import asynccontextmanager

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import nn
from selfheal_cli import SelfHealing

torch.manual_seed(0)
module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
module.load_state_dict(torch.load("weights.pt", weights_only=True))
known = np.load("known.npz")
model = SelfHealing(module, known["x"], known["y"], name="credit")


@asynccontextmanager
async def lifespan(app):
    yield
    await asyncio.to_thread(model.close)


app = FastAPI(lifespan=lifespan)


class Rows(BaseModel):
    ids: list[str]
    rows: list[list[float]] = []
    y: list[int] = []


@app.post("/score")
async def score(given: Rows):
    p = await model.ascore(np.array(given.rows, dtype=np.float32), ids=given.ids, durable=True)
    return {"pid": os.getpid(), "p": p.tolist()}


@app.post("/label")
async def label(given: Rows):
    told = await model.alabel(given.ids, given.y)
    return {"joined": told.joined, "repeated": told.repeated, "unknown": list(told.unknown)}


@app.get("/state")
def state():
    now = model.state
    return {"pid": os.getpid(), "here": now.heals_here, "rows": now.rows, "labels": now.labels,
            "waiting": now.waiting, "heals": dict(now.heals), "serving": now.serving,
            "error": now.error, "text": repr(now)}
"""

CLOSING = """
def on_exit(server):
    import service

    service.model.close()
"""


def drawn(count: int, seed: int, moved: float = 0.0) -> tuple[Any, Any]:
    """Two classes that a line tells apart, moved sideways by ``moved``."""
    x = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0.5).astype(np.int64)
    x[:, 0] += np.float32(moved)
    return x, y


def prepare(folder: Path) -> None:
    """The service, a trained module's weights, and rows that say what is normal."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    x, y = drawn(2_000, 0)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        logits = module(torch.from_numpy(x)).squeeze(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y).float())
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    torch.save(module.state_dict(), folder / "weights.pt")
    known_x, known_y = drawn(1_000, 1)
    np.savez(folder / "known.npz", x=known_x, y=known_y)
    (folder / "service.py").write_text(SERVICE)
    (folder / "closing.py").write_text(CLOSING)


def command_of(server: str, workers: int, port: int) -> list[str]:
    """What begins the workers, and begins one again that died."""
    if server == "uvicorn":
        return [sys.executable, "-m", "uvicorn", "service:app", "--workers", str(workers),
                "--port", str(port), "--log-level", "warning",
                "--timeout-worker-healthcheck", str(int(PATIENCE))]  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", "service:app", "-w", str(workers),
               "-k", "uvicorn.workers.UvicornWorker", "-b", f"127.0.0.1:{port}",
               "--timeout", str(int(PATIENCE)), "--log-level", "warning"]  # fmt: skip
    return [*command, "--preload", "-c", "closing.py"] if server == "preload" else command


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The service in a session of its own; ended in order where it was not killed."""
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


class Caller:
    """Sends rows and labels, and sends again what a worker did not answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.told: Counter[str] = Counter()
        self.pids: set[int] = set()
        self.again = 0

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, however often it must be asked for."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(path, None if body is None else json.dumps(body).encode())
            except (OSError, http.client.HTTPException):
                self.again += 1
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        """One answer; raises where there is none."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60.0)) as there:
            there.request("POST" if body else "GET", path, body, JSON)
            answer = there.getresponse()
            if answer.status != 200:
                raise http.client.HTTPException(f"{path}: {answer.status}")
            return dict(json.load(answer))

    def score(self, ids: list[str], rows: Any) -> None:
        """Score rows."""
        self.pids.add(self.post("/score", {"ids": ids, "rows": rows.tolist()})["pid"])

    def label(self, ids: list[str], y: Any) -> None:
        """Tell labels, and once more those that no worker knew yet."""
        until = time.monotonic() + PATIENCE
        given = dict(zip(ids, y.tolist(), strict=True))
        while given:
            answer = self.post("/label", {"ids": list(given), "y": list(given.values())})
            self.told["joined"] += answer["joined"]
            self.told["repeated"] += answer["repeated"]
            given = {name: given[name] for name in answer["unknown"]}
            self.told["unknown"] += len(given)
            if given and time.monotonic() > until:
                raise RuntimeError(f"nobody knows {list(given)[:3]}")
            time.sleep(0.05 if given else 0)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something, not for ever."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.2)


def children(parent: int) -> list[int]:
    """Workers that a server began: uvicorn's are spawned, gunicorn's are forks."""
    told = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in told}
    return [pid for pid, said in commands.items() if b"spawn_main" in said or b"gunicorn" in said]


def stress(folder: Path, server: str, rows: int, workers: int, kills: int) -> dict[str, Any]:
    """The whole of it; raises where a label is lost or told to nobody."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = command_of(server, workers, port)
    x, y = drawn(rows, 2, 2.0)
    ids = [f"payment-{place}" for place in range(rows)]
    parts = [slice(at, at + 50) for at in range(0, rows, 50)]
    caller, killed = Caller(port), []
    began = time.monotonic()
    with serving(command, folder) as service:
        until(lambda: answers(caller), "the first answer")
        ready = time.monotonic() - began
        until(lambda: len(all_seen(caller)) == workers, "an answer of each worker")
        healing = threads(caller, parts, ids, x, y)
        for place in range(kills):
            time.sleep(2.0)
            until(lambda: len(children(service.pid)) == workers, "the workers to be there")
            pids = sorted(children(service.pid))
            victim = pids[place % len(pids)]
            if place % 2 and server != "preload":  # who heals, in the midst of it
                until(
                    partial(has_learned, folder, learned(folder)["rows"]), "a batch to be learned"
                )
                victim = who_heals(caller)
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        for one in healing:
            one.result()
        served = caller.post("/state")["serving"]
        os.killpg(service.pid, signal.SIGKILL)
    with serving(command, folder):  # begun again: what is left is learned
        until(lambda: answers(caller), "an answer after the restart")
        again = caller.post("/state")["serving"]
        for part in parts:  # each label a second time
            caller.label(ids[part], y[part])
        spool = folder / "mlruns/selfheal/serving/credit/spool.db"
        until(lambda: learned(folder)["labels"] > rows - 200, "the labels to be learned from")
        state = caller.post("/state")
    with sqlite3.connect(spool) as database:
        kept = database.execute("SELECT sum(rows) FROM answered").fetchone()[0]
        labels = database.execute("SELECT count(*) FROM labels").fetchone()[0]
    audit = selfheal(folder, "audit")
    listed = json.loads(selfheal(folder, "snapshots", "--limit", "10000", "--json").stdout)
    return {
        "ready_s": round(ready, 1), "killed": len(killed), "workers_seen": len(caller.pids),
        "asked_again": caller.again, "told": dict(caller.told), "rows_kept": kept,
        "labels_kept": labels, "learned": learned(folder), "served": [served, again],
        "state": state["text"],
        "heals": heals(folder, {version["version"] for version in listed}),
        "baselines": sum(version["phase"] == "baseline" for version in listed),
        "audit": audit.returncode, "audit_said": audit.stdout.strip().splitlines()[-1:],
    }  # fmt: skip


def selfheal(folder: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """What a command of ours says of the model."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *given, "--model", "credit"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def heals(folder: Path, versions: set[int]) -> dict[str, int]:
    """Heals that were published, by the logs, and those of them that the registry has."""
    published, numbers = set(), {}
    for log in (folder / "mlruns/selfheal/runs").glob("*/events.jsonl"):
        for event in map(json.loads, log.read_text().splitlines()):
            if event["kind"] == "heal":
                published.add((log.parent.name, event["data"]["to_snapshot"]))
            elif event["kind"] == "registered":
                one = (log.parent.name, event["data"]["snapshot"])
                numbers[one] = event["data"]["version"]
    kept = sum(numbers.get(one) in versions for one in published)
    return {"published": len(published), "in_registry": kept}


def threads(caller: Caller, parts: list[slice], ids: list[str], x: Any, y: Any) -> list[Any]:
    """Four callers at once: each scores its rows, and tells their labels somewhat later."""

    def work(own: list[slice]) -> None:
        for place, part in enumerate(own):
            caller.score(ids[part], x[part])
            if place >= 5:
                caller.label(ids[own[place - 5]], y[own[place - 5]])
        for part in own[-5:]:
            caller.label(ids[part], y[part])

    pool = ThreadPoolExecutor(4)
    return [pool.submit(work, parts[place::4]) for place in range(4)]


def answers(caller: Caller) -> bool:
    """Whether the service answers."""
    try:
        return bool(caller.ask("/state"))
    except (OSError, http.client.HTTPException):
        return False


def who_heals(caller: Caller) -> int:
    """The worker that heals now."""
    told: dict[str, Any] = {}

    def asked() -> bool:
        told.update(caller.post("/state"))
        return bool(told["here"])

    until(asked, "the one that heals to answer")
    return int(told["pid"])


def all_seen(caller: Caller) -> set[int]:
    """The workers that answered by now."""
    caller.pids.add(caller.ask("/state")["pid"])
    return caller.pids


def has_learned(folder: Path, rows: int) -> bool:
    """Whether more than so many rows were gone through."""
    return learned(folder)["rows"] > rows


def learned(folder: Path) -> dict[str, int]:
    """By the logs of all runs: rows, labels, heals; a batch in which a process was killed is gone
    through again, and counts once.
    """
    counts = Counter({"rows": 0, "labels": 0, "heals": 0, "runs": 0})
    for log in (folder / "mlruns/selfheal/runs").glob("*/events.jsonl"):
        counts["runs"] += 1
        begun, before = False, counts["labels"]
        for event in map(json.loads, log.read_text().splitlines()):
            if event["kind"] == "rows-taken":
                begun, before = bool(event["data"]["rows"]), counts["labels"]
            elif event["kind"] == "labels":
                counts["labels"] += event["data"]["rows"]
            elif event["kind"] == "batch":
                begun = False
                counts["rows"] += event["data"]["rows"]
            counts["heals"] += event["kind"] == "heal"
        if begun:
            counts["labels"] = before
    return dict(counts)


def main() -> None:
    """Read the options, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=("uvicorn", "gunicorn", "preload"), default="uvicorn")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        came = stress(folder, given.server, given.rows, given.workers, given.kills)
        print(json.dumps(came, indent=2))


if __name__ == "__main__":
    main()
