"""Runs over rows that keep coming: stopped, interrupted, resumed, audited, with late labels."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import LabelSettings, NetworkSettings, RunConfig
from selfheal_cli.config_sources import StdinSettings
from selfheal_cli.errors import DataError
from selfheal_cli.events.log import read, verify
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.pipeline.prepare.rows import past_of
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.records import LateLabels
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.sources.feed import PARTITION, Keeping, KeepingFeed, KeptLines, Past, positions_in
from selfheal_cli.sources.stream import KEPT, UnboundedSource
from tests.sources.kinds import Clock, ScriptedFeed, as_lines

ROWS = 160
TRAIN = 60


def lines() -> list[str]:
    import pandas as pd

    draw = np.random.default_rng(3)
    label = draw.random(ROWS) < 0.4
    moved = np.where(np.arange(ROWS) > 90, 1.5, 0.0)
    frame = pd.DataFrame(
        {
            "amount": draw.normal(np.where(label, 2.0, 0.0)) + moved,
            "age": draw.integers(18, 80, ROWS),
            "y": np.where(label, "yes", "no"),
        }
    )
    return as_lines(frame)


CONFIG = RunConfig.model_validate(
    {
        "source": StdinSettings(target="y", train_rows=TRAIN, record_rows=True, max_wait=5.0),
        "network": NetworkSettings(epochs=1),
        "heal": {"recipe": "anchored"},
        "rules": ("amount > 1 => 1",),
        "batch_size": 20,
        "plots": False,
    }
)


@dataclass
class Place:
    """A registry, a folder, and runs there over a script of lines."""

    registry: MemoryRegistry
    clock: Clock
    config: RunConfig = CONFIG
    last: Any = None

    def around(self, **values: Any) -> RunContext:
        fixed: dict[str, Any] = {"follow_seconds": 0.0}
        return RunContext(
            self.registry, lambda: datetime.now(UTC), "ann", workspace=Path("work"),
            **(fixed | values),
        )  # fmt: skip

    def source(
        self, steps: list[list[str] | float], log: Path | None = None, *, live: bool = True
    ) -> UnboundedSource:
        keeping, kept = Keeping(), None if log is None else log.with_name(KEPT)
        first = 0 if kept is None else positions_in(kept).get(PARTITION, 0)
        self.last = ScriptedFeed(self.clock, steps, first)
        feed: Any = KeepingFeed(self.last, keeping) if live else None
        if kept is not None:
            feed = KeptLines(kept, feed)
        settings = self.config.source
        assert isinstance(settings, StdinSettings)
        return UnboundedSource(
            settings, feed, None, batch_size=self.config.batch_size, batches=None,
            past=Past() if log is None else past_of(log), keeping=keeping if live else None,
            live=live, clock=self.clock,
        )  # fmt: skip

    def run(self, steps: list[list[str] | float], **values: Any) -> Finished:
        return run(self.config, self.source(steps), self.around(**values))

    def resume(self, log: Path, steps: list[list[str] | float], **values: Any) -> Finished:
        return resume(log, self.around(**values), lambda config: self.source(steps, log))


@pytest.fixture
def place(empty_dir: Path) -> Place:
    return Place(MemoryRegistry(), Clock())


def log_of() -> Path:
    (log,) = Path("work").glob("runs/*/events.jsonl")
    return log


def taken(log: Path) -> list[tuple[int, int, int]]:
    """Batch, rows and offset of each batch on record."""
    return [
        (event.batch, event.rows, event.offsets[PARTITION])
        for event in read(log)
        if event.kind == "rows-taken"
    ]


def kinds(log: Path) -> list[str]:
    return [event.kind for event in read(log)]


def after(reads: int) -> Callable[[], bool]:
    """Says that it is time to stop from then on."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > reads

    return stop


def test_a_stream_that_ends_is_finished_and_its_log_is_whole(place: Place) -> None:
    done = place.run([lines()])
    assert done.outcome == "FINISHED"
    assert verify(log_of()) > 10
    assert taken(log_of()) == [(n, 20, TRAIN + 20 * n) for n in range(1, 6)]
    assert place.last.closed
    assert place.last.committed == {PARTITION: ROWS}


def test_a_quiet_stream_that_is_stopped_has_everything_written(place: Place) -> None:
    done = place.run([lines()[:85], *[0.2] * 50], stop=after(4))
    assert (done.outcome, done.endless, done.left) == ("KILLED", True, 0)
    assert taken(log_of()) == [(1, 20, 80), (2, 5, 85)]
    assert verify(log_of()) > 5
    assert kinds(log_of())[-2] == "stream-stopped" or "stream-stopped" in kinds(log_of())


