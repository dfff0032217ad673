"""Where logs are, and what a model went through."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from selfheal_cli.errors import EventLogError
from selfheal_cli.history.archive import (
    find_run,
    model_history,
    record_operation,
    run_folder,
    run_history,
)
from selfheal_cli.history.event_log import EventLog, read
from selfheal_cli.history.events import ACTIONS, Kind
from selfheal_cli.records import AliasMove

Clock = Callable[[], datetime]


def run_of(model: str, run_id: str, workspace: Path, clock: Clock, *kinds: Kind) -> Path:
    """A log of a run that went through these kinds of events."""
    log = EventLog(run_folder(run_id, workspace) / "events.jsonl", clock)
    log.append(Kind.RUN_STARTED, {"model": model})
    for kind in kinds:
        log.append(kind, {"run": run_id})
    log.close()
    return log.path


def move(model: str, target: int) -> AliasMove:
    """An alias moved by hand."""
    return AliasMove(model, "champion", 1, target, "ops", "2026-01-01T00:00:00+00:00", "why")


def test_a_run_s_files_are_in_a_folder_of_its_id(tmp_path: Path) -> None:
    assert run_folder("abc", tmp_path) == tmp_path / "runs" / "abc"
    assert run_folder("abc") == Path("mlruns/selfheal/runs/abc")


def test_a_run_is_found_by_its_id_or_the_beginning_of_it(tmp_path: Path, fake_clock: Clock) -> None:
    first = run_of("fraud", "aa11", tmp_path, fake_clock)
    second = run_of("fraud", "ab22", tmp_path, fake_clock)
    assert find_run("aa11", tmp_path) == first
    assert find_run("ab", tmp_path) == second
    assert find_run("11", tmp_path) is None


def test_a_beginning_that_several_runs_share_is_refused_with_their_ids(
    tmp_path: Path, fake_clock: Clock
) -> None:
    for run_id in ("ab22", "aa11", "b333"):
        run_of("fraud", run_id, tmp_path, fake_clock)
    with pytest.raises(EventLogError, match="several runs begin with 'a': aa11, ab22; give more"):
        find_run("a", tmp_path)


def test_latest_is_the_run_that_was_written_last(tmp_path: Path, fake_clock: Clock) -> None:
    older = run_of("fraud", "zz", tmp_path, fake_clock)
    newer = run_of("fraud", "aa", tmp_path, fake_clock)
    os.utime(older, (1_000, 1_000))
    os.utime(newer, (2_000, 2_000))
    assert find_run("latest", tmp_path) == newer
    os.utime(older, (3_000, 3_000))
    assert find_run("latest", tmp_path) == older


def test_without_runs_none_is_found(tmp_path: Path) -> None:
    assert find_run("latest", tmp_path) is None
    assert find_run("abc", tmp_path) is None


def test_a_run_s_history_is_what_changed_the_model(tmp_path: Path, fake_clock: Clock) -> None:
    log = run_of("fraud", "aa", tmp_path, fake_clock, *Kind)
    assert [event.kind for event in run_history(log)] == [k for k in Kind if k in ACTIONS]
    assert Kind.BATCH not in ACTIONS


def test_operations_by_hand_are_one_chain_a_model(tmp_path: Path, fake_clock: Clock) -> None:
    for target in (2, 3):
        record_operation(move("fraud", target), fake_clock, tmp_path)
    record_operation(move("churn", 9), fake_clock, tmp_path)
    events = list(read(tmp_path / "models" / "fraud" / "events.jsonl"))
    assert [(event.sequence, event.kind) for event in events] == [
        (1, Kind.ALIAS_MOVED),
        (2, Kind.ALIAS_MOVED),
    ]
    assert [event.data for event in events] == [
        move("fraud", 2).as_dict(),
        move("fraud", 3).as_dict(),
    ]


def test_a_model_s_history_is_that_of_its_runs_and_operations_by_time(
    tmp_path: Path, fake_clock: Clock
) -> None:
    run_of("fraud", "bb", tmp_path, fake_clock, Kind.BATCH, Kind.HEAL)
    record_operation(move("fraud", 2), fake_clock, tmp_path)
    run_of("churn", "cc", tmp_path, fake_clock, Kind.HEAL)
    record_operation(move("churn", 9), fake_clock, tmp_path)
    run_of("fraud", "aa", tmp_path, fake_clock, Kind.ROLLBACK, Kind.TRAINED, Kind.HEAL_FAILED)
    record_operation(move("fraud", 3), fake_clock, tmp_path)
    found = model_history("fraud", tmp_path)
    assert [(event.kind, event.data.get("run", event.data.get("target"))) for event in found] == [
        (Kind.HEAL, "bb"),
        (Kind.ALIAS_MOVED, 2),
        (Kind.ROLLBACK, "aa"),
        (Kind.HEAL_FAILED, "aa"),
        (Kind.ALIAS_MOVED, 3),
    ]


def test_a_model_that_nobody_touched_has_no_history(tmp_path: Path, fake_clock: Clock) -> None:
    run_of("fraud", "aa", tmp_path, fake_clock, Kind.HEAL)
    assert model_history("churn", tmp_path) == []


def test_a_damaged_log_is_not_passed_over(tmp_path: Path, fake_clock: Clock) -> None:
    log = run_of("fraud", "aa", tmp_path, fake_clock, Kind.HEAL)
    log.write_bytes(log.read_bytes().replace(b'"run":"aa"', b'"run":"bb"'))
    with pytest.raises(EventLogError, match=r"events\.jsonl:2: its hash does not fit"):
        model_history("fraud", tmp_path)
