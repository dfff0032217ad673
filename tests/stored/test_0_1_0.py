"""What selfheal 0.1.0 stored means today what it meant then."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from selfheal_cli.events.archive import find_run
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import BatchScored
from selfheal_cli.pipeline.runs.recovery import settle_earlier, where_to_begin
from selfheal_cli.pipeline.runs.run import RunContext
from selfheal_cli.pipeline.runs.serving import ServingOptions, heal_served, open_served
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Spool
from tests.conftest import Invoke, enter, moved

WORKSPACE = Path("mlruns") / "selfheal"
FINISHED = ("fraud", "kinds", "program", "wrapped")
MODELS = (*FINISHED, "claims", "interrupted", "late", "unfinished")


@pytest.fixture(scope="module")
def looked_at(
    unpacked_0_1_0: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """One copy for all tests that only look; and what 0.1.0 said of it."""
    import shutil

    folder = tmp_path_factory.mktemp("looked_at")
    shutil.copytree(unpacked_0_1_0, folder, dirs_exist_ok=True)
    expected = json.loads((folder / "expected.json").read_text())
    moved(Path(expected["folder"]), folder)
    return folder, expected


@pytest.fixture
def said(looked_at: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What 0.1.0 said, with the copy as the working folder."""
    enter(looked_at[0], monkeypatch)
    return looked_at[1]


def rows_of(model: str, names: list[str]) -> pd.DataFrame:
    """The rows that 0.1.0 scored."""
    if model in ("fraud", "interrupted", "unfinished"):
        drawn = np.random.default_rng(2).standard_normal((30, len(names)))
        return pd.DataFrame(drawn.astype(np.float32), columns=names)
    table = {"late": "claims", "program": "wrapped"}.get(model, model)
    frame = pd.read_csv(f"{table}.csv")[:30]
    given = frame.drop(columns=frame.columns[-1])
    return given.set_axis(names, axis=1) if model == "program" else given


@pytest.mark.parametrize("model", MODELS)
def test_the_first_versions_and_the_last_score_by_mlflow_to_the_bit_as_0_1_0_did(
    model: str, said: dict[str, Any]
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}")
    same_build = said["build"]["capability"] == torch.backends.cpu.get_cpu_capability()
    same_build &= said["build"]["torch"] == torch.__version__
    scores = [*said["scores"][model].items()]
    for number, then in scores[:3] + scores[3:][-1:]:
        loaded = mlflow.pyfunc.load_model(f"models:/{model}/{number}")
        given = rows_of(model, loaded.metadata.get_input_schema().input_names())
        now = np.asarray(loaded.predict(given), dtype=np.float32).reshape(30, -1)
        before = np.array(then["probabilities"], dtype=np.float32)
        if same_build:
            assert np.array_equal(now, before), number
        assert np.allclose(now, before, atol=1e-6), number
        assert list(loaded.predict(given, params={"output": "label"})) == then["labels"]


