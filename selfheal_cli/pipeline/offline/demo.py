"""What the demonstration says of a run over payments whose generator is known: how much of what was
possible healing gained, and which of the changes were noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.config import RunConfig
from selfheal_cli.events.state import RunView
from selfheal_cli.pipeline.offline.compare import WithPeer, contest
from selfheal_cli.pipeline.offline.peers import peers_named, require_peers
from selfheal_cli.pipeline.offline.refitted import RefitSchedule
from selfheal_cli.report.gains import jackknife
from selfheal_cli.scores import AnyScores, Scores
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.payments import TARGET, Change, Payments

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

Counts = NDArray[np.float64]  # (batches, 3): true positives, false positives, false negatives
TREES = ("refitted-trees",)
FIGURES = ("f1", "roc_auc", "pr_auc", "log_loss")
ROLLING = 2_000  # payments behind a point of the picture
STRETCHES = 18  # of the stream, for the interval
SURE = 1.96  # standard errors to either side
OF_DECISIONS = ("prediction-rate", "page-hinkley")  # monitors that see a change of the target


class Generator:
    """The limit: for the rows of the stream in their order, the chance that each is fraud."""

    def __init__(self, chance: NDArray[np.float64]) -> None:
        self._chance, self._taken = chance, 0

    def predict(self, x: FloatArray) -> FloatArray:
        """See `Peer`."""
        begin, self._taken = self._taken, self._taken + len(x)
        chances: FloatArray = self._chance[begin : self._taken].astype(np.float32)
        return chances

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class DemoLine:
    """A contestant and its figures on the streamed rows, all scored before their labels came."""

    title: str
    figures: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Gained:
    """The share of what could be gained in F1, with its interval over stretches of the stream."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Noticed:
    """A change, the batch in which it began, and the first alarm that names it; -1 for none."""

    change: Change
    began: int
    seen: int
    monitor: str = ""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """All that is shown of it; ``curves`` hold each contestant's F1 over the last batches, at the
    payments in ``ends``.
    """

    rows: int
    lines: tuple[DemoLine, ...]
    gained: Gained
    noticed: tuple[Noticed, ...]
    ends: tuple[int, ...]
    curves: Mapping[str, tuple[float, ...]]


def demonstrate(
    config: RunConfig, source: Source, payments: Payments, view: RunView
) -> Demonstration:
    """Hold a finished run against trees that are refitted and against the generator itself."""
    sizes = [len(batch.rows) for batch in source.batches()]
    begin = len(payments) - sum(sizes)
    require_peers(TREES, len(source.labels))
    makers = peers_named(TREES, config.network, RefitSchedule())
    peers = {
        **{title: make(config.seed, source) for title, make in makers.items()},
        "limit for any model": Generator(payments.chance[begin:]),
    }
    results = [contest(name, WithPeer(peer, config), config, source)
               for name, peer in peers.items()]  # fmt: skip
    stages = {str(stage["key"]): stage for stage in (view.finished and view.finished.stages) or ()}
    lines = (
        DemoLine("frozen network", {name: stages["unhealed"].get(name) for name in FIGURES}),
        DemoLine("healed network", {name: stages["healed"].get(name) for name in FIGURES}),
        *(DemoLine(one.title, {name: one.figures.get(name) for name in FIGURES})
          for one in results),
    )  # fmt: skip
    pairs = [view.by_batch.scores[batch] for batch in range(1, len(sizes) + 1)]
    counts = [_counts(shadow for _, shadow in pairs), _counts(live for live, _ in pairs),
              *(_counts(one.parts) for one in results)]  # fmt: skip
    last = max(1, ROLLING // max(sizes))
    return Demonstration(
        sum(sizes),
        lines,
        _gained(*(counts[place] for place in (1, 0, 3))),
        tuple(_noticed(view, payments, begin, sizes)),
        tuple((begin + np.cumsum(sizes))[last - 1 :].tolist()),
        {line.title: tuple(_rolling(one, last)) for line, one in zip(lines, counts, strict=True)},
    )


def _rolling(counts: Counts, last: int) -> list[float]:
    """F1 over so many batches, from the first on that has as many before it."""
    return [_f1(counts[end - last : end].sum(0)) for end in range(last, len(counts) + 1)]


def _gained(healed: Counts, frozen: Counts, limit: Counts) -> Gained:
    """(healed - frozen) / (limit - frozen) in F1, by the jackknife over stretches of batches.

    Neighbouring batches are alike, so that batches one by one would make the interval too narrow.
    """
    begins = np.arange(0, len(healed), max(1, len(healed) // STRETCHES))
    healed, frozen, limit = (np.add.reduceat(one, begins) for one in (healed, frozen, limit))
    share = _share(healed.sum(0), frozen.sum(0), limit.sum(0))
    without = [
        _share(healed.sum(0) - a, frozen.sum(0) - b, limit.sum(0) - c)
        for a, b, c in zip(healed, frozen, limit, strict=True)
    ]
    error = jackknife(without)
    return Gained(share, share - SURE * error, share + SURE * error)


def _counts(scores: Iterable[AnyScores]) -> Counts:
    return np.array([(one.tp, one.fp, one.fn) for one in scores if isinstance(one, Scores)], float)


def _f1(counts: Counts) -> float:
    tp, fp, fn = map(float, counts)
    return 2 * tp / max(2 * tp + fp + fn, 1.0)


def _share(healed: Counts, frozen: Counts, limit: Counts) -> float:
    without = _f1(frozen)
    return (_f1(healed) - without) / (_f1(limit) - without)


def _noticed(view: RunView, payments: Payments, begin: int, sizes: list[int]) -> Iterator[Noticed]:
    ends = begin + np.cumsum(sizes)
    for change in payments.changes:
        began = int(np.searchsorted(ends, change.row, side="right")) + 1
        seen = (
            (batch, name)
            for batch, readings in view.by_batch.monitors.items()
            if batch >= began
            for name, reading in readings.items()
            if reading["level"] == "alarm" and _names(change, name, reading["features"])
        )
        batch, monitor = next(seen, (-1, ""))
        yield Noticed(change, began, batch, monitor)


def _names(change: Change, monitor: str, features: Any) -> bool:
    if TARGET in change.columns:
        return monitor.split(":", maxsplit=1)[0] in OF_DECISIONS
    return bool(set(change.columns) & set(features))
