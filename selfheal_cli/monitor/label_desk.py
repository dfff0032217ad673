"""Where scored rows wait for their labels."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.config import LabelSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Answers, Batch, FloatArray, LabelArray, LateLabels


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows of one batch as they were scored, before anything learned from them.

    ``place`` (n,) is each row's position in its batch; ``probabilities`` and ``shadow`` (n,) or
    (n, K); ``threshold`` and ``shadow_threshold`` those that decided; ``rule_label`` (n,), -1
    where rules abstained; ``y`` (n,), -1 where nobody knows; ``label_at`` (n,) when each label
    comes, in the stream's own time.
    """

    batch: int
    place: NDArray[np.intp]
    x: FloatArray
    features: FloatArray
    probabilities: FloatArray
    threshold: float
    shadow: FloatArray
    shadow_threshold: float
    rule_label: LabelArray
    y: LabelArray
    label_at: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        batch: Batch,
        features: FloatArray,
        answers: Answers,
        shadow: FloatArray,
        shadow_threshold: float,
        rule_label: LabelArray,
    ) -> Scored:
        """All rows of a batch."""
        rows = batch.rows
        return cls(
            batch.index,
            batch.place,
            rows.x,
            features,
            answers.probabilities,
            answers.threshold,
            shadow,
            shadow_threshold,
            rule_label,
            rows.y,
            batch.label_at,
        )

    def __len__(self) -> int:
        return len(self.place)

    def where(self, chosen: Any) -> Scored:
        """The chosen rows."""
        if bool(np.all(chosen)):
            return self
        rows = ("place", "x", "features", "probabilities", "shadow", "rule_label", "y", "label_at")
        parts = {name: getattr(self, name) for name in rows if getattr(self, name) is not None}
        return replace(self, **{name: value[chosen] for name, value in parts.items()})


class Desk(Protocol):
    """Hands rows back when their labels have come; rows whose label nobody knows never return."""

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows whose labels are still to come, oldest first."""

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """Hand in a batch at time ``now``, with labels of earlier ones; get all rows whose labels
        have come by now.
        """


class LabelDesk:
    """A `Desk` where it is known beforehand when each label comes."""

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        self._waiting: deque[Scored] = deque()

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows whose labels are still to come, oldest first."""
        return tuple(self._waiting)

    def take(
        self, scored: Scored, now: float | None, late: LateLabels | None = None
    ) -> list[Scored]:
        """See `Desk`; no label is late here."""
        regime = self._settings.regime
        if regime == "none":
            return []
        if regime == "full":
            return _labelled([scored])
        self._waiting.append(scored)
        if regime == "delayed":
            due = scored.batch - self._settings.delay
            arrived = []
            while self._waiting and self._waiting[0].batch <= due:
                arrived.append(self._waiting.popleft())
            return _labelled(arrived)
        return _labelled(self._arrived_by(float("-inf") if now is None else now))

    def _arrived_by(self, now: float) -> list[Scored]:
        arrived, waiting = [], []
        for scored in self._waiting:
            if scored.label_at is None:
                continue
            come = scored.label_at <= now
            if come.any():
                arrived.append(scored.where(come))
            never = np.isnan(scored.label_at)
            if not (come | never).all():
                waiting.append(scored.where(~(come | never)))
        self._waiting = deque(waiting)
        return arrived


def _labelled(parts: list[Scored]) -> list[Scored]:
    known = [part.where(part.y >= 0) for part in parts]
    return [part for part in known if len(part)]
