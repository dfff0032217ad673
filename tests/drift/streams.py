"""A sample of training rows, and batches that are like them or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from selfheal_cli.drift.kinds import build, parse_monitor
from selfheal_cli.drift.monitor import BatchView, Level, Reading, TrainingSample
from selfheal_cli.records import Rows

TEXTS = ("web", "shop", "phone")


def columns_of(draw: np.random.Generator, rows: int, **shift: float) -> dict[str, Any]:
    """Features a and b around their shift, a flat one, and a text; ``missing`` of b, ``new`` texts.

    ``missing`` and ``new`` are shares.
    """
    columns: dict[str, Any] = {
        "a": draw.normal(shift.get("a", 0.0), 1.0, rows),
        "b": draw.normal(5 + shift.get("b", 0.0), 2.0, rows),
        "flat": np.full(rows, 7.0),
        "kind": np.array(TEXTS, dtype=object)[draw.choice(3, rows, p=(0.6, 0.3, 0.1))],
    }
    columns["b"][draw.random(rows) < shift.get("missing", 0.0)] = np.nan
    columns["kind"][draw.random(rows) < shift.get("new", 0.0)] = "kiosk"
    return columns


def batch(seed: int, rows: int = 100, **shift: float) -> BatchView:
    """``flagged`` is the share decided as 1, ``wrong`` that of errors, ``conflicts`` a count."""
    draw = np.random.default_rng([1, seed])
    scores = np.clip(draw.normal(0.2 + shift.get("scores", 0.0), 0.1, rows), 0, 1)
    return BatchView(
        columns_of(draw, rows, **shift),
        scores.astype(np.float32),
        (draw.random(rows) < shift.get("flagged", 0.1)).astype(np.int8),
        int(shift.get("conflicts", 0)),
        (draw.random(rows) < shift.get("wrong", 0.05)).astype(np.float64),
    )


def sample(rows: int = 4_000) -> TrainingSample:
    draw = np.random.default_rng(0)
    columns = columns_of(draw, rows)
    scores = np.clip(draw.normal(0.2, 0.1, rows), 0, 1).astype(np.float32)
    y = np.zeros(rows, dtype=np.int8)
    return TrainingSample(
        Rows(np.zeros((rows, 3), dtype=np.float32), y, columns),
        scores,
        (draw.random(rows) < 0.1).astype(np.int8),
        rows // 100,
        ("no", "yes"),
        ("a", "b", "flat"),
        {"kind": TEXTS},
        {"a": 0.9, "b": 0.1, "flat": 0.0},
    )


def readings(text: str, *batches: BatchView) -> list[Reading]:
    """What a monitor as on the command line says of batches."""
    monitor = build(parse_monitor(text), sample())
    return [monitor.update(view) for view in batches]


def levels(text: str, *batches: BatchView) -> list[Level]:
    return [reading.level for reading in readings(text, *batches)]
