"""Several processes that score behind one port: sums, a death, new ones one by one, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter
from requests.adapters import HTTPAdapter

from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.serve.settings import HealerSettings, ServerSettings
from selfheal_cli.serve.staff import ProcessWord, SummedMetrics, samples_of, summed
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool
from tests.serve.conftest import IDLE
from tests.serve.conftest import until as soon

MAIN = f"""
import sys
from selfheal_cli.serve.settings import ServerSettings
from selfheal_cli.serve.workers import serve_with_workers
settings = ServerSettings.model_validate_json(sys.argv[1])
tell = lambda url, version: print(url, version, flush=True)
serve_with_workers(lambda: settings, 2, tell, {IDLE!r})
"""


def until(holds: Callable[[], bool]) -> None:
    """Wait for what may take the start of two processes."""
    soon(holds, seconds=300.0)


@dataclass
class Several:
    """A server of two workers, and what it says on standard error."""

    url: str
    process: subprocess.Popen[str]
    workspace: Path
    said: list[str] = field(default_factory=list)

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=30).json()

    def workers(self) -> set[int]:
        """Their process ids: children that are not the stand-in for the healer."""
        listed = [
            one.read_text() for one in Path(f"/proc/{self.process.pid}/task").glob("*/children")
        ]
        return {int(pid) for pid in " ".join(listed).split()
                if b"serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}  # fmt: skip


@pytest.fixture(scope="module")
def several(article_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    workspace = tmp_path_factory.mktemp("several")
    uri = f"sqlite:///{article_run / 'mlflow.db'}"
    healer = HealerSettings(model="fraud", actor="test", tracking_uri=uri, workspace=workspace)
    settings = ServerSettings(healer=healer, port=0)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, settings.model_dump_json()], cwd=article_run,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout and process.stderr
        url, version = process.stdout.readline().split()
        assert version == "51"
        running = Several(url, process, workspace)
        reading = threading.Thread(target=lambda: running.said.extend(iter(process.stderr)))  # type: ignore[arg-type]
        reading.start()
        yield running
        # killed, it would leave its workers behind, who hold what is read here
        process.terminate()
        process.wait(60)
        reading.join()


@dataclass
class Load:
    """Callers that keep their connections; what they were answered, and what went wrong."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@contextmanager
def load(url: str, callers: int = 6) -> Iterator[Load]:
    made, stop = Load(), threading.Event()
    names = [one["name"] for one in requests.get(f"{url}/v2/models/fraud", timeout=30).json()[
        "inputs"]]  # fmt: skip
    body = {"inputs": {name: [0.5] for name in names}}

    def ask() -> None:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=0))
            while not stop.is_set():
                try:
                    answer = session.post(f"{url}/invocations", json=body, timeout=30)
                except requests.ConnectionError as exc:
                    bad = made.refused if "refused" in str(exc) else made.broken
                    bad.append(repr(exc))
                    return
                assert answer.status_code == 200
                made.answered.append(answer.headers["x-request-id"])

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def answered_by(several: Several) -> float:
    """Requests that all of them answered, as the metrics have it."""
    text = requests.get(f"{several.url}/metrics", timeout=30).text
    known = re.search(r'^selfheal_all_requests_total\{route="/invocations",status="200"\} (.+)$',
                      text, re.MULTILINE)  # fmt: skip
    return float(known[1]) if known else 0.0


def test_status_and_figures_are_the_sum_of_all_whoever_is_asked(several: Several) -> None:
    before, kept = answered_by(several), several.get("/status")["server"]["kept"]
    with load(several.url) as made:
        until(lambda: len(made.answered) >= 60)
    assert not made.broken + made.refused
    until(lambda: answered_by(several) == before + len(made.answered))
    server = several.get("/status")["server"]
    assert (server["workers"], server["workers_up"]) == (2, 2)
    until(lambda: several.get("/status")["server"]["kept"] == kept + len(made.answered))
    details = several.get("/health/details")
    assert details["healer_pid"] not in (None, *several.workers())


