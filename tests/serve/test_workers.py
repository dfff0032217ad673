"""Several processes that score behind one port: sums, a death, new ones one by one, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter
from requests.adapters import HTTPAdapter

from selfheal_cli.serve import server, worker, workers
from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.serve.settings import HealerSettings, ServerSettings
from selfheal_cli.serve.staff import ProcessWord, SummedMetrics, samples_of, summed
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool
from tests import forked
from tests.conftest import PATIENCE, copied, until
from tests.forked import Forked
from tests.serve.conftest import IDLE

# callers and processes have all the time that they need, however slow the machine
PATIENT = f"""
import sys, selfheal_cli.serve.worker as worker
from selfheal_cli.serve import server
server.DRAIN_SECONDS = {PATIENCE}
sys.exit(worker.main())
"""
NEW = 4  # processes that a server's tests begin after the first
BAD = 400  # the status of requests that are counted here


@dataclass
class Several:
    """A server of two workers, and the file of what it says on standard error; it was sent so many
    ``bad`` requests.
    """

    url: str
    process: Forked
    workspace: Path
    file: Path
    bad: int = 0

    def said(self, words: str) -> bool:
        return words in self.file.read_text()

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=PATIENCE).json()

    def metrics(self) -> str:
        return requests.get(f"{self.url}/metrics", timeout=PATIENCE).text

    def workers(self) -> set[int]:
        """Process ids of those that say that they score."""
        return {one.pid for one in self.words() if one.scores and one.alive}

    def words(self) -> list[ProcessWord]:
        """What each process has told the others."""
        channel = ControlChannel(spool_path("fraud", self.workspace))
        told = channel.statuses(workers.TOPIC)
        channel.close()
        return [ProcessWord.model_validate(one) for one in told]

    def counted(self) -> float:
        """Bad requests, as whoever is asked for the metrics adds them up."""
        known = re.search(COUNTED, self.metrics(), re.MULTILINE)
        return float(known[1]) if known else 0.0

    def told(self) -> float:
        """The same, by what each process has told the others."""
        samples = [one for word in self.words() for one in word.samples["selfheal_all_requests"][2]]
        return sum(
            value
            for name, labels, value in samples
            if name.endswith("_total") and labels["status"] == f"{BAD}"
        )

    def kept(self) -> set[str]:
        """Ids of the requests that are on disk."""
        spool = Spool(spool_path("fraud", self.workspace))
        ids = {one.request for one in spool.rows_after(0, 1_000_000)}
        spool.close()
        return ids


COUNTED = rf'^selfheal_all_requests_total\{{route="/invocations",status="{BAD}"\}} (.+)$'


def serve(settings: ServerSettings, said: Path) -> None:
    """A server whose first worker is begun as in earnest and whose others are forked."""
    forked.heard(said)
    server.DRAIN_SECONDS = PATIENCE
    workers.COMMAND = (sys.executable, "-P", "-c", PATIENT)
    spares, begun = forked.Spares(NEW, worker.main), list[Any]()

    def popen(command: Any, **named: Any) -> Any:
        forks = tuple(command) == workers.COMMAND and workers.COMMAND in begun
        begun.append(tuple(command))
        return (spares.popen if forks else subprocess.Popen)(command, **named)

    forked.patient(popen, PATIENCE)
    workers.serve_with_workers(
        lambda: settings, 2, lambda *told: print("ready", *told, file=sys.stderr), IDLE
    )


@pytest.fixture(scope="module")
def several(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """The last of its tests ends it."""
    registry, workspace = tmp_path_factory.mktemp("registry"), tmp_path_factory.mktemp("several")
    copied(short_run, registry)  # of a place that no process has opened before
    healer = HealerSettings(
        model="fraud", actor="test", tracking_uri=f"sqlite:///{registry / 'mlflow.db'}",
        workspace=workspace,
    )  # fmt: skip
    said = workspace / "said.txt"
    process = forked.begun(lambda: serve(ServerSettings(healer=healer, port=0), said))
    until(said.exists)
    until(lambda: process.poll() is not None or re.search("^ready .*\n", said.read_text()))
    _, url, version = said.read_text().split()
    assert version == "9"
    yield Several(url, process, workspace, said)
    # killed, it would leave its workers behind, who hold what is read here
    process.terminate()
    process.wait(PATIENCE)


@dataclass
class Load:
    """Callers that keep their connections; what they were answered, and what went wrong."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@contextmanager
