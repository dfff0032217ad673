"""`selfheal serve` with its healer: real processes on one folder, killed and gone on from."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import requests

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.config_policy import Policy
from selfheal_cli.errors import RegistryUnreachable
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import (
    BatchScored,
    ChampionFollowed,
    ProposalMade,
    RowsTaken,
    RunFinished,
    RunStarted,
)
from selfheal_cli.model.checkpoint import assemble, unpack
from selfheal_cli.pipeline.runs.recovery import Beginning
from selfheal_cli.pipeline.runs.serving import BUDGET
from selfheal_cli.pipeline.stream.champion import ELSEWHERE
from selfheal_cli.registry.journal import JournalState
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.healer import healing
from selfheal_cli.serve.healer import process as healer
from selfheal_cli.serve.healer.supervisor import COMMAND
from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.serve.settings import HealerSettings
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.synthetic import SyntheticSource
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.entries import Cursor, Feedback, LoggedRequest
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.source import ENDLESS
from selfheal_cli.spool.store import Spool
from tests import forked
from tests.conftest import PATIENCE, Invoke
from tests.events.examples import example
from tests.forked import Forked
from tests.serve.conftest import until

WORKSPACE = Path("mlruns") / "selfheal"
REQUEST = 25  # rows
SAID = Path("said.txt")  # what a server says
SERVES = re.compile(r"^selfheal: '\w+' v.* (\S+)$", re.MULTILINE)


def drifted(batches: int, seed: int = 7) -> Iterator[tuple[dict[str, list[float]], list[int]]]:
    """Requests: columns, and the classes that come as labels."""
    settings = SyntheticSettings(fresh=True, drift_strength=1.0)
    for batch in SyntheticSource(settings, seed=seed, batch_size=100, batches=batches).batches():
        for at in range(0, 100, REQUEST):
            part = slice(at, at + REQUEST)
            columns = {name: v[part].tolist() for name, v in batch.rows.columns.items()}
            yield columns, batch.rows.y[part].tolist()


def recorded() -> list[Event]:
    """Events of every run that served."""
    all_events = []
    for log in sorted(WORKSPACE.glob("runs/*/events.jsonl")):
        events = list(read(log))
        if events[0].config["source"]["kind"] == "served":
            all_events += events
    return all_events


def require_every_row_once(spool: Spool) -> None:
    rows = sum(event.rows for event in recorded() if isinstance(event, BatchScored))
    assert rows == spool.rows_beyond(0)
    last = max(e.offsets["answered"] for e in recorded() if isinstance(e, RowsTaken))
    assert spool.rows_after(last, 1) == []


class Caller:
    """Somebody who calls a server and tells it later what was right."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0
        self.headers: dict[str, str] = {}

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = requests.get(f"{self.url}/status", timeout=PATIENCE).json()
        return status

    def details(self) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/health/details", timeout=PATIENCE)
        details: dict[str, Any] = answer.json()
        return details

    def order(self, kind: str, **told: Any) -> requests.Response:
        return requests.post(f"{self.url}/operate/{kind}", json=told, timeout=PATIENCE)

    def ask(self, columns: dict[str, list[float]]) -> int:
        """Rows under the number that is ``sent``; returns how many were answered."""
        named, body = {"X-Request-Id": f"r{self.sent}"}, {"inputs": columns}
        answer = requests.post(
            f"{self.url}/invocations", json=body, headers=named, timeout=PATIENCE
        )
        assert answer.status_code == 200, answer.text
        self.headers = dict(answer.headers)
        return len(answer.json()["predictions"])

    def call(self, batches: int, seed: int) -> None:
        for columns, y in drifted(batches, seed):
            self.sent += 1
            assert self.ask(columns) == len(y)
            labels = [{"request_id": f"r{self.sent}", "labels": [NAMES[one] for one in y]}]
            told = requests.post(f"{self.url}/feedback", json={"labels": labels}, timeout=PATIENCE)
            assert told.json() == {
                "joined": len(y),
                "repeated": 0,
                "unknown": 0,
                "contradicting": 0,
                "corrected": 0,
            }


NAMES = SyntheticSource(SyntheticSettings(), seed=1, batch_size=100, batches=1).labels


@contextmanager
def served(*more: str, model: str = "fraud") -> Iterator[tuple[Forked, Caller]]:
    """The command itself, healing in batches of 100."""
    SAID.unlink(missing_ok=True)
    process = forked.server(
        ["serve", model, "--port", "0", "--recipe", "anchored", "--max-wait", "1",
         "--heal-priority", "normal", *more],
        SAID, PATIENCE,
    )  # fmt: skip
    try:
        until(SAID.exists)
        place = until(lambda: process.poll() or SERVES.search(SAID.read_text()))
        assert isinstance(place, re.Match), "it ended"
        yield process, Caller(place[1])
    except BaseException:
        sys.stderr.write(SAID.read_text())
        raise
    finally:
        end(process)


