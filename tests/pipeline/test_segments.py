"""A run that watches and heals segments, stopped and resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    NetworkSettings,
    RunConfig,
    SegmentSettings,
    TableSettings,
)
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.registry.memory import MemoryRegistry
from tests.cli.test_segments import table
from tests.pipeline.test_outside import clock

KINDS = (events.SegmentsDrifted, events.SegmentsRanked, events.SnapshotTaken)


def config() -> RunConfig:
    return RunConfig(
        source=TableSettings(path=Path("rows.csv"), target="y", drop=("payment", "country")),
        network=NetworkSettings(epochs=1),
        heal=HealSettings(recipe="anchored", pre_heal="figures"),
        labels=LabelSettings(regime="delayed", delay=2),
        segments=SegmentSettings(by="country", heal=True, window=100),
        batches=14,
        plots=False,
    )


def told(done: Finished) -> list[Any]:
    """What the log says of segments, and adapters by hash."""
    return [
        one.sha256 if isinstance(one, events.SnapshotTaken) else one.as_dict()
        for one in read(done.folder / "events.jsonl")
        if isinstance(one, KINDS)
    ]


def test_a_run_with_segments_comes_to_the_same_once_it_is_resumed(empty_dir: Path) -> None:
    table().to_csv("rows.csv", index=False)
    around = RunContext(MemoryRegistry(), clock, "ann", follow_seconds=0)
    whole = replace(around, registry=MemoryRegistry(), workspace=Path("whole"))
    expected = told(run(config(), open_source(config()), whole))
    first = next(one for one in expected if isinstance(one, dict))
    assert [one["segment"] for one in first["segments"]] == ["DE"]
    assert first["batch"] < 14
    scored = list[Event]()

    def see(event: Event) -> None:
        if isinstance(event, events.BatchScored):
            scored.append(event)

    stopping = replace(around, watchers=[see], stop=lambda: len(scored) == 12)
    stopped = run(config(), open_source(config()), stopping)
    assert stopped.outcome == "KILLED"
    told_at_the_stop = told(stopped)[-1]
    resumed = resume(stopped.folder / "events.jsonl", around, open_source)
    again = told(resumed)
    again.remove(told_at_the_stop)  # of the rows until then
    assert again == expected