def load(several: Several, callers: int = 3, status: int = 200) -> Iterator[Load]:
    made, stop = Load(), threading.Event()
    names = [one["name"] for one in several.get("/v2/models/fraud")["inputs"]]
    body = {"inputs": {name: [0.5] for name in names}} if status == 200 else {}

    def ask() -> None:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=0))
            while not stop.wait(0.2):  # else nobody else would come to the processors
                try:
                    answer = session.post(f"{several.url}/invocations", json=body, timeout=PATIENCE)
                except requests.ConnectionError as exc:
                    bad = made.refused if "refused" in str(exc) else made.broken
                    bad.append(repr(exc))
                    return
                assert answer.status_code == status
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


def send_bad(several: Several) -> None:
    with load(several, status=BAD) as made:
        until(lambda: len(made.answered) >= 20)
    assert not made.broken + made.refused
    several.bad += len(made.answered)


def test_status_and_figures_are_the_sum_of_all_whoever_is_asked(several: Several) -> None:
    send_bad(several)
    with load(several) as made:
        until(lambda: len(made.answered) >= 20)
    until(lambda: several.counted() == several.bad)
    until(lambda: several.get("/status")["server"]["workers_up"] == 2)
    assert several.get("/status")["server"]["workers"] == 2
    until(lambda: set(made.answered) <= several.kept())
    until(lambda: several.get("/status")["server"]["kept"] == len(several.kept()))
    details = several.get("/health/details")
    assert details["healer_pid"] not in (None, *several.workers())


def test_a_label_finds_its_row_whoever_answered_it(several: Several) -> None:
    with load(several, callers=1) as made:
        until(lambda: len(made.answered) >= 5)
    labels = [{"request_id": one, "label": "fraud"} for one in made.answered[:5]]
    joined: list[int] = []

    def all_joined() -> bool:  # a row may be in the memory of the one who answered it
        told = requests.post(f"{several.url}/feedback", json={"labels": labels}, timeout=PATIENCE)
        joined.append(told.json()["joined"])
        return sum(joined) == 5

    until(all_joined)


def test_new_processes_take_over_one_by_one_and_no_caller_is_refused(several: Several) -> None:
    before = several.workers()
    with load(several) as made:
        several.process.send_signal(signal.SIGHUP)
        until(lambda: several.said("selfheal: 2 new processes score\n"))
    assert not made.broken + made.refused
    assert len(several.workers()) == 2 and not several.workers() & before


def test_one_that_dies_is_replaced_told_and_what_it_counted_stays(several: Several) -> None:
    send_bad(several)
    until(lambda: several.told() == several.bad)  # to the others: what was not would be lost
    gone, left = sorted(several.workers())
    os.kill(gone, signal.SIGKILL)
    until(lambda: gone not in several.workers())
    until(lambda: several.get("/status")["server"]["worker_restarts"] == 1)
    until(lambda: several.get("/status")["server"]["workers_up"] == 2)
    assert left in several.workers()
    until(lambda: several.said("process ended by itself (code -9)"))
    until(lambda: several.counted() == several.bad)
    until(lambda: "selfheal_worker_restarts_total 1.0" in several.metrics())


def test_at_the_end_every_caller_is_answered_and_every_answer_kept(several: Several) -> None:
    with load(several) as made:
        until(lambda: len(made.answered) >= 20)
        several.process.send_signal(signal.SIGTERM)
        assert several.process.wait(PATIENCE) == 0
        until(lambda: len(made.refused + made.broken) == 3)
    assert not made.broken
    assert set(made.answered) <= several.kept()


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


def test_who_is_told_to_end_while_processes_come_up_waits_for_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[Any] = []

    def begin(self: workers.Workers, *, tells: bool = False) -> Any:
        begun.append(SimpleNamespace(pid=len(begun), restarts=0, code=None))
        return begun[-1]

    monkeypatch.setattr(workers.Workers, "_begin", begin)
    settings = ServerSettings(healer=HealerSettings(model="m", actor="a", workspace=tmp_path))
    first = SimpleNamespace(pid=0, scores=True, info=SimpleNamespace(version=3))
    staff: Any = SimpleNamespace(words=lambda: [first] if begun else [])
    three: Any = workers.Workers(settings, 3, None, "server-1", staff)  # type: ignore[arg-type]
    with workers._signals() as heard:
        assert heard.goes_on()
        signal.raise_signal(signal.SIGHUP)
        assert heard.goes_on()
        signal.raise_signal(signal.SIGTERM)
        assert not heard.goes_on()
        assert three.start(heard.goes_on) is None  # not one of them is up
        assert len(begun) == 1
        begun.clear()
        asked = iter([True, True])
        assert three.start(lambda: next(asked, False)) == 3  # the first alone
        assert [heard.next(), heard.next()] == [signal.SIGHUP, signal.SIGTERM]
