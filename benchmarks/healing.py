"""The figures of docs/healing-figures.md: recipes against the limit, the end of a drift, time.

    python benchmarks/healing.py compare --seeds 20
    python benchmarks/healing.py ends --seeds 20
    python benchmarks/healing.py flips --seeds 20
    python benchmarks/healing.py time

Settings of the recipes were chosen on seeds 0 to 3 of the synthetic stream and fixed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from time import perf_counter

import numpy as np

from selfheal_cli.config import HealSettings, LabelSettings, RunConfig, SyntheticSettings
from selfheal_cli.heal.recipe import KINDS, Recipes
from selfheal_cli.heal.task import AdapterState, HealTask, Window
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.compare import Result, compare, summarise
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare, survey, train_networks
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.synthetic import RULE, SyntheticSource

DRIFTS = (1.0, 2.2, 3.5)
REGIMES: dict[str, tuple[LabelSettings, HealSettings, tuple[str, ...]]] = {
    "full": (LabelSettings(), HealSettings(), ("article", "gradient", "anchored")),
    "delayed:5": (
        LabelSettings(regime="delayed", delay=5),
        HealSettings(),
        ("article", "gradient", "anchored"),
    ),
    "none, positives-stable": (
        LabelSettings(regime="none"),
        HealSettings(recipe="anchored", assume="positives-stable"),
        ("anchored",),
    ),
}
FIGURES = ("accuracy", "f1", "roc_auc", "log_loss", "ece")
ROUNDS = 9
FLIPPED = range(13, 17)  # batches whose labels are the wrong way round


def config_for(settings: SyntheticSettings, **changed: object) -> RunConfig:
    """A run on a synthetic stream."""
    return RunConfig(source=settings, rules=(RULE,), plots=False, **changed)  # type: ignore[arg-type]


def maker(settings: SyntheticSettings, batches: int | None) -> Callable[[int], SyntheticSource]:
    """Streams by seed."""
    return lambda seed: SyntheticSource(settings, seed=seed, batch_size=100, batches=batches)


def compare_all(seeds: int) -> None:
    """Each regime and drift, on 20,000 rows that nothing learned from."""
    for regime, (labels, heal, recipes) in REGIMES.items():
        for drift in DRIFTS:
            settings = SyntheticSettings(fresh=True, drift_strength=drift, test_rows=20_000)
            config = config_for(settings, labels=labels, heal=heal)
            results = compare(config, maker(settings, 25), recipes, {}, range(seeds), _quiet)
            print(f"\nlabels {regime}, drift {drift:g}, {seeds} seeds")
            print("| | accuracy | F1 | ROC AUC | log loss | ECE |\n|---|---|---|---|---|---|")
            for line in summarise(results):
                print(f"| {line.title} | {_row(line.mean)} |", flush=True)


def ends(seeds: int) -> None:
    """10 clean batches, 25 drifted, 15 clean: the last ten batches against no heal."""
    print(
        "| drift | recipe | accuracy | no heal | F1 at 0.5 | no heal |\n|---|---|---|---|---|---|"
    )
    for drift in (1.0, 2.2):
        settings = SyntheticSettings(phases=((10, 0.0), (25, drift), (15, 0.0)))
        for recipe in ("article", "gradient", "anchored"):
            config = config_for(settings, heal=HealSettings(recipe=recipe))
            runs = [_last_ten(config, maker(settings, None)(seed), seed) for seed in range(seeds)]
            cells = " | ".join(f"{fmean(column):.3f}" for column in zip(*runs, strict=True))
            print(f"| {drift:g} | {recipe} | {cells} |", flush=True)


class Flipped(SyntheticSource):
    """A stream that tells some batches' labels the wrong way round."""

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """As they are told."""
        for batch in super().batches(start):
            yield replace(batch, rows=_flip(batch.rows)) if batch.index in FLIPPED else batch


def flips(seeds: int) -> None:
    """Accuracy by the true labels while four batches' labels are flipped, and the batch after."""
    print("| drift | recipe | accuracy | no heal |\n|---|---|---|---|")
    for drift in (0.0, 1.0, 2.2):
        settings = SyntheticSettings(fresh=True, drift_strength=drift)
        for recipe in ("gradient", "anchored"):
            config = config_for(settings, heal=HealSettings(recipe=recipe))
            runs = []
            for seed in range(seeds):
                source = Flipped(settings, seed=seed, batch_size=100, batches=25)
                runs.append(_while_flipped(config, source, seed))
            cells = " | ".join(f"{fmean(column):.3f}" for column in zip(*runs, strict=True))
            print(f"| {drift:g} | {recipe} | {cells} |", flush=True)