def end(process: Forked) -> None:
    """Kill a server that a test left running, and its healer, which has a group of its own."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGSTOP)  # it starts no other healer
    children = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
    for pid in map(int, " ".join(children).split()):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def test_it_heals_on_what_it_answers_survives_its_healer_and_rolls_back(
    short_copy: Path, invoke: Invoke
) -> None:
    with served() as (process, caller):
        before = caller.details()
        caller.call(4, seed=1)
        healed = until(lambda: caller.status()["standing"]["heals"].get("healed"))
        assert healed >= 1
        until(lambda: caller.details()["snapshot"] != before["snapshot"])

        os.kill(before_pid := before["healer_pid"], signal.SIGKILL)
        caller.call(2, seed=2)  # scoring goes on
        until(lambda: (pid := caller.details()["healer_pid"]) not in (None, before_pid) and pid)
        caller.call(2, seed=3)
        until(lambda: (now := caller.status()["standing"])["pid"] != before_pid
              and now["rows"] and not now["waiting"])  # fmt: skip

        # on a busy machine an order may be taken back, and is given again
        plan = until(lambda: caller.order("plan", to=1).json().get("plan"))
        assert plan["to"] == 1
        order = {"to": 1, "digest": "0" * 64, "reason": "another plan"}
        until(lambda: caller.order("rollback", **order).status_code == 409)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    spool = Spool(spool_path("fraud", WORKSPACE))
    require_every_row_once(spool)
    outcomes = [e.outcome for e in recorded() if isinstance(e, RunFinished)]
    assert sorted(outcomes) == ["FINISHED", "KILLED"]
    invoke("audit")


def test_neither_an_infinite_value_nor_a_spool_that_is_lost_ends_healing(
    short_copy: Path,
) -> None:
    with served() as (process, caller):
        caller.call(1, seed=1)
        columns, _ = next(drifted(1, seed=2))
        columns["V14"][0] = np.inf
        answer = requests.post(
            f"{caller.url}/invocations", data=json.dumps({"inputs": columns}), timeout=PATIENCE,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert answer.status_code == 200
        until(lambda: caller.status()["standing"]["notes"].get(ENDLESS) == 1)
        shutil.rmtree(spool_path("fraud", WORKSPACE).parent)
        caller.call(2, seed=3)
        until(lambda: (now := caller.status()["standing"])["begun_anew"] and now["rows"] == 200)
        status = caller.status()
        assert any("lost, replaced or set aside" in line for line in status["told"]["warnings"])
        details = caller.details()
        assert (details["healer_restarts"], details["recording"]["problem"]) == (0, "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert "is not the one that was read up to request" in SAID.read_text()
    outcomes = [e.outcome for e in recorded() if isinstance(e, RunFinished)]
    assert outcomes == ["FINISHED", "FINISHED"]


class Healers:
    """Some healers on one folder, as replicas on one machine have them."""

    def __init__(self, stack: ExitStack) -> None:
        self._spares = forked.Spares(1, healer.main)
        self.channel = ControlChannel(spool_path("fraud", WORKSPACE))
        self.spool = Spool(spool_path("fraud", WORKSPACE))
        self._stack = stack
        self.processes: dict[int, subprocess.Popen[bytes] | Forked] = {}
        self._registry = MlflowRegistry()
        self._sent = 0

    def begin(self, *, in_earnest: bool) -> int:
        """As a server starts one, a new interpreter, or forked."""
        told = HealerSettings(
            model="fraud", actor="replica", overrides={"heal": {"recipe": "anchored"}}, max_wait=0.5
        )
        process: subprocess.Popen[bytes] | Forked = (
            subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            if in_earnest
            else self._spares.popen(COMMAND, subprocess.PIPE, 0, ())
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdin is not None
        process.stdin.write(told.model_dump_json().encode())
        process.stdin.close()
        self.processes[process.pid] = process
        return process.pid

    def standing(self) -> dict[str, Any]:
        return self.channel.status(HEALER)[0]

    def holder(self) -> int | None:
        """The process that heals, by its own word of late."""
        word, at = self.channel.status(HEALER)
        heals = word.get("state") in ("STARTING", "HEALTHY", "DRIFTING", "HEALING", "ROLLED_BACK")
        return word["pid"] if heals and word.get("run_id") and time.time() - at < 3 else None

    def answer(self, batches: int, seed: int) -> None:
        """What fronts would do: answer by what is published, and take labels."""
        published = until(self.channel.published)
        base = self._registry.base(published.base)
        adapter = unpack(published.adapter, sha256=published.sha256, where="channel")
        network = assemble(base, adapter, where="channel")
        encoding = Encoding.model_validate(base.describe()["encoding"])
        for columns, y in drifted(batches, seed):
            self._sent += 1
            raw = {name: np.array(values) for name, values in columns.items()}
            p = network.predict(encoding.encode(raw))
            request = f"r{self._sent}"
            self.spool.append(
                [
                    LoggedRequest(
                        request, raw, p, published.snapshot, published.threshold, time.time()
                    )
                ]
            )
            self.spool.label([Feedback(one, request=request, place=i) for i, one in enumerate(y)])

    def all_read(self) -> bool:
        return not self.standing().get("waiting", 1)


def test_another_replica_takes_over_from_a_healer_that_was_killed_and_nothing_is_lost(
    short_copy: Path, invoke: Invoke
) -> None:
    with ExitStack() as stack:
        healers = Healers(stack)
        first = healers.begin(in_earnest=False)
        until(lambda: healers.holder() == first)
        healers.begin(in_earnest=True)
        healers.answer(3, seed=1)
        until(lambda: healers.standing()["heals"].get("healed"))
        os.kill(first, signal.SIGKILL)
        healers.processes[first].wait()
        healers.answer(2, seed=2)
        second = until(lambda: (holder := healers.holder()) not in (None, first) and holder)
        until(healers.all_read)
        for pid, process in healers.processes.items():
            if pid != first:
                process.send_signal(signal.SIGTERM)
        for pid, process in healers.processes.items():
            assert process.wait(PATIENCE) == (0 if pid != first else -signal.SIGKILL)
        assert second in healers.processes
        require_every_row_once(healers.spool)
    invoke("audit")


def test_whoever_heals_says_so_though_another_one_healed_when_it_looked(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, stop, standing = Mock(), threading.Event(), dict[str, Any]()
    opened = Mock()
    opened.source.backlog.return_value = 0
    opened.source.cursor = Cursor()
    opened.source.notes.return_value = {}
    channel = ControlChannel(spool_path("fraud", WORKSPACE))

    def heal(*_: object) -> None:
        begun = time.time()
        until(lambda: channel.status(HEALER)[1] > begun)
        until(lambda: channel.status(HEALER)[0]["registry_away"])
        standing.update(channel.status(HEALER)[0])
        stop.set()

    asked = iter([RegistryUnreachable("it is out of reach")])

    def away(*_: object) -> dict[str, Any]:  # nor does a registry that is away keep it silent
        for error in asked:
            raise error
        stop.wait(PATIENCE)
        return {}

    replaced = {"healed_here": True, "require_free": None, "settle_earlier": [],
                "open_served": opened, "serving_version": None,
                "where_to_begin": Beginning(Cursor())}  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(
            healer if name == "open_served" else healing, name, Mock(return_value=value)
        )
    monkeypatch.setattr(healing, "heal_served", heal)
    monkeypatch.setattr(healer, "registry_facts", away)
    told = HealerSettings(model="fraud", actor="replica")
    healer.HealerProcess(told, registry, stop).run()
    assert standing["pid"] == os.getpid()
    assert standing["registry_away"] == "it is out of reach"


def test_what_cannot_be_shown_sets_no_batch_apart() -> None:
    said: list[str] = []
    around = Mock(say=said.append, channel=Mock(shared=False))
    one = healing.ModelHealer(around, Mock())
    one._fold = Mock()
    one._fold.apply.side_effect = KeyError("z")
    one._see(example(BatchScored))
    assert "batch, is not shown: KeyError('z')" in said[0]
    around.watch.assert_called_once()


def test_what_waits_for_a_person_is_said_with_the_command_that_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    one = healing.ModelHealer(
        Mock(say=said.append, channel=Mock(shared=False), model="claims"), Mock()
    )
    monkeypatch.setattr(healing, "standing", Mock(return_value=JournalState()))
    one._served = Mock(config=Mock(policy=Policy(**BUDGET)))
    for _ in range(2):  # the second run of a healer has nothing new to say of it
        one._see(example(RunStarted))
    one._see(example(ProposalMade, proposal=17, version=4, reason="12.0% of decisions change"))
    assert said[0].startswith("'claims': mode auto: heals serve within the budget, and are")
    assert "at most 6 heals an hour, 10% of decisions changed by one, 25% by all" in said[0]
    assert said[0].endswith("'selfheal proposals --model claims' lists them")
    assert said[1].startswith("'claims': v4 does not serve yet, proposal 17 waits for a person: 12")
    assert said[1].endswith("'selfheal approve 17 --model claims' shows its plan and asks")
    assert len(said) == 2


def test_a_run_ends_where_a_person_moved_the_champion_to_another_base_and_not_else() -> None:
    channel = Mock(shared=False, published=lambda: Mock(snapshot="s1", base="the run's"))
    one = healing.ModelHealer(Mock(stop=threading.Event(), channel=channel), Mock())
    one._publish("the run's", Mock(snapshot="s1"))
    ends = {}
    for number, error in ((2, ""), (2, "corrupt"), (4, "another tool's"), (3, f"v3 {ELSEWHERE}")):
        one._see(example(ChampionFollowed, version=number, error=error))
        ends[number] = one.wait(0.0)
    assert [number for number, end in ends.items() if end] == [3]