def covers(now: Any, then: Any) -> bool:
    """Whether all that was said is said still; keys may have been added."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(covers(now.get(key), then[key]) for key in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(covers, now, then))
    return bool(now == then)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_listed_as_0_1_0_listed_it(
    model: str, said: dict[str, Any], invoke: Invoke
) -> None:
    for command in ("snapshots", "champion", "history"):
        now = json.loads(invoke(command, "--model-name", model, "--json").stdout)
        assert covers(now, said["models"][model][command]), command


def test_logs_are_read_and_a_finished_run_is_exported_and_reported_as_it_was(
    said: dict[str, Any], invoke: Invoke, tmp_path: Path
) -> None:
    finished = 0
    for run, then in said["runs"].items():
        log = find_run(run)
        assert log is not None
        events = list(read(log))
        assert (len(events), events[-1].digest) == (then["events"], then["head"])
        if not then["finished"]:
            continue
        finished += 1
        assert verify(log) == then["events"]
        invoke("export", run, "--export-dir", str(tmp_path), "--no-plots")
        assert (tmp_path / "metrics.csv").read_text() == then["metrics.csv"]
        invoke("report", run, "--out", str(tmp_path / "report.html"))
        assert run[:8] in (tmp_path / "report.html").read_text()
    assert finished >= len(FINISHED)


def test_what_0_1_0_recorded_is_replayed(said: dict[str, Any], invoke: Invoke) -> None:
    told = invoke("audit", "--replay", "4", "--model-name", "fraud").stdout
    assert "comes out the same" in told


def test_own_settings_and_policies_are_read(said: dict[str, Any], invoke: Invoke) -> None:
    assert "own" in invoke("policy", "list").stdout
    config = json.loads(invoke("config", "show", "--json").stdout)
    assert "0.4" in json.dumps(config)  # the policy's fidi_threshold


def test_the_audit_names_the_healer_that_was_killed_and_nothing_else(
    said: dict[str, Any], invoke: Invoke
) -> None:
    told = json.loads(invoke("audit", "--model-name", "claims", "--json", expect=4).stdout)
    (one,) = told["findings"]
    assert "ends without its last event" in one["problem"]


@pytest.mark.parametrize("model", ["claims", *FINISHED])
def test_a_model_of_0_1_0_is_rolled_back_and_what_was_finished_holds(
    model: str, stored_by_0_1_0: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.1.0 did not note which modules its user had allowed
    monkeypatch.setenv("SELFHEAL_ALLOW_MODULE", "scoring_net")
    of = ("--model-name", model)
    numbers = [one["version"] for one in versions_of(invoke, model) if one["phase"] == "post-heal"]
    serves = json.loads(invoke("champion", *of, "--json").stdout)["version"]
    target = next(number for number in numbers if number != serves)
    invoke("rollback", "--to", str(target), "--yes", "--reason", "tried", *of)
    assert json.loads(invoke("champion", *of, "--json").stdout)["version"] == target
    invoke("rollback", "--to-previous", "--yes", *of)
    assert json.loads(invoke("champion", *of, "--json").stdout)["version"] == serves
    if model in FINISHED:
        report = json.loads(invoke("audit", *of, "--json").stdout)
        assert report["holds"]
        assert report["checked"]["made before manifests: held against its run's log alone"] > 0


def versions_of(invoke: Invoke, model: str) -> list[dict[str, Any]]:
    told = json.loads(invoke("snapshots", "--model-name", model, "--json").stdout)
    versions: list[dict[str, Any]] = told["versions"] if isinstance(told, dict) else told
    return versions


def run_of(model: str, said: dict[str, Any]) -> str:
    return next(run for run, one in said["runs"].items() if one["model"] == model)


def test_an_outbox_that_0_1_0_left_is_flushed(stored_by_0_1_0: Path, invoke: Invoke) -> None:
    run = run_of("late", json.loads(Path("expected.json").read_text()))
    outbox = WORKSPACE / "runs" / run / "outbox.db"
    before = pending_in(outbox)
    assert before > 0
    invoke("flush", run)
    assert pending_in(outbox) == 0
    assert len(versions_of(invoke, "late")) == 9  # a baseline, and two a heal of four
    invoke("flush", run)
    assert len(versions_of(invoke, "late")) == 9
    invoke("audit", "--model-name", "late")


@pytest.mark.parametrize("model", ["interrupted", "unfinished"])
def test_a_run_of_0_1_0_that_was_killed_is_resumed_to_its_end(
    model: str, stored_by_0_1_0: Path, invoke: Invoke
) -> None:
    said = json.loads(Path("expected.json").read_text())
    invoke("run", "--resume", run_of(model, said))
    log = find_run(run_of(model, said))
    assert log is not None
    verify(log)
    events = list(read(log))
    assert [e.batch for e in events if isinstance(e, BatchScored)] == [1, 2, 3, 4, 5, 6]
    invoke("audit", "--model-name", model)


def test_a_spool_of_0_1_0_is_healed_on_from_where_it_was_left(
    stored_by_0_1_0: Path, fake_clock: Callable[[], datetime], invoke: Invoke
) -> None:
    registry, now = MlflowRegistry(), lambda: datetime.now(UTC)
    ended = settle_earlier("claims", WORKSPACE, registry, now, "ann", 5.0)
    assert len(ended) == 1  # the healer that was killed
    with closing(Spool(spool_path("claims", WORKSPACE))) as spool:
        beginning = where_to_begin("claims", WORKSPACE, spool)
        assert beginning.notice == ""
        cursor = beginning.cursor
        left = spool.rows_beyond(cursor.answered)
        assert left > 0
        pace = Pace(40, 1e9, lambda: 0.0, lambda seconds: True)
        wanted = ServingOptions("claims", {}, None, WORKSPACE)
        served = open_served(registry, wanted, spool, pace)
        around = RunContext(registry, now, "ann", follow_seconds=0, workspace=WORKSPACE)
        done = heal_served(served, registry, around, lambda lease: cursor)
    batches = [e for e in read(done.folder / "events.jsonl") if isinstance(e, BatchScored)]
    assert sum(event.rows for event in batches) == left
    invoke("audit", "--model-name", "claims")