def test_a_stopped_stream_goes_on_as_if_it_had_not_been_stopped(place: Place) -> None:
    all_lines = lines()
    place.run([all_lines[:100], *[0.2] * 9], stop=after(3))
    log = log_of()
    resumed = place.resume(log, [all_lines[100:]])
    assert resumed.outcome == "FINISHED"
    assert taken(log) == [(n, 20, TRAIN + 20 * n) for n in range(1, 6)]
    other = Place(MemoryRegistry(), Clock())
    whole = run(
        other.config, other.source([all_lines]), replace(other.around(), workspace=Path("w"))
    )
    assert whole.view.finished.stages == resumed.view.finished.stages
    assert whole.view.finished.notes == resumed.view.finished.notes


def test_a_crash_in_mid_batch_loses_nothing_and_scores_nothing_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch was cut short by the clock: only the record knows which rows were in it."""
    all_lines = lines()

    def crash(recipes: Any, before: Any, task: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recipes, "heal", crash)
        with pytest.raises(KeyboardInterrupt):
            place.run([all_lines[:67], 6.0, all_lines[67:100]])
    log = log_of()
    assert taken(log)[:1] == [(1, 7, 67)]
    place.clock.now = 0.0
    done = place.resume(log, [all_lines[67:]])
    assert done.outcome == "FINISHED"
    assert [rows for _, rows, _ in taken(log)] == [7, 20, 20, 20, 20, 13]
    batches = [event.batch for event in read(log) if event.kind == "batch"]
    assert batches == [1, 2, 3, 4, 5, 6]
    assert sum(event.rows for event in read(log) if event.kind == "batch") == 100


def test_a_quiet_stream_serves_the_champion_that_others_set(place: Place) -> None:
    """And a resume finds the move where it was."""
    all_lines, seen = lines(), []

    def stop() -> bool:
        kinds_now = kinds(log_of())
        if "registered" in kinds_now and not seen:
            baseline = next(v for v in place.registry.versions("fraud", limit=99) if not v.batch)
            seen.append(baseline.version)
            place.registry.set_alias("fraud", "champion", baseline.version)
        return len(seen) > 0 and "batch" in kinds_now

    place.run([all_lines[:80], *[0.2] * 20], stop=stop)
    log = log_of()
    assert "stream-stopped" in kinds(log)
    assert place.resume(log, [all_lines[80:]]).outcome == "FINISHED"


def test_who_is_killed_while_a_run_fails_loses_no_figure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.config = CONFIG.model_copy(
        update={"source": CONFIG.source.model_copy(update={"max_rejects": 1})}
    )
    stored: list[str] = []
    finish = RunRecorder.finish

    def look(recorder: RunRecorder, end: Any) -> None:
        (file,) = Path("work").glob("runs/*/outbox.db")
        with closing(sqlite3.connect(file)) as outbox:
            stored.extend(kind for (kind,) in outbox.execute("SELECT kind FROM jobs"))
        finish(recorder, end)

    monkeypatch.setattr(RunRecorder, "finish", look)
    with pytest.raises(DataError):
        place.run([lines()[:90], ["a", "b"]])
    assert "metrics" in stored


def test_too_many_broken_lines_end_the_run_with_what_it_has(place: Place) -> None:
    place.config = CONFIG.model_copy(
        update={"source": CONFIG.source.model_copy(update={"max_rejects": 1})}
    )
    with pytest.raises(DataError, match=r"source\.max_rejects 1 are allowed"):
        place.run([lines()[:90], ["a", "b"]])
    (log,) = Path("work").glob("runs/*/events.jsonl")
    assert taken(log) == [(1, 20, 80)]
    assert [e.outcome for e in read(log) if e.kind == "run-finished"] == ["FAILED"]
    assert len(log.with_name("rejects.ndjson").read_text().splitlines()) == 2


def test_labels_that_arrive_by_themselves_heal(place: Place) -> None:
    """As a topic of labels brings them: for the batch before, by place."""
    place.config = CONFIG.model_copy(update={"labels": LabelSettings(regime="arriving")})
    source = place.source([lines()])
    plain = source.batches

    def late(start: int = 1) -> Any:
        before = None
        for batch in plain(start):
            y = batch.rows.y.copy()
            rows = replace(batch.rows, y=np.full(len(y), -1, dtype=np.int8))
            came = None
            if before is not None:
                where = np.full(len(before), batch.index - 1)
                came = LateLabels(where, np.arange(len(before)), before)
            before = y
            yield replace(batch, rows=rows, late=came)

    source.batches = late  # type: ignore[method-assign]
    run(place.config, source, place.around())
    came = [event.as_dict() for event in read(log_of()) if event.kind == "labels"]
    assert [(one["batch"], one["rows"]) for one in came] == [(n, 20) for n in range(1, 5)]
    assert "heal" in kinds(log_of())


def test_an_audit_reads_what_the_run_kept_and_no_more(place: Place) -> None:
    place.run([lines()])
    again = place.source([], log_of(), live=False)
    assert [len(batch.rows) for batch in again.batches()] == [20] * 5
