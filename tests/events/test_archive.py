"""Where logs are, and what a model went through."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.archive import find_run, logs_of, run_folder
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import BatchScored, HealPublished, RolledBack, RunStarted
from tests.events.examples import example

Clock = Callable[[], datetime]


def run_of(model: str, run_id: str, workspace: Path, clock: Clock, *kinds: type[Event]) -> Path:
    """A log of a run that went through these kinds of events."""
    log = EventLog(run_folder(run_id, workspace) / "events.jsonl", clock)
    log.append(example(RunStarted, model=model))
    for kind in kinds:
        log.append(example(kind))
    log.close()
    return log.path


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


def test_a_model_s_logs_are_those_of_its_runs(tmp_path: Path, fake_clock: Clock) -> None:
    second = run_of("fraud", "bb", tmp_path, fake_clock, BatchScored, HealPublished)
    run_of("churn", "cc", tmp_path, fake_clock, HealPublished)
    first = run_of("fraud", "aa", tmp_path, fake_clock, RolledBack)
    assert list(logs_of("fraud", tmp_path)) == [first, second]
    assert list(logs_of("nobody", tmp_path)) == []


def test_a_damaged_log_is_not_passed_over(tmp_path: Path, fake_clock: Clock) -> None:
    log = run_of("fraud", "aa", tmp_path, fake_clock, HealPublished)
    log.write_bytes(log.read_bytes().replace(b'"model":"fraud"', b'"model":"fraut"'))
    with pytest.raises(EventLogError, match=r"events\.jsonl:1: its hash does not fit"):
        list(logs_of("fraud", tmp_path))
