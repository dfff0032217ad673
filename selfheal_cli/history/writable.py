"""Where files can be written; and one line where they cannot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