def time_heals() -> None:
    """Milliseconds a heal at 64 features: the median of rounds that alternate."""
    settings = SyntheticSettings(fresh=True, drift_strength=1.0)
    source = maker(settings, 25)(0)
    trained = train_networks(config_for(settings), source, lambda done, total: None)
    tasks = {
        "article, 100 rows, five steps": ("article", 1),
        "anchored, 500 rows": ("anchored", 5),
        "anchored, 2,500 rows": ("anchored", 25),
        "gradient, 2,500 rows": ("gradient", 25),
    }
    cases = {
        title: _case(survey(_with(settings, recipe), source, trained), source, recipe, batches)
        for title, (recipe, batches) in tasks.items()
    }
    spent: dict[str, list[float]] = {title: [] for title in cases}
    for _ in range(ROUNDS):
        for title, heal in cases.items():
            start = perf_counter()
            for _ in range(20):
                heal()
            spent[title].append((perf_counter() - start) / 20 * 1e3)
    first = median(spent["article, 100 rows, five steps"])
    print("| heal | ms | of the article's |\n|---|---|---|")
    for title, values in spent.items():
        print(f"| {title} | {median(values):.2f} | {median(values) / first:.2f} |")


def _case(
    prepared: Prepared, source: SyntheticSource, recipe: str, batches: int
) -> Callable[[], object]:
    """A heal as it comes in mid-stream: the one before it is known to the recipe."""
    heal = HealSettings(recipe=recipe)
    recipes = Recipes(prepared.network, prepared.anchor, heal)
    window = Window(batches, heal.held_out if KINDS[recipe].guarded else 0.0, seed=0)
    state = AdapterState(prepared.network.adapter.state_dict(), {})
    task = None
    for batch in source.batches():
        rows, before = batch.rows, state
        labels = prepared.trained.rules.judge(rows.columns).label
        window.add(batch.index, prepared.network.features(rows.x), rows.y, labels)
        task = HealTask("h", batch.index, "", recipe, window.rows())
        state = recipes.heal(before, task).after
    if task is None:
        raise ValueError("the stream is empty")
    return lambda: recipes.heal(before, task)


def _with(settings: SyntheticSettings, recipe: str) -> RunConfig:
    return config_for(settings, heal=HealSettings(recipe=recipe))


def _last_ten(config: RunConfig, source: SyntheticSource, seed: int) -> tuple[float, ...]:
    right, shadow, truth = _stream(config, source, seed)
    return (
        _accuracy(right[-10:], truth[-10:]),
        _accuracy(shadow[-10:], truth[-10:]),
        _f1(right[-10:], truth[-10:]),
        _f1(shadow[-10:], truth[-10:]),
    )


def _while_flipped(config: RunConfig, source: SyntheticSource, seed: int) -> tuple[float, ...]:
    live, shadow, told = _stream(config, source, seed)
    places = slice(FLIPPED.start - 1, FLIPPED.stop)  # and the batch after
    truth = [1 - y if index + 1 in FLIPPED else y for index, y in enumerate(told)]
    return _accuracy(live[places], truth[places]), _accuracy(shadow[places], truth[places])


def _stream(
    config: RunConfig, source: SyntheticSource, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Decisions by batch of the live and the un-healed model, and the labels as told."""
    own = config.model_copy(update={"seed": seed})
    prepared = prepare(own, source, lambda done, total: None)
    replay = Replay(own, source, prepared)
    live, shadow, told = [], [], []
    for batch in source.batches():
        live.append(replay.predict(batch.rows.x) >= 0.5)
        shadow.append(prepared.shadow.predict(batch.rows.x) >= 0.5)
        told.append(batch.rows.y)
        replay.step(batch)
    return live, shadow, told


def _accuracy(flagged: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    return float(np.mean(np.concatenate(flagged) == (np.concatenate(y) == 1)))


def _f1(flagged: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    said, truth = np.concatenate(flagged), np.concatenate(y) == 1
    return float(2 * (said & truth).sum() / max(said.sum() + truth.sum(), 1))


def _flip(rows: Rows) -> Rows:
    return replace(rows, y=(1 - rows.y).astype(np.int8))


def _row(figures: Mapping[str, float]) -> str:
    return " | ".join(f"{figures[name]:.3f}" for name in FIGURES)


def _quiet(result: Result) -> None:
    """Nobody waits for a single result."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["compare", "ends", "flips", "time"])
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    use_one_thread()
    if options.what == "time":
        time_heals()
    else:
        {"compare": compare_all, "ends": ends, "flips": flips}[options.what](options.seeds)


if __name__ == "__main__":
    main()
