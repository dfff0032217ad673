"""A record says in which format and on which build it was made, and keeps its meaning."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import FORMAT
from selfheal_cli.events.log import EventLog, keys_of, read
from selfheal_cli.events.types import BatchScored, RunStarted
from selfheal_cli.model.build import numeric_build, why_other_bytes
from selfheal_cli.pipeline.record.replayed import RecordedEvents, run_started
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool
from tests.conftest import Invoke
from tests.events.examples import example
from tests.pipeline import faulty


def first_of(log: Path) -> dict[str, Any]:
    return dict(next(iter(read(log))).as_dict())


def today() -> RunStarted:
    return run_started("r", "fraud", "ann", 0, RunConfig(), "reflexive")


def rewritten(log: Path, **changes: Any) -> None:
    """The same log, chained anew, as if its first event had said something else."""
    events = list(read(log))
    log.unlink()
    times = iter([datetime.fromisoformat(event.at) for event in events])
    writing = EventLog(log, lambda: next(times))
    for event in events:
        writing.append(replace(event, **changes) if isinstance(event, RunStarted) else event)
    writing.close()


def test_a_run_records_its_format_and_the_build_that_its_figures_come_from(
    in_article_run: Path,
) -> None:
    (log,) = in_article_run.glob("mlruns/selfheal/runs/*/events.jsonl")
    said = first_of(log)
    assert said["format"] == FORMAT
    assert {*said["build"]} == {*numeric_build()}
    assert all(said["build"].values())
    with closing(sqlite3.connect(log.with_name("outbox.db"))) as outbox:
        assert outbox.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_what_0_1_0_recorded_of_a_configuration_is_what_a_run_is_told_today(
    unpacked_0_1_0: Path,
) -> None:
    known = 0
    for log in sorted(unpacked_0_1_0.glob("mlruns/selfheal/runs/*/events.jsonl")):
        said = first_of(log)
        assert "format" not in said
        config = recorded(said["config"], where=str(log))
        assert config.model_dump(mode="json") == said["config"]
        known += 1
    assert known > 8


def test_a_resume_on_another_processor_says_so_and_accuses_nobody(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = faulty.at_batch(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    faulty.in_child("run", "--batches", "3", "--no-plots", "--batch-size", "50", prepare=kill)
    (log,) = workdir.glob("mlruns/selfheal/runs/*/events.jsonl")
    elsewhere = {**numeric_build(), "capability": "AVX512", "processor": "Another One"}
    rewritten(log, build=elsewhere, config={**first_of(log)["config"], "seed": 43})
    told = invoke("run", "--resume", "latest", expect=4).stderr
    assert "another processor or build" in told
    assert "capability AVX512, here" in told
    assert "processor Another One, here" in told
    assert "the data or the installed packages" not in told


def test_an_older_record_is_gone_through_by_the_keys_that_it_has(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writing = EventLog(log, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    first, second = example(BatchScored), example(BatchScored, batch=2)
    for event in (example(RunStarted), first, second):
        writing.append(event)
    writing.close()
    record = RecordedEvents(read(log))
    assert record.match(today()) is not None
    assert record.match(replace(first, abstained=1)) is not None
    with pytest.raises(EventLogError, match=r"z was 0\.5, is 0\.25"):
        record.match(replace(second, z=0.25, abstained=1))


def test_a_record_of_today_has_to_come_out_with_all_its_keys(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    writing = EventLog(log, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    writing.append(today())
    writing.append(example(BatchScored))
    writing.close()
    record = RecordedEvents(read(log))
    record.match(today())
    with pytest.raises(EventLogError, match="abstained was None, is 1"):
        record.match(example(BatchScored, abstained=1))


def test_what_a_later_selfheal_wrote_is_refused_in_words(
    workdir: Path, invoke: Invoke, tmp_path: Path
) -> None:
    log = workdir / "mlruns" / "selfheal" / "runs" / "abc" / "events.jsonl"
    writing = EventLog(log, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    writing.append(example(RunStarted, format=FORMAT + 1, versions={"selfheal": "9.0.0"}))
    writing.close()
    told = invoke("report", "abc", expect=4).stderr
    assert f"is of format {FORMAT + 1}, which a later selfheal wrote (9.0.0)" in told
    for path, opened in ((tmp_path / "outbox.db", Outbox), (spool_path("m", tmp_path), Spool)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA user_version = {FORMAT + 1}")
        with pytest.raises(EventLogError, match="a later selfheal wrote"):
            opened(path)


def test_a_file_of_0_1_0_stays_of_its_format(stored_by_0_1_0: Path) -> None:
    path = spool_path("claims")
    Spool(path).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (0,)


def test_why_bytes_differ_is_said_by_what_was_recorded() -> None:
    here = numeric_build()
    first = example(RunStarted, versions={})
    same = replace(first, build=here)
    assert why_other_bytes(same) == "the data or the installed packages have changed since"
    other = replace(first, versions={"torch": "2.6.0"})
    assert f"torch 2.6.0, here {here['torch']}" in why_other_bytes(other)
    same = replace(first, versions={"torch": str(here["torch"])})
    assert "which was not recorded then" in why_other_bytes(same)


def test_each_line_that_0_1_0_wrote_is_an_event_that_gives_the_same_line(
    unpacked_0_1_0: Path,
) -> None:
    lines = 0
    for log in sorted(unpacked_0_1_0.glob("mlruns/selfheal/runs/*/events.jsonl")):
        with log.open(encoding="utf-8") as stream:
            for event, line in zip(read(log), stream, strict=True):
                assert json.dumps(json.loads(line)["data"]) == json.dumps(keys_of(event))
                lines += 1
    assert lines > 200
