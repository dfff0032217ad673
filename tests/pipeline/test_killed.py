"""A run that is killed at any moment ends, once resumed, as if nothing had happened."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import enter
from tests.pipeline.killed import forked, go_on, settings, start, what_came_of_it
from tests.trained import train_before_a_fork

MOMENTS = 30


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, store_template: Path
) -> tuple[dict[str, Any], int]:
    """What a run comes to that nobody kills, and how many calls it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        train_before_a_fork(settings())  # so no moment falls into it, where nothing is written
        assert forked(lambda: start(settings()), calls=folder / "calls") == 0
        return what_came_of_it(), int((folder / "calls").read_text())


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_run_comes_to_the_same_once_it_is_resumed(
    moment: int, uninterrupted: tuple[dict[str, Any], int], workdir: Path
) -> None:
    expected, calls = uninterrupted
    kill_at = random.Random(moment).randrange(1, calls)  # noqa: S311
    forked(lambda: start(settings()), kill_at=kill_at)
    assert forked(lambda: go_on(settings())) == 0
    assert what_came_of_it() == expected


def test_a_run_may_be_killed_again_while_it_is_resumed(
    uninterrupted: tuple[dict[str, Any], int], workdir: Path
) -> None:
    expected, calls = uninterrupted
    forked(lambda: start(settings()), kill_at=calls // 2)
    for again in (3, 4, 5):
        forked(lambda: go_on(settings()), kill_at=again * calls // 6)
    forked(lambda: go_on(settings()))
    assert what_came_of_it() == expected
