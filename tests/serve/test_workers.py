"""Several processes that score behind one port: sums, a death, new ones one by one, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter
from requests.adapters import HTTPAdapter

from selfheal_cli.serve import workers
from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.serve.settings import HealerSettings, ServerSettings
from selfheal_cli.serve.staff import ProcessWord, SummedMetrics, samples_of, summed
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool
from tests.conftest import PATIENCE
from tests.conftest import until as soon
from tests.serve.conftest import IDLE

# callers and processes have all the time that they need, however slow the machine
MAIN = f"""
import sys
from selfheal_cli.serve import workers
from selfheal_cli.serve.healer.supervisor import KeptProcess
from selfheal_cli.serve.settings import ServerSettings
patient = "import sys, selfheal_cli.serve.worker as worker; from selfheal_cli.serve import server; "
patient += "server.DRAIN_SECONDS = {PATIENCE}; sys.exit(worker.main())"
workers.COMMAND = (sys.executable, "-P", "-c", patient)
KeptProcess.stop.__defaults__ = ({PATIENCE},)
settings = ServerSettings.model_validate_json(sys.argv[1])
tell = lambda url, version: print(url, version, flush=True)
workers.serve_with_workers(lambda: settings, 2, tell, {IDLE!r})
"""
BAD = 400  # the status of requests that are counted here


def until(holds: Callable[[], bool]) -> None:
    """Wait for what may take the start of two processes."""
    soon(holds, seconds=300.0)


@dataclass
class Several:
    """A server of two workers, and what it says on standard error; it was sent so many ``bad``
    requests.
    """

    url: str
    process: subprocess.Popen[str]
    workspace: Path
    said: list[str] = field(default_factory=list)
    bad: int = 0

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=PATIENCE).json()

    def metrics(self) -> str:
        return requests.get(f"{self.url}/metrics", timeout=PATIENCE).text

    def workers(self) -> set[int]:
        """Their process ids: children that are not the stand-in for the healer."""
        listed = [
            one.read_text() for one in Path(f"/proc/{self.process.pid}/task").glob("*/children")
        ]
        return {int(pid) for pid in " ".join(listed).split() if _is_worker(pid)}

    def counted(self) -> float:
        """Bad requests, as whoever is asked for the metrics adds them up."""
        known = re.search(COUNTED, self.metrics(), re.MULTILINE)
        return float(known[1]) if known else 0.0

    def told(self) -> float:
        """The same, by what each process has told the others."""
        channel = ControlChannel(spool_path("fraud", self.workspace))
        words = [ProcessWord.model_validate(one) for one in channel.statuses(workers.TOPIC)]
        channel.close()
        samples = [one for word in words for one in word.samples["selfheal_all_requests"][2]]
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


def _is_worker(pid: str) -> bool:
    try:
        return b"serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # it has ended
        return False


@contextmanager
def begun(registry: Path, workspace: Path) -> Iterator[Several]:
    uri = f"sqlite:///{registry / 'mlflow.db'}"
    healer = HealerSettings(model="fraud", actor="test", tracking_uri=uri, workspace=workspace)
    settings = ServerSettings(healer=healer, port=0)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, settings.model_dump_json()], cwd=registry,
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
        process.wait(PATIENCE)
        reading.join()


@pytest.fixture(scope="module")
def running(
    article_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Several]]:
    """Gives the one that runs, and begins another where a test has ended it."""
    with ExitStack() as stack:
        last: list[Several] = []

        def one() -> Several:
            if not last or last[-1].process.poll() is not None:
                fresh = begun(article_run, tmp_path_factory.mktemp("several"))
                last.append(stack.enter_context(fresh))
            return last[-1]

        yield one


@pytest.fixture
def several(running: Callable[[], Several]) -> Several:
    return running()


@dataclass
class Load:
    """Callers that keep their connections; what they were answered, and what went wrong."""

    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@contextmanager
def load(several: Several, callers: int = 6, status: int = 200) -> Iterator[Load]:
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
        until(lambda: len(made.answered) >= 60)
    assert not made.broken + made.refused
    several.bad += len(made.answered)


def test_status_and_figures_are_the_sum_of_all_whoever_is_asked(several: Several) -> None:
    send_bad(several)
    with load(several, callers=3) as made:
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
        until(lambda: "selfheal: 2 new processes score\n" in several.said)
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
    until(lambda: any("process ended by itself (code -9)" in one for one in several.said))
    until(lambda: several.counted() == several.bad)
    until(lambda: "selfheal_worker_restarts_total 1.0" in several.metrics())


def test_at_the_end_every_caller_is_answered_and_every_answer_kept(several: Several) -> None:
    with load(several) as made:
        until(lambda: len(made.answered) >= 30)
        several.process.send_signal(signal.SIGTERM)
        assert several.process.wait(PATIENCE) == 0
        until(lambda: len(made.refused + made.broken) == 6)
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
