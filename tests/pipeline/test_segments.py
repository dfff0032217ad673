"""A run that watches and heals segments, killed and resumed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
from selfheal_cli.pipeline.runs.run import run
from tests.cli.test_segments import table
from tests.pipeline.killed import around, forked, go_on

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


def told(folder: Path, store: Path, *work: Callable[[], Any]) -> list[Any]:
    """What the log says of segments, and adapters by hash, after work in a new folder."""
    folder.mkdir()
    shutil.copy(store, folder / "mlflow.db")
    table().to_csv(folder / "rows.csv", index=False)
    os.chdir(folder)
    for one in work:
        forked(one)
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    return [
        one.sha256 if isinstance(one, events.SnapshotTaken) else one.as_dict()
        for one in read(log)
        if isinstance(one, KINDS)
    ]


@pytest.mark.slow
def test_a_run_with_segments_comes_to_the_same_once_it_is_resumed(
    empty_dir: Path, store_template: Path
) -> None:
    def die(event: Event) -> None:
        if isinstance(event, events.BatchScored) and event.batch == 12:
            os.kill(os.getpid(), signal.SIGKILL)

    expected = told(
        empty_dir / "whole", store_template, lambda: run(config(), open_source(config()), around())
    )
    first = next(one for one in expected if isinstance(one, dict))
    assert [one["segment"] for one in first["segments"]] == ["DE"]
    assert first["batch"] < 14
    resumed = told(
        empty_dir / "resumed", store_template,
        lambda: run(config(), open_source(config()), replace(around(), watchers=[die])),
        lambda: go_on(config()),
    )  # fmt: skip
    assert resumed == expected
