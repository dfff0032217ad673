"""A model tried before anything is registered: what it takes and gives, and what a heal costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from selfheal_cli.heal.recipe import fitting
from selfheal_cli.model.adapters import AFFINE, REFLEXIVE
from selfheal_cli.model.checkpoint import pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.original import Original
from selfheal_cli.model.wrapping import put_in
from selfheal_cli.pipeline.prepare.estimators import WrappedEstimator, estimator_base
from selfheal_cli.pipeline.prepare.foreign import Sample, base_of

BATCH = 100
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class ModelTrial:
    """Of a model with its adapter: words for people, times in milliseconds, sizes in kilobytes.

    ``cautions`` are what will not work, or not as somebody may expect, a sentence each.
    """

    takes: str
    columns: int
    gives: str
    kind: str
    classes: int
    at: str
    where: str
    adapter: str
    parameters: int
    recipes: tuple[str, ...]
    batch_rows: int
    batch_ms: float
    step_ms: float
    base_kb: float
    version_kb: float
    cautions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def tried(original: Original, sample: Sample, *, at: str, adapter: str) -> ModelTrial:
    """Wrap, store and time a model without registering it; raises `ModelError` as wrapping does."""
    network = put_in(original, at=at, adapter=adapter)
    base = base_of(network, sample, None)
    rows = np.ascontiguousarray(np.resize(sample.rows, (BATCH, sample.rows.shape[1])))
    if original.slow:
        rows = rows[:1]
    foreign = network.architecture.other
    assert foreign is not None  # noqa: S101 - it was wrapped
    kinds = [network.architecture.adapter]
    if network.ends_in_linear and REFLEXIVE in kinds:
        kinds.append(AFFINE)
    return ModelTrial(
        takes=str(original.interface),
        columns=original.interface.width,
        gives=original.answer.words,
        kind=original.answer.kind,
        classes=max(2, original.answer.columns),
        at=foreign.at,
        where=place_of(network),
        adapter=network.architecture.adapter,
        parameters=sum(one.numel() for one in network.adapter.parameters()),
        recipes=tuple(fitting(kinds)),
        batch_rows=len(rows),
        batch_ms=_best_ms(lambda: network.predict(rows)),
        step_ms=_step_ms(network, rows),
        base_kb=len(base.weights) / 1_024,
        version_kb=len(pack(network.adapter.state_dict())) / 1_024,
        cautions=tuple(_cautions(original, network)),
    )


def place_of(network: SelfHealingNetwork) -> str:
    """Where the adapter is, for a person."""
    foreign = network.architecture.other
    if foreign is None or foreign.gives is not None:
        return "after the model's output"
    return f"{'before' if network.ends_in_linear else 'at'} layer '{foreign.at}'"


def _best_ms(work: Any) -> float:
    took = []
    for _ in range(ROUNDS):
        began = perf_counter()
        work()
        took.append(perf_counter() - began)
    return min(took) * 1_000


def _step_ms(network: SelfHealingNetwork, rows: Any) -> float:
    """A gradient step of the adapter through the head."""
    features = torch.from_numpy(network.features(rows))
    learning = network.adapter.around(
        {name: one.detach().clone() for name, one in network.adapter.named_parameters()}
    ).requires_grad_(requires_grad=True)

    def step() -> None:
        torch.autograd.backward(network.decide(learning(features)).sum())

    return _best_ms(step)


def _cautions(original: Original, network: SelfHealingNetwork) -> list[str]:
    said = []
    if original.answer.assumed:
        said.append(
            "One unbounded number a row is taken as the logit of class 1; a regression's output "
            "looks the same and is not supported. Say --gives logits if it is one."
        )
    if not network.ends_in_linear:
        said.append("Recipes ensemble and anchored do not fit there: gradient does.")
    if original.answer.columns > 2:
        said.append("The recipe article and heal.assume are for two classes.")
    if original.interface.whole:
        said.append("Whole numbers have no gradient: name --sensitive COLUMN for the drift reading")
    if original.lost:
        listed = ", ".join(f"{path} ({kind})" for path, kind in list(original.lost.items())[:5])
        said.append(f"Not stored, and not needed to decide: {listed}.")
    if original.slow:
        said.append(original.slow)
    return said


def tried_estimator(taken: WrappedEstimator) -> ModelTrial:
    """The same of a model that is no torch network."""
    network, rows = taken.network, taken.x[np.isfinite(taken.x).all(axis=1)][:BATCH]
    batch = {name: values[:BATCH] for name, values in taken.raw.items()}
    columns = taken.spec.inputs
    kinds = Counter(one.kind for one in columns)
    return ModelTrial(
        takes=", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        columns=len(columns),
        gives=f"probabilities of {', '.join(taken.labels)}",
        kind="probabilities",
        classes=len(taken.labels),
        at="logit",
        where="on its logit and its columns",
        adapter=AFFINE,
        parameters=sum(one.numel() for one in network.adapter.parameters()),
        recipes=tuple(fitting([AFFINE])),
        batch_rows=len(batch[columns[0].name]),
        batch_ms=_best_ms(lambda: network.predict(taken.encoding.encode(batch))),
        step_ms=_step_ms(network, rows),
        base_kb=len(estimator_base(network, taken).weights) / 1_024,
        version_kb=len(pack(network.adapter.state_dict())) / 1_024,
        cautions=taken.remarks,
    )
