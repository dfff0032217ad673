"""Boosted trees on the latest rows, fitted anew every so many: what no line in features tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.heal.anchor import FEWEST_ROWS, MOST_ROWS, LatestRows
from selfheal_cli.heal.experts import fits
from selfheal_cli.model import boosters
from selfheal_cli.model.mixture import TREES
from selfheal_cli.records import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]

LATEST = (2_500, MOST_ROWS)  # labelled rows that each is fitted on, at most
EVERY = (500, 1_000)  # labelled rows between two fits
ROUNDS = 40
NEVER = -1  # step of a fit before the first
FITTED = {
    "num_leaves": 15, "learning_rate": 0.15, "max_bin": 63, "lambda_l2": 1.0,
    "min_data_in_leaf": 20, "deterministic": True, "force_row_wise": True, "num_threads": 1,
    "verbosity": -1, "seed": 0,
}  # fmt: skip


class BoostedTrees:
    """LightGBM's, small on few rows and on many; with ``classes`` of them.

    They begin with the latest training rows, ``trained`` (n, d) and (n,). ``since`` is how many
    labelled rows came after each fit was begun. ``after`` so many steps it takes effect, made
    beside the stream until then; 0: at once.
    """

    names = tuple(f"trees_{rows}" for rows in LATEST)

    def __init__(
        self,
        classes: int,
        trained: tuple[Any, Any],
        after: int,
        state: Mapping[str, Any],
        served: Tensor,
    ) -> None:
        self._classes, self._after = classes, after
        self._rows = LatestRows(state.get("x", trained[0]), state.get("y", trained[1]))
        self._since = state.get("since", np.array(EVERY, dtype=np.int64))
        self._fitted = state.get("fitted", np.full(TREES, NEVER))
        self._begun = {
            place: _BegunFit(
                int(state[f"step_{place}"][0]), state[f"x_{place}"], state[f"y_{place}"]
            )
            for place in range(TREES)
            if f"step_{place}" in state
        }
        # (bytes,) uint8, as `boosters.as_tensor` makes them; a fit that was not published is
        # remembered, too
        self.texts = torch.from_numpy(state["texts"]) if "texts" in state else served

    def state(self) -> dict[str, Any]:
        """What `BoostedTrees` begins from again."""
        known = {
            "x": self._rows.x,
            "y": self._rows.y,
            "since": self._since,
            "texts": self.texts.numpy(),
        }
        for place, one in self._begun.items():
            known |= {f"step_{place}": np.array([one.step]), f"x_{place}": one.x}
            known[f"y_{place}"] = one.y
        return known | ({"fitted": self._fitted} if self._after else {})

    def told(self) -> dict[str, float]:
        """The step at which the trees of each were begun, and at which its next ones are due."""
        if not self._after:
            return {}
        fitted = {f"fitted_{self.names[p]}": float(s) for p, s in enumerate(self._fitted) if s >= 0}
        due = {f"due_{self.names[p]}": float(one.step + self._after)
               for p, one in self._begun.items()}  # fmt: skip
        return fitted | due

    def predict(self, x: FloatArray, otherwise: Matrix) -> Matrix:
        """Probabilities (experts, n, K) of rows (n, d); until there are trees, ``otherwise``, and
        no numbers of trees that fail.
        """
        known = boosters.boosters_of(self.texts) or (None,) * TREES
        return np.stack([_each(one, x, otherwise) for one in known])

    def learn(self, x: FloatArray, y: Any, step: int) -> set[str]:
        """Take rows (n, d) and their classes (n,), and fit what is due.

        Returns the names of those that failed at it: what they were before goes on.
        """
        self._rows.add(x, y)
        self._since = self._since + len(y)
        begun = [
            place
            for place, every in enumerate(EVERY)
            if self._since[place] >= every and len(self._rows.y) >= FEWEST_ROWS
        ]
        for place in begun:
            one = _BegunFit(step, self._rows.x[-LATEST[place] :], self._rows.y[-LATEST[place] :])
            if place not in self._begun and len(np.unique(one.y)) > 1:
                self._since[place] = 0
                self._begin(place, one)
        due = [place for place, one in self._begun.items() if step >= one.step + self._after]
        return self._finish(sorted(due)) if due else set()

    def _begin(self, place: int, one: _BegunFit) -> None:
        if self._after:
            one = _BegunFit(one.step, one.x.copy(), one.y.copy())
            fits.begin(one.key(place), partial(_fit, one.x, one.y, self._classes))
        self._begun[place] = one

    def _finish(self, due: list[int]) -> set[str]:
        """Let trees take effect; names of those that cannot be fitted."""
        stored = bytes(self.texts.numpy()).split(boosters.APART) if len(self.texts) else []
        texts = [text.decode() for text in stored] or [""] * TREES
        failed, fitted = set[str](), self._fitted.copy()
        for place in due:
            one = self._begun.pop(place)
            fitting = partial(_fit, one.x, one.y, self._classes)
            try:
                texts[place] = fits.finish(one.key(place), fitting) if self._after else fitting()
                fitted[place] = one.step
            except Exception:  # LightGBM's own kind cannot be named before it is loaded
                failed.add(self.names[place])
        self.texts, self._fitted = boosters.as_tensor(texts), fitted
        return failed


@dataclass(frozen=True, slots=True)
class _BegunFit:
    """Rows (n, d) and classes (n,) that trees are fitted on, since a step."""

    step: int
    x: FloatArray
    y: Any

    def key(self, place: int) -> str:
        """What names the fit."""
        return f"{place}-{digest(self.x.tobytes() + self.y.tobytes())}"


def grown(classes: int, x: FloatArray, y: Any, asked: FloatArray) -> Matrix:
    """Probabilities (m, K) of rows ``asked`` (m, d) by trees on rows (n, d) and classes (n,); no
    numbers where trees fail.
    """
    otherwise = np.full((len(asked), classes), np.nan)
    try:
        text = _fit(x, y, classes)
    except Exception:  # as of fits: what it is cannot be named before LightGBM is loaded
        return otherwise
    (booster,) = boosters.boosters_of(boosters.as_tensor([text]))
    return _each(booster, asked, otherwise)


def _fit(x: FloatArray, y: Any, classes: int) -> str:
    from lightgbm import Dataset, train

    goal = {"objective": "multiclass", "num_class": classes} if classes > 2 else {
        "objective": "binary"
    }  # fmt: skip
    return boosters.text_of(train({**FITTED, **goal}, Dataset(x, y, free_raw_data=True), ROUNDS))


def _each(booster: Any, x: FloatArray, otherwise: Matrix) -> Matrix:
    if booster is None:
        return otherwise
    try:
        p: Matrix = boosters.probabilities(booster, x).astype(np.float64)
    except Exception:  # as of fits: what it is cannot be named before LightGBM is loaded
        return np.full_like(otherwise, np.nan)
    return np.stack([1.0 - p, p], axis=1) if p.ndim == 1 else p
