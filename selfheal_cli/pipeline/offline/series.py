"""The article and its seven earlier versions, `article-v1` to `article-v7`, each as it was: its
stream, when it healed, on what, and by which loss.

Facts of each are the settings in `VERSIONS`; where one says nothing it is as the article. Seed 42
decides everything, in the order of the article's draws (docs/article.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfheal_cli.config import HealSettings, NetworkSettings
from selfheal_cli.heal.recipes.article import TINY, positive_weight, three_part_loss
from selfheal_cli.metrics import confusion
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import Classifier, PlainNetwork, SelfHealingNetwork
from selfheal_cli.model.training import Adam, SpooledRows, seeded, train
from selfheal_cli.records import Rows
from selfheal_cli.scores import Scores
from selfheal_cli.sources.synthetic import NAMES, V14, draw_set

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Flags = NDArray[np.bool_]

SEED, SHARE, RULE, HALF = 42, 0.15, -1.5, 0.5
ROWS, BATCH, FIRST = 1_000, 100, 500  # of test and drifted rows, of a batch, of clean ones of v1
LOW_FRAUD, FEW = "low-fraud skip", "few conflicts"


@dataclass(frozen=True, slots=True)
class Signals:
    """What a version reads of a batch before it decides."""

    drifting: bool
    conflicts: int
    fraud_share: float


@dataclass(frozen=True, slots=True)
class ArticleVersion:
    """How a version differs from the others.

    ``loss`` takes probabilities, labels, the rule's labels (n,) and the share of positives among
    conflicts; ``steps`` gives their number and rate by the number of conflicts. ``tests``: whether
    it draws test rows and trains a plain network. ``percentile``: its rule moves with each batch.
    """

    drift: float
    when: Callable[[Signals], bool]
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    conflict_probability: float = 0.30
    spread: float = 1.0
    train_rows: int = 5_000
    epochs: int = 20
    batches: int = 20
    window: int = 10
    least_batches: int = 3
    threshold: float = 1.0
    on_conflicts: bool = False
    steps: Callable[[int], tuple[int, float]] = lambda conflicts: (5, 0.003)
    fresh_adam: bool = False
    tests: bool = True
    percentile: bool = False
    skips: Callable[[Signals], str] = lambda signals: ""


def _bce(p: Tensor, y: Tensor, rule: Tensor, share: float) -> Tensor:
    return 0.7 * functional.binary_cross_entropy(p, y) + 0.3 * (
        0.8 * functional.binary_cross_entropy(p, rule)
    )


def _all_positive(p: Tensor, y: Tensor, rule: Tensor, share: float) -> Tensor:
    """v1's mistake: whatever the labels say, every row of a heal is taken for a positive."""
    return 2.0 * functional.binary_cross_entropy(p, torch.ones_like(p))


def _weighted(
    label: float, weight: float, rule_part: float
) -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    def loss(p: Tensor, y: Tensor, rule: Tensor, share: float) -> Tensor:
        logits = torch.log(p / (1 - p + TINY))
        weights = torch.tensor(weight)
        of_labels = functional.binary_cross_entropy_with_logits(logits, y, pos_weight=weights)
        of_rule = rule_part * functional.binary_cross_entropy(p, rule)
        return label * of_labels + (1 - label) * of_rule

    return loss


def _by_share(p: Tensor, y: Tensor, rule: Tensor, share: float) -> Tensor:
    by_rule = 0.8 * (1.5 if share < 0.15 else 0.8) * functional.binary_cross_entropy(p, rule)
    return 0.7 * functional.binary_cross_entropy(p, y) + 0.3 * by_rule


def _more_than(least: int) -> Callable[[Signals], bool]:
    return lambda signals: signals.drifting or signals.conflicts > least


def _article(p: Tensor, y: Tensor, rule: Tensor, share: float) -> Tensor:
    return three_part_loss(p, y, rule, positive_weight(share), HealSettings()).total


def _skip(signals: Signals) -> str:
    """Why v6 says that it did not heal."""
    few_positives = signals.conflicts >= 5 and signals.fraud_share < 0.10
    return LOW_FRAUD if few_positives else FEW


