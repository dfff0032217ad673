"""Lines that could not be taken: put aside with a reason, counted, and not too many of them."""

from __future__ import annotations

import json
from pathlib import Path

from selfheal_cli.config import OWNER_ONLY
from selfheal_cli.errors import DataError
from selfheal_cli.source.base import REJECTS
from selfheal_cli.source.feed import Line, on_disk

MOST_SHOWN = 10_000  # characters of a line


class Rejects:
    """Writes one JSON object a line: where the line was, why it was put aside, and its text."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[str] = []
        self._path: Path | None = None
        self.count = 0

    def to(self, folder: Path) -> None:
        """Write into a run's folder from now on, anew."""
        self._path = folder / REJECTS
        self._path.unlink(missing_ok=True)
        self._write(*self._waiting)

    def add(self, line: Line, place: str, reason: str) -> None:
        """Put a line aside; raises `DataError` when there are more than may be."""
        self.count += 1
        text = line.text[: 4 * MOST_SHOWN].decode("utf-8", "replace")[:MOST_SHOWN]
        told = {"place": place, "number": line.offset + 1, "reason": reason, "line": text}
        self._write(json.dumps(told, ensure_ascii=False) + "\n")
        if self.count > self._most:
            raise DataError(
                f"{place}: {reason}; {self.count} lines were put aside and --max-rejects "
                f"{self._most} are allowed: correct what sends them, or allow more"
            )

    def _write(self, *lines: str) -> None:
        if self._path is None:
            self._waiting.extend(lines)
        elif lines:
            with on_disk(self._path):
                self._path.touch(OWNER_ONLY)
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.writelines(lines)
