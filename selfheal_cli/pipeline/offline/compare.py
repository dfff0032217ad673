"""The same stream through each recipe and each peer, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.config import (
    NetworkSettings,
    Objective,
    RunConfig,
    SyntheticSettings,
)
from selfheal_cli.decide import RECENT, threshold_for
from selfheal_cli.heal.recipe import FREE, check_recipe
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import RunningScores, classify, counts
from selfheal_cli.pipeline.offline.baselines import (
    Constant,
    FineTune,
    Frozen,
    LabelRate,
    MakePeer,
    Peer,
    Posterior,
)
from selfheal_cli.pipeline.offline.cost import measured
from selfheal_cli.pipeline.offline.jobs import side_by_side
from selfheal_cli.pipeline.offline.unlabelled import Unlabelled
from selfheal_cli.pipeline.offline.winner import STRETCHES, Ranking, rank, rank_over_seeds, total
from selfheal_cli.pipeline.prepare.baseline import Trained, survey, train_networks
from selfheal_cli.pipeline.stream.batch import label_queue
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.pipeline.stream.session import each
from selfheal_cli.records import Batch, Rows
from selfheal_cli.scores import AnyScores, Scores
from selfheal_cli.settings import own_data
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

HALF = 0.5
LIMIT = "limit: the generator's own posterior"
NOTHING, COMMONEST = "flag nothing", "the commonest class"
RATE = "label rate of the last 10 batches"
BLIND = (NOTHING, COMMONEST, RATE)  # look at no row
SPEED = "rows_per_second"  # of predicting and learning
CALIBRATED = ("log_loss", "ece")  # figures that need probabilities
WHOLE_SPEED = "rows_per_second_whole"  # with all that a run does around it


@dataclass(slots=True)
class BaselineScorer:
    """Scores a contestant twice: at 0.5, and at a threshold of its own.

    That is set by its last 1,000 probabilities and needs no labels: for the objective, or for F1
    where accuracy is asked for. Of more than two ``classes`` the likeliest is taken, both times.
    ``parts`` are the counts that the objective is about, in the order in which they were judged.
    """

    objective: Objective
    classes: int = 2
    recent: list[FloatArray] = field(default_factory=list)
    parts: list[AnyScores] = field(default_factory=list)
    half: RunningScores = field(init=False)
    chosen: RunningScores = field(init=False)

    def __post_init__(self) -> None:
        self.half, self.chosen = RunningScores(self.classes), RunningScores(self.classes)

    def see(self, probabilities: FloatArray) -> None:
        """Probabilities that count for the threshold."""
        self.recent.append(probabilities)
        while sum(map(len, self.recent[1:])) >= RECENT:
            self.recent.pop(0)

    def judge(self, probabilities: FloatArray, y: LabelArray) -> None:
        """Score rows at the threshold of now."""
        accuracy = self.objective.kind == "accuracy"
        own = Objective(kind="f1") if accuracy else self.objective
        threshold = threshold_for(own, np.concatenate(self.recent))
        self.half.add(probabilities, HALF, y)
        self.chosen.add(probabilities, threshold, y)
        answers = classify(probabilities, HALF if accuracy else threshold)
        self.parts.append(counts(answers, y, self.classes))

    def figures(self) -> dict[str, float]:
        """Accuracy and F1 at 0.5, F1 (and cost) at the threshold, and what needs none."""
        half, chosen = self.half.scores(), self.chosen.scores()
        figures: dict[str, float | None] = {
            "accuracy": half.accuracy,
            "f1_half": half.f1 if self.classes == 2 else None,
            "f1": chosen.f1,
            "kappa": half.kappa,
            "roc_auc": half.roc_auc,
            "pr_auc": getattr(half, "pr_auc", None),
            "log_loss": half.log_loss,
            "ece": half.ece,
            "recall_at_1pct_fp": self.half.recall_at(),
        }
        if self.objective.kind == "cost" and isinstance(chosen, Scores):
            figures["cost"] = chosen.cost(self.objective.fn, self.objective.fp)
        return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Result:
    """A contestant's figures on one seed, its accuracy by batch, and its counts by part."""

    title: str
    seed: int
    figures: dict[str, float]
    by_batch: tuple[float, ...]
    rows: int
    parts: tuple[AnyScores, ...]


def compare(
    config: RunConfig,
    make_source: Callable[[int], Source],
    recipes: Sequence[str],
    peers: Mapping[str, MakePeer],
    seeds: Sequence[int],
    on_result: Callable[[Result], None],
    jobs: int = 1,
) -> list[Result]:
    """Train once a seed, then send the same batches through everyone; ``jobs`` of them at once.

    Where the source holds rows back that the stream is not drawn from, everyone is judged on
    those at the end; else on the stream, each row before anything learned from it. Raises
    `ConfigurationError` for a recipe that cannot go over such rows.
    """
    seeded = {seed: config.model_copy(update={"seed": seed}) for seed in seeds}
    starts = [_Start(one, make_source) for one in seeded.values()]
    classes = len(starts[0].source().labels)
    for recipe in recipes:
        check_recipe(with_recipe(config, recipe).heal, config.labels, classes)
    trained = side_by_side(jobs, _trained, [(start,) for start in starts])
    entries = [
        (start, network, title, make)
        for start, network in zip(starts, trained, strict=True)
        for title, make in _contestants(start, recipes, peers).items()
    ]
    results = []
    for result in side_by_side(jobs, _enter, entries):
        on_result(result)
        results.append(result)
    return results