VERSIONS = {
    "article-v1": ArticleVersion(
        3.5, _more_than(5), _all_positive, 0.50, spread=1.2, train_rows=2_000, batches=10,
        window=20, least_batches=1, threshold=2.0, steps=lambda conflicts: (8, 0.005), tests=False,
    ),
    "article-v2": ArticleVersion(
        1.8, _more_than(14), _bce, 0.50, batches=15, window=20, threshold=2.0, tests=False
    ),
    "article-v3": ArticleVersion(
        2.5, _more_than(3), _bce, 0.35, epochs=25, batches=15, percentile=True
    ),
    "article-v4": ArticleVersion(
        2.2, _more_than(3), _weighted(0.85, 6.0, 0.4), 0.25, on_conflicts=True
    ),
    "article-v5": ArticleVersion(2.2, _more_than(4), _weighted(0.7, 2.0, 0.8), on_conflicts=True),
    "article-v6": ArticleVersion(
        2.2,
        lambda signals: (
            (signals.drifting or signals.conflicts >= 8)
            and signals.fraud_share >= 0.10
            and signals.conflicts >= 5
        ),
        _by_share, on_conflicts=True, fresh_adam=True,
        steps=lambda conflicts: (3, 0.002) if conflicts < 15 else (6, 0.005), skips=_skip,
    ),
    "article-v7": ArticleVersion(2.2, _more_than(4), _bce),
    "article": ArticleVersion(2.2, _more_than(4), _article, batches=25),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class VersionBatch:
    """What a version did with a batch; ``skipped`` says why it did not heal, where it said so."""

    batch: int
    z: float
    conflicts: int
    fraud_share: float
    healed: bool
    accuracy_before: float
    accuracy_after: float
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class VersionResult:
    """Counts on clean rows, and on the 1,000 drifted ones without heals and with them."""

    name: str
    clean: Scores
    unhealed: Scores
    healed: Scores
    batches: tuple[VersionBatch, ...]

    @property
    def heals(self) -> int:
        """Batches that it healed after."""
        return sum(one.healed for one in self.batches)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Rows and networks before the first batch, and where the draws stand then."""

    trained: Rows
    clean: Rows
    drifted: Rows
    draws: Any
    network: SelfHealingNetwork
    plain: Classifier


def run_version(name: str) -> VersionResult:
    """One of them from its data to its last batch."""
    version = VERSIONS[name]
    begun = _begin(version.drift, version.spread, version.train_rows, version.epochs, version.tests)
    draw = np.random.RandomState()
    draw.set_state(begun.draws)
    healing = _Healing(version, begun.network, begun.trained.x[:, V14])
    batches = []
    for index in range(1, version.batches + 1):
        chosen = draw.choice(ROWS, BATCH)
        batches.append(healing.step(index, begun.drifted.x[chosen], begun.drifted.y[chosen]))
    clean, unhealed = _score(begun.network, begun.clean), _score(begun.plain, begun.drifted)
    return VersionResult(name, clean, unhealed, _score(healing.network, begun.drifted), (*batches,))


@lru_cache(maxsize=1)  # the last five begin alike
def _begin(drift: float, spread: float, train_rows: int, epochs: int, tests: bool) -> _Begun:
    draw = np.random.RandomState(SEED)
    trained = draw_set(draw, train_rows, 0.0, SHARE)
    clean = Rows(trained.x[:FIRST], trained.y[:FIRST], {})
    if tests:
        clean = draw_set(draw, ROWS, 0.0, SHARE)
    drifted = draw_set(draw, ROWS, drift, SHARE, spread=spread)
    settings = NetworkSettings(epochs=epochs)
    spooled, size = SpooledRows(iter([trained])), Architecture(len(NAMES), settings.hidden)
    with seeded(SEED):
        network = SelfHealingNetwork.build(size)
        plain = PlainNetwork(size) if tests else network
        train(network, spooled, settings, lambda: None)
        if tests:
            train(plain, spooled, settings, lambda: None)
    return _Begun(trained, clean, drifted, draw.get_state(), network, plain)


def _score(network: Classifier, rows: Rows) -> Scores:
    return confusion(network.predict(rows.x) >= HALF, rows.y)


class _Healing:
    """The loop of a version over its batches."""

    def __init__(self, version: ArticleVersion, network: SelfHealingNetwork, v14: FloatArray):
        self._version = version
        weights = {name: value.clone() for name, value in network.adapter.state_dict().items()}
        self.network = network.with_adapter(weights)
        self.network.adapter.requires_grad_(requires_grad=True)
        self._adam = self._new_adam(version.steps(0)[1])
        self._means: deque[float] = deque(maxlen=version.window)
        if version.tests:
            self._mean, self._sd = float(v14.mean()), float(v14.std()) + TINY
        else:  # by torch, unbiased
            values = torch.from_numpy(v14)
            self._mean, self._sd = float(values.mean()), float(values.std()) + TINY

    def step(self, index: int, x: FloatArray, y: LabelArray) -> VersionBatch:
        """Read a batch, and heal where the version would."""
        version, v14 = self._version, x[:, V14]
        rule = RULE
        if version.percentile:
            rule = 0.8 * RULE + 0.2 * float(np.percentile(v14, 10))
        z = self._read(v14)
        probabilities = self.network.predict(x)
        by_rule = v14 < rule
        conflicts = by_rule & (probabilities < version.conflict_probability)
        share = float(y[conflicts].mean()) if conflicts.any() else 0.0
        signals = Signals(z > version.threshold, int(conflicts.sum()), share)
        accuracy = float(((probabilities >= HALF) == (y == 1)).mean())
        told = VersionBatch(index, z, signals.conflicts, share, False, accuracy, accuracy)
        if not version.when(signals):
            return replace(told, skipped=version.skips(signals))
        rows = conflicts if version.on_conflicts and signals.conflicts >= 2 else slice(None)
        self._heal(x[rows], y[rows], by_rule[rows], signals)
        after = float(((self.network.predict(x) >= HALF) == (y == 1)).mean())
        return replace(told, healed=True, accuracy_after=after)

    def _read(self, v14: FloatArray) -> float:
        self._means.append(float(v14.mean()))
        if len(self._means) < self._version.least_batches:
            return 0.0
        return abs(float(np.mean(self._means)) - self._mean) / self._sd

    def _new_adam(self, rate: float) -> Adam:
        return Adam(dict(self.network.adapter.named_parameters()), learning_rate=rate)

    def _heal(self, x: FloatArray, y: LabelArray, by_rule: Flags, signals: Signals) -> None:
        steps, rate = self._version.steps(signals.conflicts)
        if self._version.fresh_adam:
            self._adam = self._new_adam(rate)
        features = torch.from_numpy(self.network.features(x))
        labels, rules = (torch.from_numpy(part).float() for part in (y, by_rule))
        for _ in range(steps):
            self._adam.zero_grad()
            p = self.network.decide(self.network.adapter(features))
            loss = self._version.loss(p, labels, rules, signals.fraud_share)
            loss.backward()  # type: ignore[no-untyped-call]
            self._adam.step()
