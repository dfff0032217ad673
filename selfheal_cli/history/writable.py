"""Where files can be written; and one line where they cannot."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from selfheal_cli.errors import NotWritten


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn what the system says of a file of a run into `NotWritten`."""
    try:
        yield
    except OSError as exc:
        raise NotWritten(
            f"{exc.filename or path}: cannot be written ({exc.strerror or exc}); make room or give "
            "the rights, then go on with 'selfheal run --resume'"
        ) from exc


@contextmanager
def whole(path: Path) -> Iterator[TextIO]:
    """A text that appears whole or not at all; what a killed writer left beside it goes away."""
    beside = f".{path.name}."
    for left in path.parent.glob(f"{glob.escape(beside)}*"):
        writer = left.name.removeprefix(beside)
        if writer.isdecimal() and not _is_alive(int(writer)):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{beside}{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's
    return True


def require_writable(*folders: Path) -> None:
    """Refuse early; raises `NotWritten` for a folder that cannot be made or written in."""
    for folder in folders:
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise NotWritten(f"{folder}: {there} is no folder; name another, or move it away")
        if not os.access(there, os.W_OK | os.X_OK):
            raise NotWritten(f"{folder}: {there} is not writable; give the rights, or name another")
