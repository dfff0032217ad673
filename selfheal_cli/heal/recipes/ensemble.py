"""``ensemble``: experts that forget at different rates, mixed by what each predicted beforehand.

The frozen network, its logit scaled and shifted, logistic regression around it on the frozen
features and on random ones, and without it on the inputs, with several memories each; boosted trees
fitted anew as rows come; a small network that learns by gradient steps. A heal lets each of them
predict the rows whose labels came, charges it its log loss there, and then lets it learn.
docs/healing-figures.md says how well that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.experts.design import MOST_INPUTS, ExpertDesign
from selfheal_cli.heal.experts.filters import BLOCK, Filters, FilterSpec, class_probabilities
from selfheal_cli.heal.experts.mixing import Mixing
from selfheal_cli.heal.experts.networks import LearningNetwork
from selfheal_cli.heal.experts.trees import BoostedTrees
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask, require_finite
from selfheal_cli.model.boosters import as_tensor
from selfheal_cli.model.mixture import LEAST, LINEAR, TREES
from selfheal_cli.model.network import SelfHealingNetwork, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Places = NDArray[np.intp]

# what is left of what was learned after 100 labelled rows; chosen on generated streams alone
MEMORIES = np.array([0.85, 0.97, 0.998])
RIDGE = np.array([10.0, 5.0, 5.0])  # penalty of a feature's coefficient, by memory
ALONE_MEMORIES = np.array([0.7, 0.9, 0.97, 0.998])  # of those that begin without the frozen logit
ALONE_RIDGE = np.ones(4)
SCALE_MEMORY = np.array([0.8])
AHEAD = 8.0  # nats that the frozen network is ahead: where nothing moved nothing changes
KEPT = 2  # of what slow filters left behind, for relations that return
NEVER = -1  # arrival before the first
SCALE_RIDGE, LIGHT = 1.0, 1e-3  # penalties of scaling the frozen margins, and of the intercept


class Ensemble:
    """A `Recipe`; how well it does is measured in docs/healing-figures.md."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network, self._anchor = network, anchor
        self._design = ExpertDesign(network, anchor)
        random = network.architecture.random > 0
        self._specs = _specs(self._design, settings.filter_steps, random=random)
        linear = [name for spec in self._specs for name in spec.names]
        self._around = np.repeat(
            [float(spec.around) for spec in self._specs], [len(spec.names) for spec in self._specs]
        )
        self._with_trees, self._trees_after = settings.trees, settings.trees_after
        self._charged = settings.charged
        self._steps = settings.network_steps if self._design.reads <= MOST_INPUTS else 0
        self.names = [
            "frozen", *linear, *(BoostedTrees.names if settings.trees else ()),
            *([LearningNetwork.name] if self._steps else ()),
        ]  # fmt: skip

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures the share of each expert, and which begin anew."""
        known = _Known.of(before.memory)
        filters = [
            Filters(spec, self._design.margins, known.part(spec.name)) for spec in self._specs
        ]
        mixing = Mixing(len(self.names), known.part("mixing"), AHEAD)
        trees = self._trees(known.part("trees"), before.weights["trees"])
        curved = self._curved(known.part(LearningNetwork.name))
        apart: set[str] = set()
        learned = task.rows.learnable
        fresh = learned.where(learned.arrival > known.last)
        for arrival in np.unique(fresh.arrival):
            labelled = (task.rows.arrival == arrival) & (task.rows.y >= 0)
            rows = fresh.where(fresh.arrival == arrival)
            for part in self._parts(len(rows)):
                stand_for = int(labelled.sum()) * len(rows.y[part]) / len(rows)
                apart |= self._take(rows.where(part), stand_for, filters, trees, curved, mixing)
        last = int(fresh.arrival[-1]) if len(fresh) else known.last
        shares = mixing.shares()
        if last == NEVER:  # no label has come: nothing but the frozen network is known
            shares = np.eye(len(self.names))[0]
        weights = self._weights(filters, trees, curved, shares)
        require_finite(weights, task, "check the rows of the window")
        parts = {one.spec.name: one.state() for one in filters} | {"mixing": mixing.state()}
        if trees is not None:
            parts["trees"] = trees.state()
        if curved is not None:
            parts[curved.name] = curved.state()
        after = AdapterState(weights, _Known.pack(parts, last))
        return HealOutcome(
            task,
            after,
            self._network.with_adapter(before.weights).predict_features(task.rows.features),
            self._network.with_adapter(weights).predict_features(task.rows.features),
            {f"weight_{name}": float(share) for name, share in zip(self.names, shares, strict=True)}
            | {f"apart_{name}": 1.0 for name in sorted(apart)}
            | ({} if trees is None else trees.told()),
        )

    def _parts(self, rows: int) -> Iterator[slice]:
        """Rows that came together, in the parts that experts are charged for and then learn."""
        size = self._charged or rows
        return (slice(start, start + size) for start in range(0, rows, size))

    def _trees(self, state: dict[str, Any], texts: Tensor) -> BoostedTrees | None:
        """None where it heals without."""
        if not self._with_trees:
            return None
        trained = (self._anchor.latest_x, self._anchor.latest_y)
        return BoostedTrees(self._design.margins + 1, trained, self._trees_after, state, texts)

    def _curved(self, state: dict[str, Any]) -> LearningNetwork | None:
        """None where it heals without, or has too many inputs."""
        if not self._steps:
            return None
        anchor, read = self._anchor, self._design.read
        trained = (anchor.latest_x, anchor.latest_y)
        moments = (anchor.mean[read], anchor.sd[read])
        return LearningNetwork(*moments, self._design.margins, trained, self._steps, state)

    def _take(
        self,
        rows: HealRows,
        labelled: float,
        filters: list[Filters],
        trees: BoostedTrees | None,
        curved: LearningNetwork | None,
        mixing: Mixing,
    ) -> set[str]:
        """Charge each expert for what it predicts of the rows, then let it learn.

        Of ``labelled`` rows these are the ones that were not held out. Where labels come late it is
        charged for what it would say by now, not for what it said when the rows were scored: else
        the weights lag twice, by the labels that it lacked and by those that show it.
        """
        margin = self._design.margin(rows.features)
        a = self._design.rows(rows.features, margin)
        moves = np.tensordot(self._coefficients(filters), a, axes=(0, 1)).transpose(0, 2, 1)
        begun = self._around[:, None, None] * margin
        p = class_probabilities(np.concatenate([margin[None], begun + moves]))
        apart, x = set[str](), rows.features[:, self._design.read]
        if trees is not None:
            p = np.concatenate([p, trees.predict(x, p[0])])
            apart |= trees.learn(x, rows.y, int(rows.arrival[-1]))
        if curved is not None:
            p = np.concatenate([p, curved.predict(x)])
            apart |= {curved.name} if curved.learn(x, rows.y) else set()
        # an expert that answers with no number predicts as the frozen network does, the first
        sound = np.array([np.isfinite(one).all() for one in p])
        apart |= {name for name, sane in zip(self.names, sound, strict=True) if not sane}
        p = np.where(sound[:, None, None], p, p[:1])
        least = LEAST / (p.shape[2] - 1)
        chances = np.clip(p[:, np.arange(len(rows)), rows.y], least, 1.0 - LEAST)
        mixing.observe(chances, labelled)
        loss = -np.log(chances).sum(axis=1) * labelled / len(rows)
        step, place = int(rows.arrival[-1]), 1
        for one in filters:
            after = place + len(one.theta)
            one.judge(loss[place:after], labelled, step)
            place = after
        for start in range(0, len(a), BLOCK):
            block = slice(start, start + BLOCK)
            part = labelled * len(a[block]) / len(a)
            for one in filters:
                lost = one.learn(a[block], margin[block], rows.y[block], part)
                apart |= {one.spec.names[place] for place in lost}
        return apart

    def _coefficients(self, filters: list[Filters]) -> Matrix:
        """Those of all linear experts on the whole design: (columns, experts, margins)."""
        whole = []
        for one in filters:
            theta = np.zeros((self._design.columns, len(one.theta), self._design.margins))
            theta[one.spec.columns] = np.moveaxis(one.theta, 0, 1)
            whole.append(theta)
        return np.concatenate(whole, axis=1)

    def _weights(
        self,
        filters: list[Filters],
        trees: BoostedTrees | None,
        curved: LearningNetwork | None,
        shares: Matrix,
    ) -> dict[str, Tensor]:
        """The adapter's tensors."""
        design = self._design
        weight = np.zeros((LINEAR, design.margins, design.features))
        bias = np.zeros((LINEAR, design.margins))
        coefficients = self._coefficients(filters)
        linear = coefficients.shape[1]
        for place in range(linear):
            weight[place], bias[place] = design.fold(coefficients[:, place])
        share = np.zeros(1 + LINEAR + TREES + (curved is not None))
        share[: linear + 1] = shares[: linear + 1]
        if trees is not None:
            share[1 + LINEAR :][:TREES] = shares[linear + 1 :][:TREES]
        if curved is not None:
            share[-1] = shares[-1]
        return {
            "share": _narrow(share),
            "weight": _narrow(weight),
            "bias": _narrow(bias),
            "begins": _narrow(np.append(self._around, np.ones(LINEAR - linear))),
            "trees": as_tensor(()) if trees is None else trees.texts,
            "network": torch.zeros(0) if curved is None else curved.served(),
            "scale": torch.zeros(0),
            "shift": torch.zeros(0),
        }


