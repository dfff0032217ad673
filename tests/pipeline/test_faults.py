"""A full disk, rights taken away, a locked store: one clear line, and then all is there."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from selfheal_cli.events.archive import find_run
from selfheal_cli.events.log import read
from selfheal_cli.events.types import BatchScored
from tests.conftest import PATIENCE, Invoke, enter
from tests.pipeline import faulty
from tests.pipeline.killed import what_came_of_it


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> dict[str, Any]:
    """What the run comes to where nothing fails."""
    folder, before = (tmp_path_factory.mktemp(name) for name in ("undisturbed", "before"))
    for place in (folder, before):
        shutil.copy(store_template, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(before, patch)  # trains and loads what children, which are forked, then have
        assert CliRunner().invoke(main, [*faulty.RUN, "--batches", "1"]).exit_code == 0
        enter(folder, patch)
        ended = faulty.in_child(*faulty.RUN)
        assert ended.code == 0, ended.stderr
        return what_came_of_it()


def size_of(name: str) -> int:
    log = find_run("latest")
    assert log is not None
    return log.with_name(name).stat().st_size


def log_is_full() -> None:
    """A part of the next line still fits."""
    faulty.limit_files(size_of("events.jsonl") + 100)


def outbox_is_full() -> None:
    faulty.limit_files(size_of("outbox.db-wal"))


@pytest.mark.parametrize(("fault", "batch"), [(log_is_full, 3), (outbox_is_full, 1)])
def test_a_disk_that_is_full_ends_the_run_in_one_line_and_resume_completes_it(
    fault: Callable[[], None],
    batch: int,
    workdir: Path,
    undisturbed: dict[str, Any],
) -> None:
    ended = faulty.in_child(*faulty.RUN, prepare=faulty.at_batch(batch, fault))
    assert ended.code == 4, ended
    assert ended.stderr.count("\n") == 1
    assert "cannot be" in ended.stderr
    assert "make room" in ended.stderr
    assert "selfheal run --resume" in ended.stderr
    resumed = faulty.in_child(*faulty.RESUME)
    assert resumed.code == 0, resumed.stderr
    assert what_came_of_it() == undisturbed


def test_a_store_that_cannot_grow_does_not_stop_the_run_and_flush_brings_the_rest(
    workdir: Path, undisturbed: dict[str, Any], invoke: Invoke
) -> None:
    def store_is_full() -> None:
        faulty.limit_files((workdir / "mlflow.db").stat().st_size)

    with closing(sqlite3.connect("mlflow.db")) as store, store:  # the largest file by far
        store.execute("CREATE TABLE padding AS SELECT zeroblob(30000000)")
    ended = faulty.in_child(*faulty.RUN, prepare=faulty.at_batch(2, store_is_full))
    assert ended.code == 4, ended
    assert ended.stderr.count("\n") == 1
    assert "bring them with 'selfheal flush'" in ended.stderr
    flushed = faulty.in_child("flush")
    assert flushed.code == 0, flushed
    invoke("export", "latest", "--no-plots")
    assert what_came_of_it() == undisturbed
    invoke("audit")


def test_flush_closes_a_run_that_was_killed_behind_its_last_event(
    workdir: Path, invoke: Invoke
) -> None:
    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfheal_cli.pipeline.runs.run.publish", killed)
        assert faulty.in_child(*faulty.RUN).code == -signal.SIGKILL
    assert "'selfheal flush' brings it" in invoke("audit", expect=4).stdout
    assert ": 0 writes brought\n" in invoke("flush").stdout
    assert "Everything holds" in invoke("audit").stdout
    assert "Nothing waits" in invoke("flush").stdout


def without_rights() -> None:
    faulty.renounce_root()
    faulty.at_batch(2, lambda: Path().chmod(0o555))()


def test_a_folder_made_read_only_in_mid_stream_is_told_and_resume_completes_the_run(
    workdir: Path, undisturbed: dict[str, Any]
) -> None:
    ended = faulty.in_child(*faulty.RUN, prepare=without_rights)
    Path().chmod(0o755)
    assert ended.code == 4, ended
    assert ended.stderr.count("\n") == 1
    assert "monitoring_export: cannot be written" in ended.stderr
    assert "give the rights" in ended.stderr
    assert "selfheal run --resume" in ended.stderr
    resumed = faulty.in_child(*faulty.RESUME)
    assert resumed.code == 0, resumed
    assert what_came_of_it() == undisturbed


def test_an_export_folder_without_rights_is_said_before_anything_is_trained(workdir: Path) -> None:
    Path("figures").mkdir(mode=0o555)
    ended = faulty.in_child("run", "--export-dir", "figures", prepare=faulty.renounce_root)
    assert ended.code == 4, ended
    assert "figures is not writable" in ended.stderr
    assert (ended.stderr.count("\n"), ended.output) == (1, "")
    assert not Path("mlruns").exists()


def test_a_store_that_another_process_has_locked_is_waited_for_and_the_run_scores_on(
    workdir: Path, undisturbed: dict[str, Any]
) -> None:
    locker, refused = faulty.Locker(), threading.Event()

    def release() -> None:
        assert refused.wait(PATIENCE)
        locker.release()

    def prepare() -> None:
        faulty.short_of_patience(refused)
        faulty.at_batch(1, locker.lock, patience=PATIENCE)()
        faulty.at_batch(4, release, patience=PATIENCE)()

    ended = faulty.in_child(*faulty.RUN, prepare=prepare)
    assert ended.code == 0, ended
    assert ended.stderr == ""
    log = find_run("latest")
    assert log is not None
    waiting = {e.batch: e.pending_writes for e in read(log) if isinstance(e, BatchScored)}
    scored_while_locked = [waiting[batch] for batch in range(2, 5)]
    assert scored_while_locked == sorted(scored_while_locked)
    assert waiting[4] >= 4  # two versions a heal and more, of two batches
    assert what_came_of_it() == undisturbed
