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


class LabelQueue(Protocol):
    """Hands rows back when their labels have come; rows whose label nobody knows never return."""

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows whose labels are still to come, oldest first."""

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """Hand in a batch at time ``now``, with labels of earlier ones; get all rows whose labels
        have come by now.
        """


class DelayedLabels:
    """A `LabelQueue` where it is known beforehand when each label comes."""

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
        """See `LabelQueue`; no label is late here."""
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
    labelled = []
    for part in parts:
        known = part.y >= 0
        if known.any():
            labelled.append(part.where(known))
    return labelled


class LabelJoiner:
    """A `LabelQueue` that joins labels to their rows by batch and place.

    Labels trickle in; they are handed on once ``together`` have come, so that what learns from
    them has a batch of rows. At most ``keep`` rows wait; the oldest are forgotten first.
    ``unknown`` counts labels whose row is not waiting: never seen, labelled before, or forgotten.
    """

    def __init__(self, together: int, keep: int) -> None:
        self._together = together
        self._keep = keep
        self._waiting: dict[int, Scored] = {}
        self._rows = 0
        self._come: list[Scored] = []
        self._come_rows = 0
        self.unknown = 0

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """See `LabelQueue`."""
        return (*self._come, *self._waiting.values())

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """See `LabelQueue`."""
        if late is not None:
            self._join(late)
        known = scored.y >= 0
        self._arrived(scored.where(known))
        self._wait(scored.where(~known))
        if self._come_rows < self._together:
            return []
        come, self._come, self._come_rows = self._come, [], 0
        return come

    def _join(self, late: LateLabels) -> None:
        for batch in np.unique(late.batch):
            of_batch = late.batch == batch
            labels = dict(zip(late.place[of_batch], late.y[of_batch], strict=True))
            self.unknown += int(np.count_nonzero(of_batch)) - len(labels)
            scored = self._waiting.pop(int(batch), None)
            if scored is None:
                self.unknown += len(labels)
                continue
            self._rows -= len(scored)
            named = np.isin(scored.place, list(labels))
            self.unknown += len(labels) - int(np.count_nonzero(named))
            labelled = scored.where(named)
            y = np.array([labels[place] for place in labelled.place], dtype=np.int8)
            self._arrived(replace(labelled, y=y))
            self._wait(scored.where(~named))

    def _arrived(self, part: Scored) -> None:
        if len(part):
            self._come.append(part)
            self._come_rows += len(part)

    def _wait(self, part: Scored) -> None:
        if not len(part):
            return
        self._waiting[part.batch] = part
        self._rows += len(part)
        while self._rows > self._keep:
            self._rows -= len(self._waiting.pop(min(self._waiting)))
