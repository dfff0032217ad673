"""Joins labels that come with their row's key to the row's batch and place."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.records import LateLabels
from selfheal_cli.sources.first_contract import WHOLE
from selfheal_cli.sources.profile import UNKNOWN, as_classes
from selfheal_cli.sources.values import RowContract

if TYPE_CHECKING:
    from selfheal_cli.sources.ndjson import Object

MOST_KEYS = 1_000_000  # rows whose label may still come; the oldest are dropped
MOST_EARLY = 100_000  # labels that wait for their row


class LabelJoin:
    """Remembers where the rows of each key were, and the labels that came before their row.

    ``counts`` holds labels that joined nothing: of keys that never came or were dropped, repeated
    ones, or no value of the target.
    """

    def __init__(
        self,
        key: str,
        target: str,
        labels: tuple[str, ...],
        contract: RowContract = 2,
        *,
        most_keys: int = MOST_KEYS,
        most_early: int = MOST_EARLY,
    ) -> None:
        self._key, self._target, self._labels = key, target, labels
        self._contract = contract
        self._most_keys, self._most_early = most_keys, most_early
        self._rows: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._early: OrderedDict[str, int] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def late(self, batch: int, labels: Iterable[Object]) -> LateLabels | None:
        """The labels of rows in batches before ``batch``, of waiting and of new ``labels``.

        Call it before `remember` of the same batch.
        """
        self._early |= self._checked(list(labels))
        joined = [
            (*self._rows.pop(key), self._early.pop(key))
            for key in list(self._early)
            if key in self._rows
        ]
        for key in list(self._early)[: max(0, len(self._early) - self._most_early)]:
            del self._early[key]
            self.counts["labels of unknown rows"] += 1
        if not joined:
            return None
        where, place, y = zip(*joined, strict=True)
        return LateLabels(np.array(where), np.array(place), np.array(y, dtype=np.int8))

    def remember(self, batch: int, rows: Sequence[Object]) -> None:
        """The rows of a batch, in their places; a key that comes again is its last row's."""
        for place, row in enumerate(rows):
            key = as_key(row.get(self._key))
            if key is None:
                self.counts["rows without a key"] += 1
                continue
            if key in self._rows:
                self.counts["rows whose key came again"] += 1
                del self._rows[key]
            self._rows[key] = (batch, place)
        while len(self._rows) > self._most_keys:
            self._rows.popitem(last=False)

    def notes(self) -> dict[str, int]:
        """Counts of what joined nothing so far; waiting labels count as unknown."""
        waiting = {"labels of unknown rows": len(self._early)} if self._early else {}
        return dict(self.counts + Counter(waiting))

    def _checked(self, labels: Sequence[Object]) -> dict[str, int]:
        """The class by key of the usable labels; the others are counted."""
        values = pd.Series([fields.get(self._target) for fields in labels], dtype="object")
        classes = as_classes(values, self._labels, self._contract)
        by_key: dict[str, int] = {}
        for fields, label in zip(labels, classes.tolist(), strict=True):
            key = as_key(fields.get(self._key))
            if label == UNKNOWN or key is None:
                self.counts["labels without a key or a known value"] += 1
            elif key in by_key or key in self._early or key in self._done:
                self.counts["labels given again"] += 1
            else:
                by_key[key] = label
                self._done[key] = None
        while len(self._done) > self._most_keys:
            self._done.popitem(last=False)
        return by_key


def as_key(value: Any) -> str | None:
    """A key as text, so that 7, 7.0 and "7" are one; None where there is none.

    >>> as_key(7.0), as_key("7"), as_key(" ")
    ('7', '7', None)
    """
    text = "" if value is None else str(value).strip()
    return WHOLE.sub(r"\1", text) or None
