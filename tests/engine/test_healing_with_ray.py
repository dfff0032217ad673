"""Segments that learn in actors of a Ray cluster of some nodes of loopback; `.ci/engines` installs
Ray.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: .ci/engines"),
]


def heals(nodes: int, event: str = "nothing") -> list[dict[str, Any]]:
    own = {"OMP_NUM_THREADS": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.heals", str(nodes), event],
        cwd=Path(__file__).parents[2], env=os.environ | own, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@cache
def here() -> list[str]:
    return [one["sha256"] for one in heals(0)]


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_actors_on_any_number_of_nodes_learn_what_one_process_does(nodes: int) -> None:
    told = heals(nodes)
    assert [one["sha256"] for one in told] == here()
    assert [one["answered"] for one in told] == [24] * 5


@pytest.mark.parametrize("event", ["actor dies", "actor stands still", "node dies", "node comes"])
def test_what_happens_to_actors_and_nodes_in_the_middle_of_a_heal_changes_no_byte(
    event: str,
) -> None:
    told = heals(2, event)
    assert [one["sha256"] for one in told] == here()
    answered = [one["answered"] for one in told]
    assert answered[:2] == [24, 24]
    # what an actor owed is done by who asked
    assert (answered[2] < 24) == (event != "node comes")
    assert answered[4] > 0