class _Known:
    """What is remembered from heal to heal: each part's state, and the last arrival learned."""

    def __init__(self, tensors: dict[str, Matrix], last: int) -> None:
        self._tensors, self.last = tensors, last

    @classmethod
    def of(cls, memory: Weights) -> _Known:
        if not memory:
            return cls({}, NEVER)
        tensors = {name: value.numpy() for name, value in memory.items()}
        return cls(tensors, int(tensors.pop("last")[0]))

    def part(self, name: str) -> dict[str, Matrix]:
        """A part's own tensors."""
        begin = f"{name}."
        return {
            key.removeprefix(begin): value
            for key, value in self._tensors.items()
            if key.startswith(begin)
        }

    @staticmethod
    def pack(parts: dict[str, dict[str, Matrix]], last: int) -> dict[str, Tensor]:
        """The inverse of `of`."""
        memory = {
            f"{name}.{key}": torch.from_numpy(np.ascontiguousarray(value))
            for name, part in parts.items()
            for key, value in part.items()
        }
        return {**memory, "last": torch.tensor([last])}


def _specs(design: ExpertDesign, steps: int, *, random: bool) -> list[FilterSpec]:
    """Scale, filters on the frozen features, on random ones and on inputs alone where there are."""

    def spec(
        name: str, columns: Places, memories: Matrix, ridge: Matrix, tail: int, around: bool = True
    ) -> FilterSpec:
        last = [SCALE_RIDGE] * (tail - 1) + [LIGHT]
        penalties = np.array([[one] * (len(columns) - tail) + last for one in ridge])
        kept = KEPT if len(memories) > 1 else 0
        return FilterSpec(name, columns, memories, penalties, around, kept, steps)

    tail = len(design.tail)
    specs = [
        spec("scale", design.tail, SCALE_MEMORY, SCALE_MEMORY, tail),
        spec("filter", design.plain, MEMORIES, RIDGE, tail),
    ]
    if random:
        specs.append(spec("random", design.random, MEMORIES, RIDGE, tail))
    if len(design.alone) > 1:
        specs.append(spec("inputs", design.alone, ALONE_MEMORIES, ALONE_RIDGE, 1, around=False))
    return specs


def _narrow(values: Matrix) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
