"""A monitor over a part of the rows, in a process of its own; the parts add up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.drift.kinds import build, kind_of, parse_monitor
from selfheal_cli.drift.monitor import BatchView, TrainingSample
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.records import Rows
from selfheal_cli.sources.values import numbers, texts

if TYPE_CHECKING:
    from selfheal_cli.drift.monitor import MonitorState, Reading
    from selfheal_cli.records import Columns

OF_A_MODEL = ("scores", "errors")


class PartitionMonitor:
    """A monitor of columns, such as "psi" or "fidi:on=V14+V9", that compares with ``training``.

    Raises `ConfigurationError` for one that looks at a model's answers, and for rows that lack a
    column.

    >>> training = pd.DataFrame({"amount": np.arange(1_000.0)})
    >>> here, there = (PartitionMonitor("two-sample", training) for _ in range(2))
    >>> _ = here.update(training[::2] + 500, batch=1), there.update(training[1::2] + 500, batch=1)
    >>> PartitionMonitor("two-sample", training).merge([here.state(), there.state()]).level
    <Level.ALARM: 'alarm'>
    """

    def __init__(self, monitor: str, training: pd.DataFrame) -> None:
        settings = parse_monitor(monitor, "monitor")
        if not kind_of(settings.name).reads or set(settings.on) & {*OF_A_MODEL}:
            raise ConfigurationError(
                f"monitor '{monitor}' looks at a model's answers: here only columns are there; "
                "allowed: fidi, psi, two-sample, category and missing, on columns"
            )
        self._numeric = tuple(
            str(name) for name in training if pd.api.types.is_numeric_dtype(training[name])
        )
        self._names = tuple(map(str, training))
        columns, rows = self._columns(training), len(training)
        empty = np.zeros((rows, 0), dtype=np.float32), np.zeros(rows, dtype=np.int8)
        known = {
            name: tuple(sorted({text for text in columns[name] if text is not None}))
            for name in self._names
            if name not in self._numeric
        }
        sample = TrainingSample(
            Rows(*empty, columns), empty[0][:, :0], empty[1], 0, ("no", "yes"), self._numeric,
            known, {},
        )  # fmt: skip
        self._monitor = build(settings, sample)

    def update(self, rows: pd.DataFrame, *, batch: int) -> Reading:
        """Take rows of the batch of that number, and say what this partition alone shows."""
        columns = self._columns(rows)
        none = np.zeros(len(rows), dtype=np.int8)
        view = BatchView(columns, none.astype(np.float32), none, 0, np.empty(0), batch)
        return self._monitor.update(view)

    def state(self) -> MonitorState:
        """What it counted, for `merge` elsewhere; raises `ConfigurationError` where it cannot."""
        return self._monitor.state()

    def merge(self, states: Sequence[MonitorState]) -> Reading:
        """Take what was counted of other rows, and say what holds of all of them."""
        return self._monitor.merge(states)

    def _columns(self, frame: pd.DataFrame) -> Columns:
        absent = [name for name in self._names if name not in frame]
        if absent:
            raise ConfigurationError(
                f"rows: column '{absent[0]}' is missing; training rows had: "
                f"{', '.join(self._names)}"
            )
        columns: dict[str, Any] = {
            name: numbers(frame[name]) if name in self._numeric else texts(frame[name])
            for name in self._names
        }
        return columns
