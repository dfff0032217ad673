"""Several processes with one model: a fork follows, and goes on where its parent was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfheal_cli import SelfHealing
from selfheal_cli.api import replica
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.records import Phase
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.writer import RegistryWriter
from tests.conftest import Invoke, until
from tests.forked import in_fork
from tests.test_api import module, rows_of

__all__ = ["module"]
PROGRAM = """
import json, os, signal, sys, time
import numpy as np, torch
from torch import nn
from selfheal_cli import SelfHealing
from selfheal_cli.api import replica
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from tests.test_api import rows_of

module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
module.load_state_dict(torch.load("weights.pt", weights_only=True))
(x, y), ids = rows_of(600, 2, 2.0), [str(n) for n in range(600)]


def until(true):
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, model.state
        time.sleep(0.05)


model = SelfHealing(module, *rows_of(1_000, 1), name="forked")
for at in range(0, 300, 50):
    model.score(x[at:at + 50], ids=ids[at:at + 50])
model.label(ids[:200], y[:200])
until(lambda: model.state.labels == 200)
assert model.state.heals_here
parent = os.getpid()
if os.fork():
    until(lambda: os.path.exists("followed"))
    os.kill(parent, signal.SIGKILL)
for at in range(300, 600, 50):
    model.score(x[at:at + 50], ids=ids[at:at + 50])
told = model.label(ids[:400], y[:400])  # those that the parent was told, once more
here = model.state.heals_here
open("followed", "w").close()
until(lambda: model.state.heals_here and model.state.run_id and not model.state.waiting)
told_again = model.label(ids, y)
summary = model.close()
print(json.dumps({
    "followed": not here, "joined": told.joined, "repeated": told.repeated,
    "again": [told_again.joined, told_again.repeated, len(told_again.unknown)],
    "error": summary.state.error,
    "better": float((((model.predict(x) >= 0.5) == y).mean())),
    "served": summary.state.serving == summary.state.champion,
}), flush=True)
os._exit(0)
"""


def gone_through(folder: Path) -> tuple[int, int]:
    """Rows and labels by the logs of every run, without a batch in which a process was killed."""
    rows = labels = 0
    for log in (folder / "mlruns/selfheal/runs").glob("*/events.jsonl"):
        begun = False
        for event in map(json.loads, log.read_text().splitlines()):
            if event["kind"] == "rows-taken":
                begun, before = bool(event["data"]["rows"]), labels
            elif event["kind"] == "labels":
                labels += event["data"]["rows"]
            elif event["kind"] == "batch":
                begun, rows = False, rows + event["data"]["rows"]
        labels = before if begun else labels  # it is gone through again
    return rows, labels


@pytest.mark.slow
def test_a_fork_follows_hands_over_and_heals_on_once_its_parent_is_killed(
    workdir: Path, module: nn.Module, invoke: Invoke
) -> None:
    torch.save(module.state_dict(), "weights.pt")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}, cwd=workdir,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("better") > 0.9
    assert told == {
        "followed": True, "joined": 200, "repeated": 200, "again": [200, 400, 0],
        "error": "", "served": True,
    }  # fmt: skip
    rows, labels = gone_through(workdir)
    assert rows == 600
    assert 400 <= labels <= 600  # those that a killed process had gathered are learned as history
    invoke("audit", "--model", "forked")


@pytest.mark.usefixtures("forked_worker")
def test_a_row_that_was_scored_durably_is_known_though_its_process_is_killed_at_once(
    workdir: Path, module: nn.Module
) -> None:
    x, y = rows_of(50, 2)
    ids = [str(n) for n in range(50)]
    with SelfHealing(module, *rows_of(1_000, 1), name="credit") as model:

        def killed() -> None:
            asyncio.run(model.ascore(x, ids=ids, durable=True))
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_fork(killed) == -signal.SIGKILL
        assert model.label(ids, y).joined == 50


def test_a_heal_that_the_registry_had_not_when_its_process_was_killed_is_gone_on_from(
    workdir: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rows_of(300, 2, 2.0)

    def prepared(*given: Any) -> Prepared:
        monkeypatch.setattr(RegistryWriter, "_carry_next", lambda writer: False)
        return prepare(*given)

    def killed() -> None:
        monkeypatch.setattr(replica, "prepare", prepared)
        model = SelfHealing(module, *rows_of(1_000, 1), name="credit", mode="sync")
        model.observe(x, y)
        until(lambda: model.state.heals.get("healed", 0) > 0)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_fork(killed) == -signal.SIGKILL
    with SelfHealing(module, *rows_of(1_000, 1), name="credit", mode="sync") as model:
        until(lambda: model.state.run_id)
    registry = MlflowRegistry()
    baselines = registry.versions("credit", phase=Phase.BASELINE)
    assert len(baselines) == 2  # what was wrapped, and that with what heals need
    assert registry.alias("credit", "baseline") == baselines[0].version
    champion = registry.version("credit", registry.alias("credit", "champion") or 0)
    assert champion.phase is Phase.POST_HEAL
    assert float(((model.predict(x) >= 0.5) == y).mean()) > 0.9
