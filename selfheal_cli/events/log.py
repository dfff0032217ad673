"""An append-only log of JSON lines, numbered and chained by hash.

Each line holds the sha256 of itself and of the line before it, so that an edit, a removal or a
swap shows; the end of a finished log is its `run-finished` line.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from selfheal_cli.errors import EventLogError, StorageError
from selfheal_cli.events.event import FIRST_FORMAT, FORMAT, Event
from selfheal_cli.events.types import (
    AliasMoved,
    MoveRefused,
    RunFinished,
    RunResumed,
    RunStarted,
    VersionRegistered,
    event_of,
)
from selfheal_cli.workspace import OWNER_ONLY, OWNERS_FOLDER


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn what the system says of a file of a run into `StorageError`."""
    try:
        yield
    except OSError as exc:
        raise _not_written(path, exc) from exc


def _not_written(path: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"{exc.filename or path}: cannot be written ({exc.strerror or exc}); make room or give "
        "the rights, then go on with 'selfheal run --resume'"
    )


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
    """Refuse early; raises `StorageError` for a folder that cannot be made or written in."""
    for folder in folders:
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise StorageError(f"{folder}: {there} is no folder; name another, or move it away")
        if not os.access(there, os.W_OK | os.X_OK):
            raise StorageError(
                f"{folder}: {there} is not writable; give the rights, or name another"
            )


Clock = Callable[[], datetime]
GENESIS = "0" * 64
BLOCK = 65_536  # bytes that are looked at together
END_OF_LINE = b',"digest":"' + b"0" * 64 + b'"}\n'
# what each line ends with: keys are in the order of their names, the digest comes last
END = re.compile(
    rb',"kind":"(?P<kind>[a-z-]+)","previous":"(?P<previous>[0-9a-f]{64})",'
    rb'"sequence":(?P<sequence>\d+),"digest":"(?P<digest>[0-9a-f]{64})"}\n\Z'
)
LONGEST_END = 320  # bytes, with the longest name of a kind and twenty digits
STAMP = ("sequence", "at", "previous")  # what the log gives an event beside its digest
AFTER_THE_END = (VersionRegistered, AliasMoved, MoveRefused, RunResumed)


