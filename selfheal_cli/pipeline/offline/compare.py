"""The same stream through each recipe and each peer, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from selfheal_cli.config import Objective, RunConfig, SyntheticSettings
from selfheal_cli.decide import RECENT, threshold_for
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.heal.recipe import check_recipe
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import RunningScores, confusion
from selfheal_cli.pipeline.offline.baselines import (
    Constant,
    FineTune,
    Frozen,
    LabelRate,
    MakePeer,
    Peer,
    Posterior,
)
from selfheal_cli.pipeline.offline.winner import STRETCHES, Ranking, rank
from selfheal_cli.pipeline.prepare.baseline import Trained, survey, train_networks
from selfheal_cli.pipeline.stream.batch import label_queue
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.pipeline.stream.session import each
from selfheal_cli.records import Batch
from selfheal_cli.scores import Scores
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

HALF = 0.5
LIMIT = "limit: the generator's own posterior"
SPEED = "rows_per_second"  # of predicting and learning
WHOLE_SPEED = "rows_per_second_whole"  # with all that a run does around it


@dataclass(slots=True)
class BaselineScorer:
    """Scores a contestant twice: at 0.5, and at a threshold of its own.

    That is set by its last 1,000 probabilities and needs no labels: for the objective, or for F1
    where accuracy is asked for. ``parts`` are the counts that the objective is about, in the order
    in which they were judged.
    """

    objective: Objective
    half: RunningScores = field(default_factory=RunningScores)
    chosen: RunningScores = field(default_factory=RunningScores)
    recent: list[FloatArray] = field(default_factory=list)
    parts: list[Scores] = field(default_factory=list)

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
        self.parts.append(confusion(probabilities >= (HALF if accuracy else threshold), y))

    def figures(self) -> dict[str, float]:
        """Accuracy and F1 at 0.5, F1 (and cost) at the threshold, and what needs none."""
        half, chosen = self.half.scores(), self.chosen.scores()
        figures = {
            "accuracy": half.accuracy,
            "f1_half": half.f1,
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
    parts: tuple[Scores, ...]


def compare(
    config: RunConfig,
    make_source: Callable[[int], Source],
    recipes: Sequence[str],
    peers: dict[str, MakePeer],
    seeds: Sequence[int],
    on_result: Callable[[Result], None],
) -> list[Result]:
    """Train once a seed, then send the same batches through everyone.

    Where the source holds rows back that the stream is not drawn from, everyone is judged on
    those at the end; else on the stream, each row before anything learned from it.
    """
    results = []
    for seed in seeds:
        seeded = config.model_copy(update={"seed": seed})
        source = make_source(seed)
        if len(source.labels) != 2:
            raise ConfigurationError(
                f"the target has {len(source.labels)} values; a comparison is for two"
            )
        trained = train_networks(seeded, source, lambda done, total: None)
        for result in _one_seed(seeded, source, trained, recipes, peers):
            on_result(result)
            results.append(result)
    return results


def _one_seed(
    config: RunConfig,
    source: Source,
    trained: Trained,
    recipes: Sequence[str],
    peers: dict[str, MakePeer],
) -> Iterator[Result]:
    settings = config.network
    share = _trained_share(source)
    simple: dict[str, MakePeer] = {
        "no heal": lambda seed, source: Frozen(trained.network),
        "full fine-tune": lambda seed, source: FineTune(trained.network, settings.learning_rate),
        "flag nothing": lambda seed, source: Constant(0.0),
        "label rate of the last 10 batches": lambda seed, source: LabelRate(share),
    }
    if isinstance(config.source, SyntheticSettings) and not config.source.phases:
        known = config.source
        simple[LIMIT] = lambda seed, source: Posterior(known)
    for title, make in simple.items():
        yield contest(title, WithPeer(make(config.seed, source), config), config, source)
    for recipe in recipes:
        heal = config.heal.model_copy(
            update={
                "recipe": recipe,
                "assume": config.heal.assume if recipe == "anchored" else None,
            }
        )
        own = config.model_copy(update={"heal": heal})
        check_recipe(heal, own.labels, len(source.labels))
        replay = Replay(own, source, survey(own, source, trained))
        yield contest(recipe, replay, own, source)
    for title, make in peers.items():
        yield contest(title, WithPeer(make(config.seed, source), config), config, source)


class BaselineModel(Protocol):
    """Predicts a batch, then takes it: labels come to it as the regime lets them."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to probabilities (n,)."""

    def step(self, batch: Batch) -> None:
        """Learn what may be learned once the batch was predicted."""

    @property
    def learning(self) -> float:
        """Seconds of learning alone, without monitors, guards and snapshots."""

    def counts(self) -> dict[str, float]:
        """What happened to it, by event."""


class WithPeer:
    """A peer whose labels wait in a queue."""

    def __init__(self, peer: Peer, config: RunConfig) -> None:
        self._peer = peer
        self._labels = label_queue(config)
        self.learning = 0.0

    def predict(self, x: FloatArray) -> FloatArray:
        """See `BaselineModel`."""
        return self._peer.predict(x)

    def step(self, batch: Batch) -> None:
        """See `BaselineModel`."""
        parts = self._labels.take(_waiting(batch), batch.now, batch.late)
        if not parts:
            return
        x = np.concatenate([part.x for part in parts])
        y = np.concatenate([part.y for part in parts])
        start = perf_counter()
        self._peer.learn(x, y)
        self.learning += perf_counter() - start

    def counts(self) -> dict[str, float]:
        """See `BaselineModel`."""
        return {}


def contest(title: str, contestant: BaselineModel, config: RunConfig, source: Source) -> Result:
    """Send the stream through one of them; each row is predicted before anything learns from it."""
    judge, by_batch = BaselineScorer(config.objective), list[float]()
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
    right = (probabilities[known] >= HALF) == (y[known] == 1)
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


def _trained_share(source: Source) -> float:
    positive = rows = 0
    for block in source.training():
        positive += int((block.y == 1).sum())
        rows += len(block)
    return positive / rows


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


def ranking(results: Sequence[Result], objective: Objective) -> Ranking:
    """Who is ahead over all seeds; the limit does not compete."""
    parts: dict[str, list[Scores]] = {}
    for result in results:
        if result.title == LIMIT:
            continue
        known = parts.get(result.title)
        # of the same place in each seed, since seeds of a table share its rows
        added = zip(known, result.parts, strict=True) if known else ()
        parts[result.title] = [a.plus(b) for a, b in added] if known else list(result.parts)
    return rank(parts, objective)
