"""Rejects: rows with schema violations, written to a file with their reason, up to a limit.

The same for tables and for streams.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from selfheal_cli.errors import DataError
from selfheal_cli.sources.feed import on_disk
from selfheal_cli.sources.violation import MOST_SHOWN, at
from selfheal_cli.workspace import OWNER_ONLY

REJECTS = "rejects.ndjson"  # in a run's folder: rows that were put aside


class Rejects:
    """Writes one JSON object a line: where the line was, why it was put aside, and its text."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._reasons: Counter[str] = Counter()
        self._waiting: list[str] = []
        self._path: Path | None = None
        self.count = 0

    def to(self, folder: Path) -> None:
        """Write into a run's folder from now on, anew."""
        self._path = folder / REJECTS
        self._path.unlink(missing_ok=True)
        self._write(*self._waiting)

    def add(self, place: str, number: int, reason: str, kind: str, text: str) -> None:
        """Put row ``number`` aside; ``kind`` is its reason without the value.

        Raises `DataError` where there are more than the limit.
        """
        self.count += 1
        self._reasons[kind] += 1
        reject = {"place": place, "number": number, "reason": reason, "line": text[:MOST_SHOWN]}
        self._write(json.dumps(reject, ensure_ascii=False) + "\n")
        if self.count > self.most:
            raise DataError(
                f"{at(place, reason)}; {self.count} lines were put aside and source.max_rejects "
                f"{self.most} are allowed: correct what sends them, or allow more"
            )

    def notes(self) -> dict[str, int]:
        """How many were put aside, in all and by reason."""
        if not self.count:
            return {}
        reasons = {f"put aside: {kind}": count for kind, count in self._reasons.most_common()}
        return {f"lines put aside ({REJECTS})": self.count, **reasons}

    def _write(self, *lines: str) -> None:
        if self._path is None:
            self._waiting.extend(lines)
        elif lines:
            with on_disk(self._path):
                self._path.touch(OWNER_ONLY)
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.writelines(lines)