@dataclass(frozen=True, slots=True)
class _Start:
    """What all contestants of a seed begin from."""

    config: RunConfig
    make_source: Callable[[int], Source]

    def source(self) -> Source:
        """The rows of its seed."""
        return self.make_source(self.config.seed)


def _trained(start: _Start) -> Trained:
    return train_networks(start.config, start.source(), lambda done, total: None)


def contestants(
    config: RunConfig, recipes: Sequence[str], peers: Iterable[str], classes: int
) -> list[str]:
    """Titles of all that a stream is sent through, in this order."""
    left_out = COMMONEST if classes == 2 else NOTHING
    simple = [title for title in _SIMPLE if title != left_out]
    return [*simple, *([LIMIT] if _has_limit(config) else []), *recipes, *peers]


def _has_limit(config: RunConfig) -> bool:
    return isinstance(config.source, SyntheticSettings) and not config.source.phases


def _contestants(
    start: _Start, recipes: Sequence[str], peers: Mapping[str, MakePeer]
) -> dict[str, MakePeer | None]:
    """Makers by title; None for a recipe, and for what begins from the trained network."""
    titles = contestants(start.config, recipes, peers, len(start.source().labels))
    return {title: peers.get(title) for title in titles}


def _enter(start: _Start, trained: Trained, title: str, make: MakePeer | None) -> Result:
    """Send the stream through one of them."""
    config, source = start.config, start.source()
    simple = _SIMPLE.get(title)
    with measured() as cost:
        if make is not None:
            unkeyed: Any = _Unkeyed(source) if source.encoding.segment is not None else source
            peer: Peer | None = make(config.seed, unkeyed)
        elif simple is not None:
            peer = simple(trained, config.network, source)
        elif title == LIMIT and isinstance(config.source, SyntheticSettings):
            peer = Posterior(config.source)
        else:
            peer = None
        if peer is not None:
            inputs = source.encoding.width if make is not None else None
            result = contest(title, WithPeer(peer, config, inputs), config, source)
        else:
            own = with_recipe(config, title)
            result = contest(title, Replay(own, source, survey(own, source, trained)), own, source)
    ranks_only = isinstance(peer, Unlabelled)
    figures = {name: value for name, value in result.figures.items()
               if not (ranks_only and name in CALIBRATED)}  # fmt: skip
    return replace(result, figures=figures | cost)


class _Unkeyed:
    """A source whose training rows lack what says their segment, for peers that know of none."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def training(self) -> Iterator[Rows]:
        """As of `Source`."""
        width = self._source.encoding.width
        for rows in self._source.training():
            yield replace(rows, x=np.ascontiguousarray(rows.x[:, :width]))


def with_recipe(config: RunConfig, recipe: str) -> RunConfig:
    """The same run by another recipe; an ensemble has its own defaults where nothing else was said,
    and few heal without labels.
    """
    assumed = config.heal.assume if recipe in FREE else None
    heal = own_data.with_recipe(config.heal, recipe).model_copy(update={"assume": assumed})
    return config.model_copy(update={"heal": heal})


_SIMPLE: Mapping[str, Callable[[Trained, NetworkSettings, Source], Peer]] = {
    "no heal": lambda trained, settings, source: Frozen(trained.network),
    "full fine-tune": lambda trained, settings, source: FineTune(
        trained.network, settings.learning_rate
    ),
    NOTHING: lambda trained, settings, source: Constant((1.0, 0.0)),
    COMMONEST: lambda trained, settings, source: Constant(_commonest(_trained_counts(source))),
    RATE: lambda trained, settings, source: LabelRate(_trained_counts(source)),
}


class BaselineModel(Protocol):
    """Predicts a batch, then takes it: labels come to it as the regime lets them."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to probabilities (n,), or (n, K)."""

    def step(self, batch: Batch) -> None:
        """Learn what may be learned once the batch was predicted."""

    @property
    def learning(self) -> float:
        """Seconds of learning alone, without monitors, guards and snapshots."""

    def counts(self) -> dict[str, float]:
        """What happened to it, by event."""


class WithPeer:
    """A peer whose labels wait in a queue; it is given no more than ``inputs`` of each row, so that
    what says the segment is left out.
    """

    def __init__(self, peer: Peer, config: RunConfig, inputs: int | None = None) -> None:
        self._peer, self._inputs = peer, inputs
        self._labels = label_queue(config)
        self.learning = 0.0

    def predict(self, x: FloatArray) -> FloatArray:
        """See `BaselineModel`."""
        return self._peer.predict(x[:, : self._inputs])

    def step(self, batch: Batch) -> None:
        """See `BaselineModel`."""
        parts = self._labels.take(_waiting(batch), batch.now, batch.late)
        if not parts:
            return
        x = np.concatenate([part.x for part in parts])[:, : self._inputs]
        y = np.concatenate([part.y for part in parts])
        start = perf_counter()
        self._peer.learn(x, y)
        self.learning += perf_counter() - start

    def counts(self) -> dict[str, float]:
        """See `BaselineModel`."""
        return {}


