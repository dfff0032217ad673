"""A fitted encoding for one request after another: the same inputs to the last bit, all numeric
columns in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.source.encoding import CLIP, Encoding, NumericColumn
from selfheal_cli.source.values import LARGEST

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray


class QuickEncoding:
    """`Encoding.encode` where every column is a number; ``exact`` says whether it is that."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        columns = encoding.columns
        self.exact = all(isinstance(one, NumericColumn) and not one.constant for one in columns)
        if self.exact:
            numeric: list[Any] = list(columns)
            self._mean = np.array([one.mean for one in numeric])
            self._sd = np.array([one.sd for one in numeric])
            self._largest = LARGEST if encoding.contract == 2 else np.inf

    def encode(self, columns: Columns, matrix: FloatArray | None) -> FloatArray:
        """Raw columns to (n, width) float32; ``matrix`` (n, columns) float64 holds the same
        numbers side by side, where somebody has them so.
        """
        if matrix is None or not self.exact:
            return self.encoding.encode(columns)
        scaled = (matrix - self._mean) / self._sd
        scaled[~(np.abs(matrix) <= self._largest)] = 0.0
        if self.encoding.contract == 2:
            scaled += 0.0  # no -0.0
        found: FloatArray = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        return found
