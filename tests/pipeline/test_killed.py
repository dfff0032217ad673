"""A run that is killed at any moment ends, once resumed, as if nothing had happened."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEPTH, enter
from tests.pipeline.killed import forked, go_on, settings, start, what_came_of_it

MOMENTS = 2 * DEPTH  # one in each part of the run


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, store_template: Path
) -> tuple[dict[str, Any], int]:
    """What a run comes to that nobody kills, and how many calls it takes."""
    folder, before = (tmp_path_factory.mktemp(name) for name in ("uninterrupted", "before"))
    for place in (folder, before):
        shutil.copy(store_template, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(before, patch)
        start(settings())  # trains and loads what children, which are forked, then have
        enter(folder, patch)
        assert forked(lambda: start(settings()), calls=folder / "calls") == 0
        return what_came_of_it(), int((folder / "calls").read_text())


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_run_comes_to_the_same_once_it_is_resumed(
    moment: int, uninterrupted: tuple[dict[str, Any], int], workdir: Path
) -> None:
    expected, calls = uninterrupted
    part = calls / MOMENTS
    kill_at = 1 + int(part * (moment + random.Random(moment).random()))  # noqa: S311
    forked(lambda: start(settings()), kill_at=kill_at)
    assert forked(lambda: go_on(settings())) == 0
    assert what_came_of_it() == expected


def test_a_run_may_be_killed_again_while_it_is_resumed(
    uninterrupted: tuple[dict[str, Any], int], workdir: Path
) -> None:
    expected, calls = uninterrupted
    forked(lambda: start(settings()), kill_at=calls // 2)
    forked(lambda: go_on(settings()), kill_at=5 * calls // 6)
    forked(lambda: go_on(settings()))
    assert what_came_of_it() == expected
