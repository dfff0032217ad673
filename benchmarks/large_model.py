"""What healing costs on a model of 50 million parameters: time, bytes and memory.

A heal on cached features is held against the same heal on the adapter and head alone, which never
had a backbone, in alternating rounds of one run; and against a heal that computes the features
anew. Then 20 heals are published one after the other, while the process is watched.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.engine import InlineEngine, LiveModel, Serving
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.heal.worker import decode_recipes, encode_recipes
from selfheal_cli.heal.worker_engine import WorkerEngine
from selfheal_cli.model.checkpoint import make_base, pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.model.wrapping import wrap

INPUTS, WIDE, LAST = 256, 4_096, 64
CASES = (("auto", "reflexive", "anchored"), ("auto", "reflexive", "gradient"),
         ("auto", "lora:4", "gradient"), ("8", "reflexive", "gradient"))  # fmt: skip


def large() -> nn.Module:
    """52 million parameters, all but a few in the three wide layers."""
    torch.manual_seed(0)
    wide = [layer for _ in range(3) for layer in (nn.Linear(WIDE, WIDE), nn.ReLU())]
    return nn.Sequential(
        nn.Linear(INPUTS, WIDE), nn.ReLU(), *wide, nn.Linear(WIDE, LAST), nn.ReLU(),
        nn.Linear(LAST, LAST), nn.ReLU(), nn.Linear(LAST, 1),
    )  # fmt: skip


def recipes_of(network: SelfHealingNetwork, recipe: str, x: np.ndarray, y: np.ndarray) -> Recipes:
    """As a run builds them."""
    if recipe == "anchored":
        network = network.anchored(beside=network.may_look_beside)
    seen = AnchorRows(network, 2)
    seen.add(x, network.features(x), y)
    return Recipes(network, seen.anchor(), HealSettings.model_validate({"recipe": recipe}))


def task_of(recipes: Recipes, recipe: str, x: np.ndarray, y: np.ndarray) -> HealTask:
    """25 batches, a fifth held out."""
    arrival = np.repeat(np.arange(25, dtype=np.int32), len(y) // 25)
    held_out = np.random.default_rng(1).random(len(y)) < 0.2
    rows = HealRows(recipes.network.features(x), y, np.full_like(y, -1), arrival, held_out)
    return HealTask("large-h1", 1, "benchmark", recipe, rows)


def seconds(act: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def resident(process: str = "self") -> float:
    """Megabytes of memory that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    (line,) = (one for one in lines if one.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def heal_times(
    recipes: Recipes, task: HealTask, x: np.ndarray, rounds: int
) -> tuple[float, float, float]:
    """Median seconds of a heal: on cached features, with adapter and head alone, and where the
    features are computed anew at each of five steps.
    """
    start = AdapterState(recipes.network.adapter.state_dict(), {})
    alone = decode_recipes(encode_recipes(recipes))  # never had a backbone
    timings: dict[str, list[float]] = {"cached": [], "alone": [], "anew": []}
    for turn in range(rounds + 1):
        pair = [("cached", recipes), ("alone", alone)]
        for name, one in pair if turn % 2 else reversed(pair):
            taken = seconds(lambda one=one: one.heal(start, task))  # type: ignore[misc]
            timings[name].append(taken)
        if turn < 2:  # slow, and not close
            forward = seconds(lambda: recipes.network.features(x))
            timings["anew"].append(5 * forward + timings["cached"][-1])
    cached, alone_s, anew = (statistics.median(timings[name][1:]) for name in timings)
    return cached, alone_s, anew


def publish_many(recipes: Recipes, task: HealTask, heals: int) -> tuple[float, float]:
    """Megabytes held before and after so many heals that were each published."""
    weights = recipes.network.adapter.state_dict()
    live = LiveModel(Serving(recipes.network, AdapterState(weights, {}), "s0", 0.5))
    engine = InlineEngine(live, recipes)
    before = 0.0
    for place in range(heals + 2):
        if place == 2:  # what the first heals load and keep is not what heals add
            before = resident()
        engine.submit(task)
        outcome = engine.take()
        if not isinstance(outcome, HealOutcome):
            raise TypeError(f"heal {place} gave no outcome: {outcome}")
        live.publish(outcome.after, f"s{place}", 0.5)
        if live.serving.network.backbone is not recipes.network.backbone:
            raise RuntimeError("the backbone was copied")
    return before, resident()


def worker_memory(recipes: Recipes) -> tuple[float, float]:
    """Megabytes that are sent to the heal worker, and that it holds."""
    weights = recipes.network.adapter.state_dict()
    live = LiveModel(Serving(recipes.network, AdapterState(weights, {}), "s0", 0.5))
    engine = WorkerEngine(live, recipes)
    try:
        return len(encode_recipes(recipes)) / 1e6, resident(str(engine.worker_pid))
    finally:
        engine.close()


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=2_500)
    parser.add_argument("--heals", type=int, default=20)
    options = parser.parse_args()
    use_one_thread()
    module, draw, console = large(), np.random.default_rng(0), Console()
    x = draw.standard_normal((options.rows // 25 * 25, INPUTS)).astype(np.float32)
    y = (x[:, 0] + draw.standard_normal(len(x)) > 0).astype(np.int8)
    parameters = sum(one.numel() for one in module.parameters())
    where = ("at", "adapter", "recipe")
    shares = ("cached ms", "alone ms", "cached / alone", "anew ms", "cached / anew")
    held_columns = ("snapshot KB", "base MB", "MB before", f"MB after {options.heals} heals",
                    "sent to worker MB", "worker holds MB")  # fmt: skip
    times = Table(*where, *shares, title=f"{parameters:,} parameters")
    sizes = Table(*where, *held_columns)
    for at, adapter, recipe in CASES:
        network = wrap(module, x[:64], shape=(INPUTS,), at=at, adapter=adapter)
        recipes = recipes_of(network, recipe, x, y)
        task = task_of(recipes, recipe, x, y)
        cached, alone, anew = heal_times(recipes, task, x, options.rounds)
        figures = [f"{cached * 1e3:.1f}", f"{alone * 1e3:.1f}", f"{cached / alone:.2f}",
                   f"{anew * 1e3:.0f}", f"{cached / anew:.4f}"]  # fmt: skip
        times.add_row(at, adapter, recipe, *figures)
        after = recipes.heal(AdapterState(recipes.network.adapter.state_dict(), {}), task).after
        snapshot = len(pack(after.weights)) / 1e3
        base = len(make_base(recipes.network, {}, {}).weights) / 1e6
        before, then = publish_many(recipes, task, options.heals)
        sent, held = worker_memory(recipes)
        sizes.add_row(at, adapter, recipe, f"{snapshot:.1f}", f"{base:.0f}", f"{before:.0f}",
                      f"{then:.0f}", f"{sent:.2f}", f"{held:.0f}")  # fmt: skip
    console.print(times)
    console.print(sizes)


if __name__ == "__main__":
    main()
