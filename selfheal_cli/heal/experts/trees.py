"""Boosted trees on the latest rows, fitted anew every so many: what no line in features tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.heal.anchor import FEWEST_ROWS, MOST_ROWS, LatestRows
from selfheal_cli.model import boosters
from selfheal_cli.model.mixture import TREES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

LATEST = (2_500, MOST_ROWS)  # labelled rows that each is fitted on, at most
EVERY = (500, 1_000)  # labelled rows between two fits
ROUNDS = 40
FITTED = {
    "num_leaves": 15, "learning_rate": 0.15, "max_bin": 63, "lambda_l2": 1.0,
    "min_data_in_leaf": 20, "deterministic": True, "force_row_wise": True, "num_threads": 1,
    "verbosity": -1, "seed": 0,
}  # fmt: skip


class BoostedTrees:
    """LightGBM's, small on few rows and on many; with ``classes`` of them.

    They begin with the latest training rows, ``trained`` (n, d) and (n,). ``since`` is how many
    labelled rows came after each fit.
    """

    names = tuple(f"trees_{rows}" for rows in LATEST)

    def __init__(
        self, classes: int, trained: tuple[Any, Any], state: Mapping[str, Any], served: Tensor
    ) -> None:
        self._classes = classes
        self._rows = LatestRows(state.get("x", trained[0]), state.get("y", trained[1]))
        self._since = state.get("since", np.array(EVERY, dtype=np.int64))
        # (bytes,) uint8, as `boosters.as_tensor` makes them; a fit that was not published is
        # remembered, too
        self.texts = torch.from_numpy(state["texts"]) if "texts" in state else served

    def state(self) -> dict[str, Any]:
        """What `BoostedTrees` begins from again."""
        return {
            "x": self._rows.x,
            "y": self._rows.y,
            "since": self._since,
            "texts": self.texts.numpy(),
        }

    def predict(self, x: FloatArray, otherwise: Matrix) -> Matrix:
        """Probabilities (experts, n, K) of rows (n, d); until there are trees, ``otherwise``, and
        no numbers of trees that fail.
        """
        known = boosters.boosters_of(self.texts) or (None,) * TREES
        return np.stack([_each(one, x, otherwise) for one in known])

    def learn(self, x: FloatArray, y: Any) -> set[str]:
        """Take rows (n, d) and their classes (n,), and fit what is due.

        Returns the names of those that failed at it: what they were before goes on.
        """
        self._rows.add(x, y)
        self._since = self._since + len(y)
        due = [
            place
            for place, every in enumerate(EVERY)
            if self._since[place] >= every and len(self._rows.y) >= FEWEST_ROWS
        ]
        due = [place for place in due if len(np.unique(self._rows.y[-LATEST[place] :])) > 1]
        if not due:
            return set()
        stored = bytes(self.texts.numpy()).split(boosters.APART) if len(self.texts) else []
        texts = [text.decode() for text in stored] or [""] * TREES
        failed = set[str]()
        for place in due:
            self._since[place] = 0
            try:
                texts[place] = self._fit(LATEST[place])
            except Exception:  # LightGBM's own kind cannot be named before it is loaded
                failed.add(self.names[place])
        self.texts = boosters.as_tensor(texts)
        return failed

    def _fit(self, latest: int) -> str:
        from lightgbm import Dataset, train

        several = self._classes > 2
        goal = {"objective": "multiclass", "num_class": self._classes} if several else {
            "objective": "binary"
        }  # fmt: skip
        rows = Dataset(self._rows.x[-latest:], self._rows.y[-latest:], free_raw_data=True)
        return boosters.text_of(train({**FITTED, **goal}, rows, ROUNDS))


def _each(booster: Any, x: FloatArray, otherwise: Matrix) -> Matrix:
    if booster is None:
        return otherwise
    try:
        p: Matrix = boosters.probabilities(booster, x).astype(np.float64)
    except Exception:  # as of fits: what it is cannot be named before LightGBM is loaded
        return np.full_like(otherwise, np.nan)
    return np.stack([1.0 - p, p], axis=1) if p.ndim == 1 else p
