"""Streams that drift: a table, pictures, tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

Rows = np.ndarray[Any, Any]


def table(count: int, seed: int, moved: bool = False, classes: int = 2) -> tuple[Rows, Rows]:
    """12 features, of which three are scaled and shifted where they ``moved``."""
    drawn = np.random.default_rng(seed)
    x = drawn.standard_normal((count, 12)).astype(np.float32)
    score = x[:, 0] + 0.8 * x[:, 1] - 0.7 * x[:, 2] + 0.5 * x[:, 3] * x[:, 0]
    score += 0.4 * drawn.standard_normal(count)
    y = np.digitize(score, [0.3] if classes == 2 else [-0.6, 0.9]).astype(np.int64)
    if moved:
        x[:, 0] = 0.5 * x[:, 0] + 1.5
        x[:, 1] = x[:, 1] - 1.5
        x[:, 2] = 2 * x[:, 2]
    return x, y


def tokens(count: int, seed: int, moved: bool = False, _classes: int = 2) -> tuple[Rows, Rows]:
    """12 tokens of 1 to 31; some become others where they ``moved``."""
    drawn = np.random.default_rng(seed)
    x = drawn.integers(1, 32, (count, 12))
    y = ((x < 12).sum(1) + 0.6 * drawn.standard_normal(count) > 4.2).astype(np.int64)
    if moved:
        x = np.where((x >= 8) & (x < 12), x + 12, x)
    return x.astype(np.float32), y


def pictures(
    count: int, seed: int, moved: bool = False, classes: int = 2, side: int = 32
) -> tuple[Rows, Rows]:
    """3 x side x side, a bright stripe whose place is the class; dim and darker where ``moved``."""
    drawn = np.random.default_rng(seed)
    x = 0.6 * drawn.standard_normal((count, 3, side, side)).astype(np.float32)
    y = drawn.integers(0, classes, count)
    width = side // classes
    for place in range(classes):
        x[y == place, :, place * width : (place + 1) * width, :] += 0.5
    if moved:
        x = (
            x * 0.5
            - 0.4 * x[:, :, ::-1].mean((2, 3), keepdims=True)
            + 0.3 * np.linspace(-1, 1, side, dtype=np.float32)[None, None, :, None]
        )
    return x.reshape(count, -1).astype(np.float32), y.astype(np.int64)


def mixed(count: int, seed: int, moved: bool = False, _classes: int = 2) -> tuple[Rows, Rows]:
    """8 numbers and 4 tokens of 0 to 7."""
    drawn = np.random.default_rng(seed)
    x = np.hstack([drawn.standard_normal((count, 8)), drawn.integers(0, 8, (count, 4))])
    score = x[:, 0] + 0.8 * x[:, 1] + 0.5 * (x[:, 8] - 3.5) + 0.4 * drawn.standard_normal(count)
    y = (score > 0).astype(np.int64)
    if moved:
        x[:, 0] = 0.5 * x[:, 0] + 1.5
    return x.astype(np.float32), y


def masked(count: int, seed: int, moved: bool = False, _classes: int = 2) -> tuple[Rows, Rows]:
    """6 tokens and a mask of 6."""
    x, _ = tokens(count, seed)
    x[:, 6:] = 1
    y = ((x[:, :6] < 12).sum(1) > 2).astype(np.int64)
    if moved:
        x[:, :6] = np.where((x[:, :6] >= 8) & (x[:, :6] < 12), x[:, :6] + 12, x[:, :6])
    return x, y