class EventLog:
    """The writing end of a log. One writer at a time; each line is handed to the system whole.

    Raises `StorageError` where the disk is full or the rights are missing; what was appended before
    stays whole.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._sequence, self._head = 0, GENESIS
        with written(path):
            path.parent.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
            if path.exists():
                for event in read(path):
                    self._sequence, self._head = event.sequence, event.digest
            path.touch(OWNER_ONLY)
            self._stream = path.open("ab", buffering=0)
            self._size = os.fstat(self._stream.fileno()).st_size

    @property
    def head(self) -> str:
        """Digest of the last line."""
        return self._head

    def append(self, event: Event) -> Event:
        """Write one event, and return it as it stands in the log.

        Raises ValueError for what JSON cannot hold (NaN, infinity).
        """
        at = self._clock().isoformat(timespec="milliseconds")
        event = replace(event, sequence=self._sequence + 1, at=at, previous=self._head)
        body = _body(event)
        event = replace(event, digest=_digest(body))
        self._write(_line(body, event.digest).encode())
        self._sequence, self._head = event.sequence, event.digest
        return event

    def _write(self, line: bytes) -> None:
        try:
            left = memoryview(line)
            while left:  # the system may take a part of it, on a disk that is nearly full
                left = left[self._stream.write(left) :]
        except OSError as exc:
            self._stream.truncate(self._size)  # no half line, should there be room again
            raise _not_written(self.path, exc) from exc
        self._size += len(line)

    def sync(self) -> None:
        """What was appended is on disk when it returns. Any thread may call."""
        with written(self.path):
            os.fsync(self._stream.fileno())

    def discard(self) -> None:
        """Remove a log that nothing was written to."""
        self.close()
        if self._sequence == 0:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """No more events."""
        self._stream.close()


def recover(path: Path) -> int:
    """Cut off a last line that a crash left half-written; returns the bytes that went."""
    try:
        with path.open("r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            whole = _whole(stream, size)
            if whole < size:
                stream.truncate(whole)
                os.fsync(stream.fileno())
    except FileNotFoundError as exc:
        raise EventLogError(f"{path}: no such event log") from exc
    return size - whole


def _whole(stream: BinaryIO, size: int) -> int:
    """Where the last whole line ends; looked for from the end."""
    end = size
    while end > 0:
        start = max(0, end - BLOCK)
        stream.seek(start)
        newline = stream.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read(path: Path) -> Generator[Event, None, None]:
    """The events of a log; raises `EventLogError` at the first line that does not hold."""
    sequence, head = 0, GENESIS
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                event = _parse(line, f"{path}:{number}")
                if (event.sequence, event.previous) != (sequence + 1, head):
                    raise EventLogError(
                        f"{path}:{number}: event {event.sequence} does not follow event "
                        f"{sequence}; a line was removed, swapped or put in"
                    )
                sequence, head = event.sequence, event.digest
                yield event
    except FileNotFoundError as exc:
        raise EventLogError(f"{path}: no such event log") from exc
    except UnicodeDecodeError as exc:
        raise EventLogError(f"{path}: not text after event {sequence}") from exc


def read_only(path: Path, kinds: Collection[type[Event]]) -> Generator[Event, None, None]:
    """The events of some kinds, the whole chain checked: only these
    are parsed, and none is written out again to compare. Raises `EventLogError` as `read` does.
    """
    wanted = {kind.kind.encode() for kind in kinds}
    sequence, head = 0, GENESIS.encode()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            end = END.search(line, max(0, len(line) - LONGEST_END))
            body = line[: -len(END_OF_LINE)] + b"}"
            if end is None or hashlib.sha256(body).hexdigest().encode() != end["digest"]:
                raise EventLogError(f"{path}:{number}: its hash does not fit: the line was edited")
            if (int(end["sequence"]), end["previous"]) != (sequence + 1, head):
                raise EventLogError(
                    f"{path}:{number}: event {int(end['sequence'])} does not follow event "
                    f"{sequence}; a line was removed, swapped or put in"
                )
            sequence, head = sequence + 1, end["digest"]
            if end["kind"] in wanted:
                yield _event(json.loads(line), end["digest"].decode(), f"{path}:{number}")


def last_digest(path: Path) -> str:
    """Of the last whole line of a log; empty where there is none."""
    try:
        with path.open("rb") as stream:
            end = _whole(stream, stream.seek(0, os.SEEK_END))
            stream.seek(max(0, end - LONGEST_END))
            line = END.search(stream.read(min(end, LONGEST_END)))
    except FileNotFoundError:
        return ""
    return line["digest"].decode() if line else ""


def verify(path: Path) -> int:
    """Check the whole of a finished run's log; returns the number of events.

    After a run's end there may be what the registry was brought later, or the run was resumed.
    Raises `EventLogError` where a line was edited, removed (the last included), swapped or added.
    """
    count, ended = 0, False
    for event in read(path):
        count += 1
        if ended and not isinstance(event, AFTER_THE_END):
            raise EventLogError(f"{path}:{count}: an event after the run's end")
        if isinstance(event, (RunFinished, RunResumed)):
            ended = isinstance(event, RunFinished)
    if not ended:
        raise EventLogError(f"{path}: ends after {count} events without '{RunFinished.kind}'")
    return count


def _parse(line: str, where: str) -> Event:
    try:
        if not line.endswith("\n"):
            raise ValueError("the line is cut short")
        record = json.loads(line)
        digest = record.pop("digest")
        body = _json(record)
        if _line(body, digest) != line or _digest(body) != digest:
            raise ValueError("its hash does not fit: the line was edited")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise EventLogError(f"{where}: {exc}") from exc
    return _event(record, digest, where)


def _event(record: Mapping[str, Any], digest: str, where: str) -> Event:
    """The event that a line holds; raises `EventLogError` for what is none."""
    try:
        line, data = {name: record[name] for name in STAMP}, record["data"]
        if record["kind"] == RunStarted.kind and data.get("format", FIRST_FORMAT) > FORMAT:
            raise ValueError(
                f"is of format {data['format']}, which a later selfheal wrote "
                f"({data.get('versions', {}).get('selfheal', 'unknown')}); this one reads formats "
                f"up to {FORMAT}: use that one"
            )
        return event_of(record["kind"], data, **line, digest=digest)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise EventLogError(f"{where}: {exc}") from exc


def keys_of(event: Event) -> dict[str, Any]:
    """The event's own keys as they come back from a log."""
    keys: dict[str, Any] = json.loads(_json(event.as_dict()))
    return keys


def _body(event: Event) -> str:
    stamp = {name: getattr(event, name) for name in STAMP}
    return _json({**stamp, "kind": event.kind, "data": event.as_dict()})


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _line(body: str, digest: str) -> str:
    return f'{body[:-1]},"digest":"{digest}"}}\n'
