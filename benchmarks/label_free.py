"""Healing and figures without any label: where they are right, refused, and wrong unseen.

    python benchmarks/label_free.py heals --seeds 20       log loss against frozen, by world
    python benchmarks/label_free.py heals --recipe ensemble
    python benchmarks/label_free.py intervals --seeds 200  of estimated figures

The article's generator: a heal on 2,500 rows, judged on 20,000 that nothing learned from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
from sklearn.metrics import log_loss

from selfheal_cli.config import HealSettings, LabelSettings, RunConfig, SyntheticSettings
from selfheal_cli.errors import HealRefused
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.recipe import Recipes, label_free
from selfheal_cli.heal.task import AdapterState, HealRows, HealTask
from selfheal_cli.labels.estimate import estimate
from selfheal_cli.metrics import score
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import survey, train_networks
from selfheal_cli.records import Rows
from selfheal_cli.sources.synthetic import RULE, SyntheticSource, as_rows

ROWS, WINDOW = 20_000, 2_500
Change = Callable[[Rows, np.random.Generator], Rows]


def same(rows: Rows, draw: np.random.Generator) -> Rows:
    """As the generator has them."""
    return rows


def reversed_labels(rows: Rows, draw: np.random.Generator) -> Rows:
    """The relation of inputs and label is the other way round."""
    return as_rows(rows.x, (1 - rows.y).astype(np.int8))


def no_information(rows: Rows, draw: np.random.Generator) -> Rows:
    """Labels have nothing to do with the inputs any more."""
    return as_rows(rows.x, draw.permutation(rows.y))


def noise(rows: Rows, draw: np.random.Generator) -> Rows:
    """Nothing but normal noise comes in."""
    return as_rows(draw.normal(size=rows.x.shape).astype(np.float32), rows.y)


def stretched(rows: Rows, draw: np.random.Generator) -> Rows:
    """Every input in another unit."""
    return as_rows(rows.x * np.float32(1.5) + np.float32(0.8), rows.y)


# by name: what the generator is asked for, and what is done to its rows
WORLDS: dict[str, tuple[dict[str, Any], Change]] = {
    "no drift": ({}, same),
    "normals move by 1": ({"drift_strength": 1.0}, same),
    "normals move by 2.2": ({"drift_strength": 2.2}, same),
    "normals move by 3.5": ({"drift_strength": 3.5}, same),
    "positives move by 1": ({"positive_shift": 1.0}, same),
    "positives move by -1": ({"positive_shift": -1.0}, same),
    "base rate 15 % to 5 %": ({"stream_positive_share": 0.05}, same),
    "base rate 15 % to 40 %": ({"stream_positive_share": 0.40}, same),
    "both classes move by -1": ({"drift_strength": 1.0, "positive_shift": -1.0}, same),
    "relation reversed": ({}, reversed_labels),
    "relation reversed while normals move by 1": ({"drift_strength": 1.0}, reversed_labels),
    "information gone": ({}, no_information),
    "nothing but noise": ({}, noise),
    "inputs in another unit": ({}, stretched),
}
ASSUMED: tuple[Any, ...] = ("positives-stable", "negatives-stable", "inputs-shifted")


@dataclass(frozen=True)
class Start:
    """A network trained on 5,000 clean rows, and what is normal."""

    network: SelfHealingNetwork
    anchor: Anchor


def stream(seed: int, settings: dict[str, Any]) -> SyntheticSource:
    """One world's rows, before anything is done to them."""
    asked = {"drift_strength": 0.0, "fresh": True, "test_rows": ROWS, **settings}
    settled = SyntheticSettings.model_validate(asked)
    return SyntheticSource(settled, seed=seed, batch_size=WINDOW, batches=1)


