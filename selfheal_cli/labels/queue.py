"""Queues in which scored rows wait for their labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.config import LabelSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import (
        Answers,
        Batch,
        FloatArray,
        LabelArray,
        LateLabels,
        Threshold,
    )


# of `Scored`, what has a value for each row
ROWS = ("place", "x", "features", "probabilities", "threshold", "shadow", "rule_label", "y",
        "label_at", "at", "weight")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows of one batch as they were scored, before anything learned from them.

    ``place`` (n,) is each row's position in its batch; ``probabilities`` and ``shadow``, those of
    the serving version and of the frozen baseline, (n,) or (n, K); ``threshold`` and
    ``shadow_threshold`` decided, the former (n,) where versions answered that have other ones;
    ``rule_label`` (n,), -1 where rules abstained; ``y`` (n,), -1
    where unknown; ``at`` (n,) each row's time, and ``label_at`` (n,) when its label comes, in the
    stream's own unit; ``weight`` (n,) for how many rows each stands, None for itself alone.
    """

    batch: int
    place: NDArray[np.intp]
    x: FloatArray
    features: FloatArray
    probabilities: FloatArray
    threshold: Threshold
    shadow: FloatArray
    shadow_threshold: float
    rule_label: LabelArray
    y: LabelArray
    label_at: NDArray[np.float64] | None = None
    at: NDArray[np.float64] | None = None
    weight: FloatArray | None = None

    @classmethod
    def of(
        cls,
        batch: Batch,
        features: FloatArray,
        answers: Answers,
        shadow: FloatArray,
        shadow_threshold: float,
        rule_label: LabelArray,
        inputs: int,
    ) -> Scored:
        """All rows of a batch; behind ``inputs`` of the network may stand a row's segment."""
        rows = batch.rows
        return cls(
            batch.index,
            batch.place,
            rows.x[:, :inputs],
            features,
            answers.probabilities,
            answers.threshold,
            shadow,
            shadow_threshold,
            rule_label,
            rows.y,
            batch.label_at,
            batch.at,
        )

    def __len__(self) -> int:
        return len(self.place)

    @property
    def labelled(self) -> Scored:
        """The rows whose label is known."""
        return self.where(self.y >= 0)

    def beside(self, others: Scored) -> Scored:
        """With other rows of the same batch."""
        parts: dict[str, Any] = {
            name: np.concatenate([value, getattr(others, name)]) for name, value in self._rows()
        }
        return replace(self, **parts)

    def where(self, chosen: Any) -> Scored:
        """The rows where the mask ``chosen`` (n,) is true."""
        if bool(np.all(chosen)):
            return self
        return replace(self, **{name: value[chosen] for name, value in self._rows()})

    def _rows(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """What has a value for each row."""
        for name in ROWS:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                yield name, value


@dataclass(frozen=True, slots=True)
class Matured:
    """Rows of a batch whose time was over at ``by``; of ``negatives`` nobody had said a label."""

    batch: int
    rows: int
    negatives: int
    by: float


class LabelQueue(Protocol):
    """Hands rows back when their labels have come; rows whose label never comes do not return.

    ``lost`` counts rows that had to go before their label could count.
    """

    lost: int = 0

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows whose labels are still to come, oldest first."""

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """Put a batch in at time ``now``, with labels of earlier ones; returns all rows whose
        labels have come by now.
        """

    @property
    def countable(self) -> tuple[Scored, ...]:
        """Those of the waiting rows that count in figures once the stream is over."""
        return self.waiting

    def recall(self, scored: Scored) -> list[Scored]:
        """Put rows of an earlier run in; returns those whose labels had come to it."""
        known = scored.y >= 0
        if not known.all():
            self.take(scored.where(~known), None, None)
        return [scored.where(known)] if known.any() else []

    def matured(self) -> list[Matured]:
        """Rows whose time was over since this was asked last."""
        return []

    def told_since(self) -> LateLabels | None:
        """Labels that are known by now of rows that were handed back with another one."""
        return None


class DelayedLabels(LabelQueue):
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
        """As `LabelQueue.take`; ``late`` is not read, since labels come with their rows."""
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
            if scored.label_at is None:  # no label of this batch has a time: none ever comes
                continue
            due = scored.label_at <= now
            if due.any():
                arrived.append(scored.where(due))
            later = ~(due | np.isnan(scored.label_at))
            if later.any():
                waiting.append(scored.where(later))
        self._waiting = deque(waiting)
        return arrived


def _labelled(parts: list[Scored]) -> list[Scored]:
    labelled = []
    for part in parts:
        known = part.y >= 0
        if known.any():
            labelled.append(part.where(known))
    return labelled


class LabelJoiner(LabelQueue):
    """A `LabelQueue` that joins labels to their rows by batch and place.

    Labels come a few at a time; they are handed on once ``together`` of them are there, so that a
    heal has a batch of rows. At most ``keep`` rows wait; the oldest are dropped first. ``unknown``
    counts labels whose row does not wait: it never came, has a label already, or was dropped.
    Where it ``corrects``, labels that were not handed on yet may be told anew, or taken back by -1.
    """

    def __init__(self, together: int, keep: int, *, corrects: bool = False) -> None:
        self._together = together
        self._corrects = corrects
        self._keep = keep
        self._waiting: dict[int, Scored] = {}
        self._waiting_rows = 0
        self._labelled: list[Scored] = []
        self._labelled_rows = 0
        self.unknown = 0

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows that were not handed back yet, those with a label first."""
        return (*self._labelled, *self._waiting.values())

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """As `LabelQueue.take`; a batch may bring rows that have their label already."""
        if late is not None:
            self._join(late)
        known = scored.y >= 0
        self._add_labelled(scored.where(known))
        self._add_waiting(scored.where(~known))
        # a heal on a handful of rows would learn their chance
        if self._labelled_rows < self._together:
            return []
        labelled, self._labelled, self._labelled_rows = self._labelled, [], 0
        return labelled

    def _told_anew(self, late: LateLabels) -> LateLabels:
        """Correct labels that wait for others; returns those of all other rows."""
        rest = np.ones(len(late.y), dtype=np.bool_)
        labelled, self._labelled, self._labelled_rows = self._labelled, [], 0
        for part in labelled:
            told = (late.batch == part.batch) & np.isin(late.place, part.place)
            rest &= ~told
            now = dict(zip(late.place[told].tolist(), late.y[told].tolist(), strict=True))
            places = part.place.tolist()
            y = [now.get(place, was) for place, was in zip(places, part.y.tolist(), strict=True)]
            anew = replace(part, y=np.array(y, dtype=np.int8))
            self._add_labelled(anew.labelled)
            back = anew.where(anew.y < 0)
            held = self._waiting.pop(part.batch, None) if len(back) else None
            if held is not None:
                self._waiting_rows -= len(held)
                back = held.beside(back)
            self._add_waiting(back)
        rest &= late.y >= 0  # what has no label cannot lose it
        return replace(late, batch=late.batch[rest], place=late.place[rest], y=late.y[rest])

    def _join(self, late: LateLabels) -> None:
        if self._corrects:
            late = self._told_anew(late)
        for batch in np.unique(late.batch):
            of_batch = late.batch == batch
            # of several labels for one row the last counts
            labels = dict(zip(late.place[of_batch], late.y[of_batch], strict=True))
            self.unknown += int(np.count_nonzero(of_batch)) - len(labels)
            scored = self._waiting.pop(int(batch), None)
            if scored is None:
                self.unknown += len(labels)
                continue
            self._waiting_rows -= len(scored)
            has_label = np.isin(scored.place, list(labels))
            self.unknown += len(labels) - int(np.count_nonzero(has_label))
            labelled = scored.where(has_label)
            y = np.array([labels[place] for place in labelled.place], dtype=np.int8)
            self._add_labelled(replace(labelled, y=y))
            self._add_waiting(scored.where(~has_label))

    def _add_labelled(self, part: Scored) -> None:
        if len(part):
            self._labelled.append(part)
            self._labelled_rows += len(part)

    def _add_waiting(self, part: Scored) -> None:
        if not len(part):
            return
        self._waiting[part.batch] = part
        self._waiting_rows += len(part)
        # batches are numbered in their order: the smallest number is the oldest
        while self._waiting_rows > self._keep:
            self._waiting_rows -= len(self._waiting.pop(min(self._waiting)))