def test_a_label_finds_its_row_whoever_answered_it(several: Several) -> None:
    with load(several.url, callers=1) as made:
        until(lambda: len(made.answered) >= 5)
    labels = [{"request_id": one, "label": "fraud"} for one in made.answered[:5]]
    told = requests.post(f"{several.url}/feedback", json={"labels": labels}, timeout=30)
    assert told.json()["joined"] == 5


def test_new_processes_take_over_one_by_one_and_no_caller_is_refused(several: Several) -> None:
    before = several.workers()
    with load(several.url) as made:
        several.process.send_signal(signal.SIGHUP)
        until(lambda: "selfheal: 2 new processes score\n" in several.said)
    assert not made.broken + made.refused
    assert len(several.workers()) == 2 and not several.workers() & before


def test_one_that_dies_is_replaced_told_and_what_it_counted_stays(several: Several) -> None:
    with load(several.url, callers=1) as made:
        until(lambda: bool(made.answered))
    until(lambda: answered_by(several) > 0)
    counted = requests.get(f"{several.url}/metrics", timeout=30).text.count("selfheal_all_rows")
    gone, left = sorted(several.workers())
    os.kill(gone, signal.SIGKILL)
    until(lambda: several.get("/status")["server"]["worker_restarts"] == 1)
    until(lambda: several.get("/status")["server"]["workers_up"] == 2)
    assert left in several.workers()
    assert any("a scoring process ended by itself (code -9)" in one for one in several.said)
    text = requests.get(f"{several.url}/metrics", timeout=30).text
    assert text.count("selfheal_all_rows") == counted
    assert "selfheal_worker_restarts_total 1.0" in text


def test_at_the_end_every_caller_is_answered_and_every_answer_kept(several: Several) -> None:
    with load(several.url) as made:
        until(lambda: len(made.answered) >= 30)
        began = time.monotonic()
        several.process.send_signal(signal.SIGTERM)
        assert several.process.wait(60) == 0
        took = time.monotonic() - began
    assert not made.broken
    assert len(made.refused) == 6
    assert took < 10 + 5  # the machine may be busy
    spool = Spool(spool_path("fraud", several.workspace))
    kept = {one.request for one in spool.rows_after(0, 100_000)}
    spool.close()
    assert set(made.answered) <= kept


def test_sums_are_of_all_and_what_waits_is_of_those_that_live() -> None:
    def word(pid: int, *, alive: bool = True, scores: bool = True, **info: Any) -> ProcessWord:
        return ProcessWord(
            pid=pid, scores=scores, alive=alive, samples={}, info=ServerInfo(model="m", **info)
        )

    own = ServerInfo(model="m", queue=1, unrecorded=2, started=50.0)
    words = [
        word(1, scores=False, kept=9, workers=3, worker_restarts=1, started=40.0),
        word(2, queue=10, unrecorded=20, recording="disk full", started=60.0),
        word(3, alive=False, queue=100, unrecorded=200, recording="old", started=45.0),
    ]
    both = summed(own, words)
    assert (both.queue, both.unrecorded, both.kept, both.started) == (11, 222, 9, 40.0)
    assert (both.workers, both.workers_up, both.worker_restarts) == (3, 2, 1)
    assert both.recording == "disk full"


def test_figures_of_all_are_added_by_their_labels() -> None:
    registries = [CollectorRegistry() for _ in range(2)]
    for registry, reasons in zip(registries, (("a", "b"), ("b", "c")), strict=True):
        refused = Counter("refused", "n", ["reason"], registry=registry)
        for reason in reasons:
            refused.labels(reason).inc()
    other = ProcessWord(
        pid=1, scores=True, info=ServerInfo(model="m"), samples=samples_of(registries[1])
    )
    Counter("told", "n", registry=registries[1]).inc(4)  # the other one's alone
    other = other.model_copy(update={"samples": samples_of(registries[1])})
    family, told = SummedMetrics(registries[0], lambda: [other]).collect()
    assert (told.name, told.type, told.samples[0].value) == ("told", "counter", 4)
    counts = {one.labels["reason"]: one.value for one in family.samples
              if one.name == "refused_total"}  # fmt: skip
    assert counts == {"a": 1, "b": 2, "c": 1}