@cache
def start(seed: int, recipe: str) -> Start:
    """The same in every world."""
    source = stream(seed, {})
    heal = HealSettings(recipe=recipe, assume="positives-stable", assume_strictly=True)
    config = RunConfig(rules=(RULE,), plots=False, seed=seed, heal=heal,
                       labels=LabelSettings(regime="none"))  # fmt: skip
    prepared = survey(config, source, train_networks(config, source, lambda done, total: None))
    return Start(prepared.network, prepared.anchor)


def heals(seeds: int, only: str, recipe: str) -> None:
    """Mean log loss, frozen and healed, and how often it healed, by world and assumption."""
    print("| world | assumed | frozen | healed | of frozen, worst seed | heals |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, (settings, change) in WORLDS.items():
        for assume in ASSUMED if only in name else ():
            runs = [
                _run(start(seed, recipe), stream(seed, settings), seed, change, assume, recipe)
                for seed in range(seeds)
            ]
            frozen, healed, count = (fmean(one) for one in zip(*runs, strict=True))
            worst = max(after / before for before, after, _ in runs)
            print(f"| {name} | {assume} | {frozen:.3f} | {healed:.3f} | {worst:.3f} | "
                  f"{count:.0%} |", flush=True)  # fmt: skip


def _run(
    known: Start, source: SyntheticSource, seed: int, change: Change, assume: Any, recipe: str
) -> tuple[float, float, float]:
    (batch,) = source.batches()
    window = change(batch.rows, np.random.default_rng((seed, 0)))
    rows = change(source.held_out()["drifted"], np.random.default_rng((seed, 1)))
    settled = HealSettings(recipe=recipe, assume=assume, assume_strictly=True)
    unknown = np.full_like(window.y, -1)
    steps, none = np.ones(len(window), dtype=np.int32), np.zeros(len(window), dtype=np.bool_)
    features = known.network.features(window.x)
    asked = HealRows(features, unknown, unknown, steps, none)
    task = HealTask("h", 1, "", label_free(settled) or "", asked)
    before = AdapterState(known.network.adapter.state_dict(), {})
    healed = known.network
    try:
        outcome = Recipes(known.network, known.anchor, settled).heal(before, task)
        healed = known.network.with_adapter(outcome.after.weights)
    except HealRefused:
        pass
    frozen, after = (
        float(log_loss(rows.y, network.predict(rows.x).astype(np.float64), labels=[0, 1]))
        for network in (known.network, healed)
    )
    return frozen, after, float(healed is not known.network)


def intervals(seeds: int) -> None:
    """How often the 95 % interval has the figure, where labels fall as the probabilities say."""
    print("| rows | positives | figure | in the interval |\n|---|---|---|---|")
    for rows in (100, 1_000):
        for middle in (-4.0, -2.0, 0.0):
            tries: dict[str, list[bool]] = {}
            for seed in range(seeds):
                draw = np.random.default_rng((seed, rows))
                p = (1 / (1 + np.exp(-draw.normal(middle, 1.5, rows)))).astype(np.float32)
                y = (draw.random(rows) < p).astype(np.int8)
                told, truth = estimate(p, 0.5).figures(), score(p, y, 0.5)
                for name in ("accuracy", "precision", "recall", "f1", "roc_auc"):
                    value = getattr(truth, name)
                    if value is not None and f"est_{name}" in told:
                        inside = told[f"est_{name}_low"] <= value <= told[f"est_{name}_high"]
                        tries.setdefault(name, []).append(inside)
            share = 1 / (1 + np.exp(-middle))
            for name, inside in tries.items():
                print(f"| {rows} | {share:.0%} | {name} | {fmean(inside):.3f} |", flush=True)


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("heals", "intervals"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="")
    parser.add_argument("--recipe", choices=("anchored", "ensemble"), default="anchored")
    arguments = parser.parse_args()
    use_one_thread()
    if arguments.what == "heals":
        heals(arguments.seeds, arguments.only, arguments.recipe)
    else:
        intervals(arguments.seeds)


if __name__ == "__main__":
    main()
