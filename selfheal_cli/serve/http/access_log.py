"""A line for each request: who asked for what, and what came of it; never what was sent.

The file may be moved away at any time, as logrotate does: the next line opens it anew.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from typing import Literal

from selfheal_cli.actor import printable
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.workspace import OWNER_ONLY

MOST_WAITING = 10_000  # lines; scoring does not wait for a disk
MOST_LETTERS = 300  # of what a caller chose


@dataclass(frozen=True, slots=True)
class Access:
    """A request and its answer. ``caller`` is the name of its token; ``at`` is in seconds since
    1970; ``refused`` says why, in a word, where it was.
    """

    at: float
    client: str
    caller: str
    method: str
    path: str
    status: int
    bytes: int
    seconds: float
    request_id: str
    version: str
    refused: str
    agent: str


class AccessLog:
    """Takes lines without waiting; those for which there is no room are counted in ``lost``."""

    def __init__(self, handler: logging.Handler, form: Literal["json", "combined"]) -> None:
        self.lost = 0
        self._text = as_json if form == "json" else as_combined
        self._lines: queue.Queue[logging.LogRecord] = queue.Queue(MOST_WAITING)
        self._entrance = QueueHandler(self._lines)
        self._listener = QueueListener(self._lines, handler)
        self._handler = handler
        self._listener.start()

    def write(self, access: Access) -> None:
        """Have it written."""
        record = logging.makeLogRecord({"msg": self._text(access)})
        try:
            self._entrance.enqueue(record)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what waits."""
        self._listener.stop()
        self._handler.close()


@contextmanager
def opened(path: Path | None, form: Literal["json", "combined"]) -> Iterator[AccessLog | None]:
    """The log at a path, ``-`` for standard output; None where none is wanted.

    Raises `ConfigurationError` where it cannot be written.
    """
    if path is None:
        yield None
        return
    try:
        log = AccessLog(_handler(path), form)
    except OSError as exc:
        raise ConfigurationError(f"--access-log {path}: cannot be written ({exc})") from exc
    try:
        yield log
    finally:
        log.close()


def as_json(access: Access) -> str:
    """A line of JSON."""
    given = {name: _short(value) if isinstance(value, str) else value
             for name, value in asdict(access).items()}  # fmt: skip
    at = datetime.fromtimestamp(access.at, UTC).isoformat(timespec="milliseconds")
    return json.dumps({**given, "at": at, "seconds": round(access.seconds, 6)})


def as_combined(access: Access) -> str:
    """A line in the combined format of Apache and nginx."""
    at = datetime.fromtimestamp(access.at, UTC).strftime("%d/%b/%Y:%H:%M:%S %z")
    told = {name: _quoted(value) for name, value in _texts(access).items()}
    line = f"{told['method']} {told['path']} HTTP/1.1"
    return (
        f'{told["client"] or "-"} - {told["caller"] or "-"} [{at}] "{line}" {access.status} '
        f'{access.bytes} "-" "{told["agent"] or "-"}"'
    )


def _texts(access: Access) -> Mapping[str, str]:
    return {name: value for name, value in asdict(access).items() if isinstance(value, str)}


def _short(text: str) -> str:
    return printable(text)[:MOST_LETTERS]


def _quoted(text: str) -> str:
    return _short(text).replace("\\", "\\\\").replace('"', '\\"')


def _handler(path: Path) -> logging.Handler:
    if str(path) == "-":
        return logging.StreamHandler(sys.stdout)
    return _OwnersFile(path, encoding="utf-8")


class _OwnersFile(WatchedFileHandler):
    """A file that nobody else reads, whenever it is made anew."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).touch(OWNER_ONLY)
        return super()._open()