def contest(title: str, contestant: BaselineModel, config: RunConfig, source: Source) -> Result:
    """Send the stream through one of them; each row is predicted before anything learns from it."""
    judge, by_batch = BaselineScorer(config.objective, len(source.labels)), list[float]()
    held, rows, predicting, stepping = source.held_out().get("drifted"), 0, 0.0, 0.0

    def step(batch: Batch) -> None:
        nonlocal rows, predicting, stepping
        start = perf_counter()
        probabilities = contestant.predict(batch.rows.x)
        predicting += perf_counter() - start
        _see(judge, probabilities, batch, by_batch, final=held is not None)
        start = perf_counter()
        contestant.step(batch)
        stepping += perf_counter() - start
        rows += len(batch.rows)

    each(source.batches(), step)
    if held is not None:
        _refresh(judge, contestant.predict, source)
        probabilities = contestant.predict(held.x)
        for part in np.array_split(np.arange(len(held)), STRETCHES):
            judge.judge(probabilities[part], held.y[part])
    speed = {
        SPEED: rows / (predicting + contestant.learning),
        WHOLE_SPEED: rows / (predicting + stepping),
    }
    figures = judge.figures() | speed | contestant.counts()
    judged = rows if held is None else len(held)
    return Result(title, config.seed, figures, tuple(by_batch), judged, tuple(judge.parts))


def _see(
    judge: BaselineScorer,
    probabilities: FloatArray,
    batch: Batch,
    by_batch: list[float],
    *,
    final: bool,
) -> None:
    """A batch's probabilities: for the threshold, the picture, and the score if it is kept."""
    y = batch.rows.y
    known = y >= 0
    right = classify(probabilities[known], HALF) == y[known]
    by_batch.append(float(right.mean()) if known.any() else float("nan"))
    judge.see(probabilities)
    if not final:
        judge.judge(probabilities, y)


def _refresh(
    judge: BaselineScorer, predict: Callable[[FloatArray], FloatArray], source: Source
) -> None:
    """The last rows of the stream as the final model sees them, for its threshold."""
    last = max(1, (source.batch_count or 1) - 9)
    judge.recent.clear()
    for batch in source.batches(last):
        judge.see(predict(batch.rows.x))


def _waiting(batch: Batch) -> Scored:
    """A batch as the queue takes it; of what is in it, a peer needs inputs and labels alone."""
    rows = batch.rows
    none = np.empty(len(rows), dtype=np.float32)
    return Scored(
        batch=batch.index,
        place=np.arange(len(rows)),
        x=rows.x,
        features=rows.x,
        probabilities=none,
        threshold=HALF,
        shadow=none,
        shadow_threshold=HALF,
        rule_label=rows.y,
        y=rows.y,
        label_at=batch.label_at,
        at=batch.at,
    )


def _trained_counts(source: Source) -> list[int]:
    """Training rows by class."""
    classes = len(source.labels)
    total = np.zeros(classes, dtype=np.int64)
    for block in source.training():
        total += np.bincount(block.y, minlength=classes)
    return [int(count) for count in total]


def _commonest(rows: Sequence[int]) -> list[float]:
    """Shares of the classes by which the commonest is always the answer."""
    return [float(place == rows.index(max(rows))) for place in range(len(rows))]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A contestant over all seeds: means and standard deviations (None with one seed)."""

    title: str
    mean: dict[str, float]
    spread: dict[str, float | None]
    rows: int


def summarise(results: Sequence[Result]) -> list[ComparisonRow]:
    """One line a contestant, in the order in which they came."""
    lines = []
    for title in dict.fromkeys(result.title for result in results):
        own = [result for result in results if result.title == title]
        names = [name for name in own[0].figures if all(name in one.figures for one in own)]
        values = {name: [one.figures[name] for one in own] for name in names}
        mean = {name: fmean(numbers) for name, numbers in values.items()}
        spread = {name: stdev(v) if len(v) > 1 else None for name, v in values.items()}
        lines.append(ComparisonRow(title, mean, spread, own[0].rows))
    return lines


def ranking(results: Sequence[Result], config: RunConfig) -> Ranking:
    """Who is ahead over all seeds; the limit does not compete.

    Of a generator each seed is a stream of its own; the seeds of a table share its rows.
    """
    parts: dict[str, list[AnyScores]] = {}
    by_seed = isinstance(config.source, SyntheticSettings)
    for result in results:
        if result.title == LIMIT:
            continue
        known = parts.setdefault(result.title, [])
        if by_seed:
            known.append(total(result.parts))
        else:  # of the same place in each seed
            added = [a.plus(b) for a, b in zip(known, result.parts, strict=True)] if known else ()
            parts[result.title] = [*(added or result.parts)]
    return (rank_over_seeds if by_seed else rank)(parts, config.objective)
