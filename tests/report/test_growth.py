"""A long run's log is folded, exported and told in the memory of a short one's."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.events.log import recover
from selfheal_cli.events.shelf import DiskDict
from selfheal_cli.events.state import LATEST, RowFold, RunView
from selfheal_cli.events.types import (
    AliasMoved,
    BatchScored,
    HealPublished,
    LabelsArrived,
    SnapshotTaken,
    VersionRegistered,
)
from selfheal_cli.report.charts import thinned
from selfheal_cli.report.export import export
from selfheal_cli.report.page import write_page
from selfheal_cli.report.pictures import MOST_DOTS
from selfheal_cli.report.summary import tell
from tests.events.examples import example
from tests.report.logs import log


def stretched(times: int, **options: Any) -> Iterator[Event]:
    """A made-up run of 20 batches, its batches again and again under new numbers."""
    events = log([80, 70] * 10, [60, 75] * 10, **options)
    first = next(place for place, event in enumerate(events) if isinstance(event, HealPublished))
    count = 0
    for event in [*events[:first], *(one for _ in range(times) for one in events[first:-1])]:
        count += isinstance(event, HealPublished)
        yield moved(event, count)
    yield events[-1]


def moved(event: Event, count: int) -> Event:
    event = replace(event, sequence=event.sequence + 1_000 * count)
    if not count:
        return event
    if isinstance(event, SnapshotTaken):
        return replace(event, batch=count, id=f"s{count}")
    if isinstance(event, VersionRegistered):
        return replace(event, snapshot=f"s{count}", version=count + 1)
    return replace(event, batch=count) if isinstance(event, OfBatch) else event


def peak(times: int, folder: Path) -> int:
    tracemalloc.start()
    story = tell(stretched(times))
    export(story.view, folder)
    write_page(story, folder / "report.html")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(story.view.rows) == 20 * times
    return most


@pytest.mark.slow
def test_folding_and_files_take_the_same_memory_for_six_times_the_batches(tmp_path: Path) -> None:
    """In a process of its own: in this one, what other tests left running takes memory too."""
    code = "import sys; from pathlib import Path; from tests.report.test_growth import peak; "
    code += "print(*(peak(times, Path(sys.argv[1])) for times in (2, 10, 60)))"  # the first loads
    told = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True)
    _, short, long = map(int, told.split())
    assert long < 1.5 * short
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 20 * 60


def test_what_a_shelf_gives_back_is_what_memory_would_have(tmp_path: Path) -> None:
    events = list(stretched(2))
    in_memory, on_disk = RowFold(), RowFold.on(DiskDict())
    for event in events:
        in_memory.add(event)
        on_disk.add(event)
    assert dict(on_disk.rows.items()) == in_memory.rows
    assert dict(on_disk.scores.items()) == in_memory.scores
    view = RunView.of(events)
    export(view, tmp_path)
    told = json.loads((tmp_path / "events.json").read_text())
    assert (tmp_path / "events.json").read_text() == json.dumps(told, indent=2) + "\n"
    assert told == [dict(action) for action in view.actions]
    assert [one["kind"] for one in told].count("heal") == view.times(HealPublished) == 40


def test_the_latest_actions_of_several_kinds_come_in_the_logs_order() -> None:
    view = RunView.of(stretched(4))
    latest = view.latest(HealPublished, AliasMoved)
    assert len(latest) == LATEST
    assert [one.kind for one in latest[-4:]] == ["heal", "alias-moved"] * 2
    assert isinstance(latest[-2], HealPublished)
    assert latest[-2].batch == 80


def test_a_page_of_many_versions_shows_some_of_them_and_says_so(tmp_path: Path) -> None:
    page = write_page(tell(stretched(60)), tmp_path / "page.html").read_text()
    assert f"{20 * 60 + 1} versions with figures, one of 2 of them drawn" in " ".join(page.split())
    assert page.count("h0") < MOST_DOTS
    assert "Points are means of 6 batches." in page


def test_rows_for_pictures_are_means_and_keep_rollbacks_and_the_commonest_state() -> None:
    rows = list(RunView.of(stretched(1)).rows.values())[:4]
    rows[0].rolled_back, rows[0].state = True, "HEALING"
    rows[1].z_score = 3.0
    (one,) = thinned(rows, 4)
    assert (one.rolled_back, one.state, one.batch_idx) == (True, "HEALTHY", 3)
    assert one.z_score == pytest.approx(sum(row.z_score for row in rows) / 4)
    assert list(thinned(rows, 1)) == rows


def test_labels_that_come_with_their_batch_count_for_its_row() -> None:
    (batch,) = [event for event in log([70], [60], heals=False) if isinstance(event, BatchScored)]
    folded = RowFold()
    folded.add(example(LabelsArrived, live=batch.live, shadow=batch.shadow))
    folded.add(replace(batch, live=None, shadow=None))
    assert asdict(folded.rows[1])["healed_acc"] == 0.7


def test_rows_that_were_shown_are_forgotten_with_what_comes_of_them_later() -> None:
    folded = RowFold()
    for event in stretched(2):
        folded.add(event)
        if isinstance(event, BatchScored):
            folded.forget(event.batch)
            folded.add(event)
    assert not (folded.rows or folded.scores or folded.monitors)


@pytest.mark.parametrize("whole", [0, 1, 70_000])
def test_a_half_written_line_of_any_length_is_cut_off(tmp_path: Path, whole: int) -> None:
    path = tmp_path / "events.jsonl"
    lines, half = b"x" * whole + b"\n" if whole else b"", b"y" * 200_000
    path.write_bytes(lines + half)
    assert recover(path) == len(half)
    assert path.read_bytes() == lines
    assert recover(path) == 0
