"""What one segment has learned: a few linear experts around what all rows' mixture says, and how
much each counts. It is packed into one vector, so that thousands take little room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.experts.filters import Filters, FilterSpec
from selfheal_cli.heal.experts.mixing import Mixing
from selfheal_cli.model.segmented import MOST_DIRECTIONS, OWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

MOST_BYTES = 100_000  # of a segment's state
# what is left of what was learned after 100 rows of its own; chosen on generated streams alone
QUICK, SLOW = np.array([0.8]), np.array([0.85, 0.98])
RIDGE = 5.0  # penalty of a direction, and of scaling what all rows' mixture says
SHIFT = 2.0  # of the intercept
STEPS = 8  # of Newton's method at most: a segment that turns round looks another way at once
AHEAD = 2.0  # nats: what an expert of its own must win before it counts as that mixture does


@dataclass(frozen=True, slots=True)
class SegmentDesign:
    """The columns that a segment's experts see: the features at ``directions`` standardised by
    training's ``mean`` and ``sd``, the ``margins`` that all rows' mixture gives, and 1.
    """

    directions: tuple[int, ...]
    mean: Matrix
    sd: Matrix
    margins: int

    @classmethod
    def of(cls, anchor: Anchor, directions: tuple[int, ...], margins: int) -> SegmentDesign:
        """By the training statistics of all features."""
        chosen = list(directions)
        return cls(directions, anchor.mean[chosen], anchor.sd[chosen], margins)

    @property
    def columns(self) -> int:
        """Of the design matrix."""
        return len(self.directions) + self.margins + 1

    @property
    def specs(self) -> tuple[FilterSpec, FilterSpec]:
        """Scale and shift, quickly; all directions, quickly and slowly."""
        tail = [RIDGE] * self.margins + [SHIFT]
        whole = [[RIDGE] * len(self.directions) + tail] * len(SLOW)
        last = np.arange(len(self.directions), self.columns)
        return (
            FilterSpec("scale", last, QUICK, np.array([tail]), steps=STEPS),
            FilterSpec("filter", np.arange(self.columns), SLOW, np.array(whole), steps=STEPS),
        )

    def rows(self, features: Any, margin: Matrix) -> Matrix:
        """The design matrix (n, columns) of features (n, all) and the mixture's margins."""
        read = (features[:, list(self.directions)] - self.mean) / self.sd
        return np.concatenate([read, margin, np.ones((len(margin), 1))], axis=1)

    def fold(self, theta: Matrix) -> Matrix:
        """Coefficients (own, columns, margins) of the features as they come."""
        folded = theta.copy()
        read = slice(0, len(self.directions))
        folded[:, read] /= self.sd[:, None]
        folded[:, -1] -= np.einsum("d,odm->om", self.mean, folded[:, read])
        return folded


class SegmentExpert:
    """One segment's experts, from a packed ``state`` (size,) or from none."""

    def __init__(self, design: SegmentDesign, state: Matrix | None = None) -> None:
        self._design = design
        known = _unpacked(design, state)
        self._filters = [
            Filters(spec, design.margins, part)
            for spec, part in zip(design.specs, known[:-1], strict=True)
        ]
        self._mixing = Mixing(1 + OWN, known[-1])

    def losses(self, a: Matrix, margin: Matrix, y: Any) -> Matrix:
        """Log loss (n,) of what the mixture says of rows, as `observe` is given them."""
        mixed = np.einsum("e,enk->nk", self.shares(), self._every(a, margin))
        lost: Matrix = -np.log(mixed[np.arange(len(y)), y])
        return lost

    def _every(self, a: Matrix, margin: Matrix) -> Matrix:
        """What all rows' mixture and each expert give, (1 + own, n, K); an expert that has come to
        what is no number gives what that mixture does.
        """
        moved = margin + np.einsum("nc,ocm->onm", a, self.theta())
        p = probabilities(np.concatenate([margin[None], moved]))
        sound = np.array([np.isfinite(one).all() for one in p])
        return np.where(sound[:, None, None], p, p[:1])

    def observe(self, a: Matrix, margin: Matrix, y: Any, labelled: int) -> None:
        """Charge each expert for what it predicts of rows, by their design (n, columns), the
        mixture's margins and classes (n,), and then let it learn; as many as are ``labelled`` came.
        """
        p = self._every(a, margin)
        self._mixing.observe(p[:, np.arange(len(y)), y], labelled)
        for one in self._filters:
            one.learn(a, margin, y, labelled)

    def theta(self) -> Matrix:
        """Coefficients (own, columns, margins) of all experts."""
        whole = np.zeros((OWN, self._design.columns, self._design.margins))
        start = 0
        for one in self._filters:
            stop = start + len(one.theta)
            whole[start:stop, one.spec.columns] = one.theta
            start = stop
        return whole

    def shares(self) -> Matrix:
        """How much the mixture of all rows and each expert count, (1 + own,); they sum to 1."""
        return self._mixing.shares()

    def packed(self) -> Matrix:
        """The state (size,)."""
        parts = [*(one.state() for one in self._filters), self._mixing.state()]
        return np.concatenate([np.ravel(value) for part in parts for value in part.values()])


def _unpacked(design: SegmentDesign, state: Matrix | None) -> list[dict[str, Any]]:
    """Each part's own arrays."""
    begun = [
        *(Filters(spec, design.margins, {}).state() for spec in design.specs),
        Mixing(1 + OWN, {}).state(),
    ]
    if state is None:
        begun[-1]["losses"][:, 1:] += AHEAD
        return begun
    start = 0
    for part in begun:
        for name, value in part.items():
            stop = start + value.size
            part[name] = state[start:stop].reshape(value.shape).astype(value.dtype)
            start = stop
    return begun


def probabilities(margin: Matrix, least: float = 1e-3) -> Matrix:
    """Of each class, (experts, n, K), none below ``least``, by margins (experts, n, K - 1)."""
    logits = np.concatenate([np.zeros((*margin.shape[:2], 1)), margin], axis=2)
    with np.errstate(invalid="ignore"):  # what is no number is looked for by the caller
        p = np.exp(logits - np.logaddexp.reduce(logits, axis=2, keepdims=True))
    p = np.maximum(p, least)
    scaled: Matrix = p / p.sum(axis=2, keepdims=True)
    return scaled


def choose_directions(anchor: Anchor, features: slice, margins: int) -> tuple[int, ...]:
    """Places of the ``features`` whose classes lie furthest apart in training, as many as keep a
    segment's state within `MOST_BYTES`.
    """
    places = np.arange(features.start, features.stop)
    apart = np.abs((anchor.class_mean - anchor.mean) / anchor.sd).max(axis=0)[places]
    ranked = places[np.argsort(-apart, kind="stable")][:MOST_DIRECTIONS]
    most = MOST_DIRECTIONS
    while most > 1 and _bytes(most, margins) > MOST_BYTES:
        most -= 1
    return tuple(int(place) for place in np.sort(ranked[:most]))


def _bytes(directions: int, margins: int) -> int:
    none = np.zeros(directions)
    design = SegmentDesign(tuple(range(directions)), none, none + 1, margins)
    return int(SegmentExpert(design).packed().nbytes)
