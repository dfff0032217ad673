"""Files that appear whole or not at all, whatever ends their writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfheal_cli.events.log import whole

KILLED = """
import os, signal, sys
from pathlib import Path
from selfheal_cli.events.log import whole
with whole(Path("events.json")) as stream:
    stream.write("half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names() -> list[str]:
    return [path.name for path in Path().iterdir()]


def test_what_a_killed_writer_left_goes_away_with_the_next_one(empty_dir: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = names()
    assert left.startswith(".events.json.")
    with whole(Path("events.json")) as stream:
        stream.write("whole")
    assert names() == ["events.json"]
    assert Path("events.json").read_text() == "whole"


def test_what_somebody_else_is_writing_stays(empty_dir: Path) -> None:
    beside = Path(f".events.json.{os.getppid()}")
    beside.write_text("under way")
    with whole(Path("events.json")) as stream:
        stream.write("whole")
    assert beside.exists()


def test_a_writer_that_fails_leaves_what_was_there(empty_dir: Path) -> None:
    Path("events.json").write_text("before")
    with pytest.raises(KeyboardInterrupt), whole(Path("events.json")) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert names() == ["events.json"]
    assert Path("events.json").read_text() == "before"
