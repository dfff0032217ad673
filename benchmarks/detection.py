"""How often monitors alarm where nothing drifts, and how soon where something does.

``false`` streams batches from the training distribution at several sizes; ``delay`` lets drift
begin after quiet batches. Both at the monitors' defaults, on the article's generator with a text
column and missing values beside it. River's detectors alone are fed the feature that drifts, row
by row, as they come out of the box, after the training rows. Tables go to stdout as Markdown.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean, median
from time import perf_counter
from typing import Any

import numpy as np

from selfheal_cli.config import MonitorSettings, NetworkSettings, RunConfig, SyntheticSettings
from selfheal_cli.drift.kinds import KINDS, build, parse_monitor
from selfheal_cli.drift.monitor import BatchView, Level, TrainingSample
from selfheal_cli.drift.monitors import require_river
from selfheal_cli.metrics import classify
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.records import Rows
from selfheal_cli.sources.synthetic import NAMES, RULE, V14, SyntheticSource

V9 = NAMES.index("V9")
KINDS_OF_SHOP = ("web", "shop", "phone", "post")
SHARES = (0.6, 0.25, 0.1, 0.05)
ON_ERRORS = ("adwin", "kswin", "page-hinkley")
QUIET_BATCHES = 100
DRIFTED = 100  # batches after which nobody is waited for any more
PHASE = 30  # batches of a recurring drift, and between two of them


@dataclass(frozen=True)
class Drift:
    """How far the normals' V14 moves down and V9 up, and whether columns break."""

    v14: float = 0.0
    v9: float = 0.0
    faults: bool = False


NONE = Drift()
Shift = Callable[[int], Drift]  # by the batch, counted from 1 where it begins


@dataclass(frozen=True)
class Scene:
    """A trained network and what monitors know of its training rows."""

    prepared: Prepared
    sample: TrainingSample
    draw: np.random.Generator

    def view(self, rows: int, drift: Drift = NONE) -> BatchView:
        """A batch."""
        y = (self.draw.random(rows) < 0.15).astype(np.int8)
        x = self.draw.standard_normal((rows, len(NAMES)), dtype=np.float32)
        x[:, V14] = np.where(y == 1, -2.5 + 0.8 * x[:, V14], x[:, V14] - drift.v14)
        x[:, V9] += drift.v9
        network, rules = self.prepared.trained.network, self.prepared.trained.rules
        probabilities = network.predict(x)
        classes = classify(probabilities, self.prepared.thresholds[0])
        columns = with_text(x, self.draw, faults=drift.faults)
        unknown = np.full(rows, -1, dtype=np.int8)
        conflicts = rules.judge(columns).conflicts_with(probabilities, unknown, 0.3)
        errors = (classes != y).astype(np.float64)
        scores = self.prepared.shadow.predict(x)
        return BatchView(columns, scores, classes, conflicts.count, errors)


def with_text(x: Any, draw: np.random.Generator, *, faults: bool = False) -> dict[str, Any]:
    """Raw columns: the inputs with 2 % of V7 missing, and a text.

    With ``faults`` 15 % are missing and 20 % of the texts are a new one.
    """
    columns = {name: x[:, place] for place, name in enumerate(NAMES)}
    columns["V7"] = np.where(
        draw.random(len(x)) < (0.15 if faults else 0.02), np.nan, columns["V7"]
    )
    chosen = draw.choice(len(KINDS_OF_SHOP), len(x), p=SHARES)
    columns["kind"] = np.array(KINDS_OF_SHOP, dtype=object)[chosen]
    if faults:
        columns["kind"][draw.random(len(x)) < 0.2] = "kiosk"
    return columns


def scene(seed: int) -> Scene:
    """Train as a bare run does."""
    settings = SyntheticSettings(fresh=True)
    config = RunConfig(
        source=settings,
        network=NetworkSettings(shadow="plain"),
        rules=(RULE,),
        monitors=(MonitorSettings(name="psi"),),
        seed=seed,
    )
    source = SyntheticSource(settings, seed=seed, batch_size=100, batches=1)
    prepared = prepare(config, source, lambda done, total: None)
    if prepared.sample is None:
        raise RuntimeError("a run with monitors keeps a sample of its training rows")
    draw = np.random.default_rng(seed)
    rows = prepared.sample.rows
    sample = replace(
        prepared.sample,
        rows=Rows(rows.x, rows.y, with_text(rows.x, draw)),
        categories={"kind": KINDS_OF_SHOP},
    )
    return Scene(prepared, sample, draw)


def monitors() -> dict[str, MonitorSettings]:
    """Every kind at its defaults, and river's once more on the errors."""
    by_name = {name: parse_monitor(name) for name in KINDS}
    for name in ON_ERRORS:
        by_name[f"{name} on errors"] = parse_monitor(f"{name}:on=errors")
    return by_name


def river_alone(sample: TrainingSample, feature: str) -> dict[str, Any]:
    """River's defaults, fed with the training rows."""
    drift: Any = require_river()
    made = {
        "river ADWIN alone": drift.ADWIN(),
        "river KSWIN alone": drift.KSWIN(seed=42),
        "river PageHinkley alone": drift.PageHinkley(),
    }
    for detector in made.values():
        for value in sample.values(feature).tolist():
            detector.update(value)
    return made


def false_alarms(sizes: list[int], batches: int, seeds: int) -> None:
    """Batches in alarm per 1,000, all seeds together, and milliseconds a batch."""
    loud: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    cost: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for size in sizes:
        for seed in range(1, seeds + 1):
            place = scene(seed)
            running = {key: build(one, place.sample) for key, one in monitors().items()}
            alone = river_alone(place.sample, "V14") if size == 100 else {}
            for _ in range(batches):
                view = place.view(size)
                for key, monitor in running.items():
                    begun = perf_counter()
                    level = monitor.update(view).level
                    cost[key][size].append(perf_counter() - begun)
                    loud[key][size] += level is Level.ALARM
                for key, detector in alone.items():
                    begun = perf_counter()
                    loud[key][size] += fires(detector, view, "V14")
                    cost[key][size].append(perf_counter() - begun)
    total = batches * seeds
    print(f"{batches:,} batches x {seeds} seeds a size\n")
    print("| monitor | " + " | ".join(f"{size:,} rows" for size in sizes) + " | ms a batch of "
          + " | of ".join(f"{size:,}" for size in sizes) + " |")  # fmt: skip
    print("|---" * (1 + 2 * len(sizes)) + "|")
    for key, by_size in cost.items():
        rates = [f"{1000 * loud[key][s] / total:.2f}" if s in by_size else "-" for s in sizes]
        spent = [f"{1000 * median(by_size[s]):.2f}" if s in by_size else "-" for s in sizes]
        print(f"| {key} | {' | '.join(rates + spent)} |", flush=True)


def fires(detector: Any, view: BatchView, feature: str) -> bool:
    """Whether river's detector spoke up at any row of the batch."""
    fired = False
    for value in view.values(feature).tolist():
        detector.update(value)
        fired = fired or detector.drift_detected
    return fired


def article(batch: int) -> Drift:
    """All at once, for good."""
    return Drift(v14=2.2)


def gradual(batch: int) -> Drift:
    """The same, over 50 batches."""
    return Drift(v14=2.2 * min(batch / 50, 1.0))


def recurring(batch: int) -> Drift:
    """There for 30 batches, gone for 30: what counts is the second time."""
    return Drift(v14=2.2 if (batch - 1) // PHASE % 2 == 0 else 0.0)


def single(batch: int) -> Drift:
    """One feature that no rule names and the network hardly uses: V9 by one sd."""
    return Drift(v9=1.0)


def faults(batch: int) -> Drift:
    """Nothing moves, but columns break."""
    return Drift(faults=True)


SHIFTS: dict[str, tuple[Shift, int]] = {
    "article's": (article, 0),
    "gradual": (gradual, 0),
    "recurring": (recurring, 2 * PHASE),
    "single feature": (single, 0),
    "broken columns": (faults, 0),
}


def delays(rows: int, seeds: int) -> None:
    """Batches from the drift's begin to the alarm: 1 is the first that drifts."""
    by_key: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(1, seeds + 1):
        place = scene(seed)
        for title, (shift, wait) in SHIFTS.items():
            for key, delay in one_stream(place, rows, shift, wait):
                by_key[key][title].append(delay)
    print(f"{seeds} seeds, batches of {rows}\n")
    print(f"| monitor | {' | '.join(SHIFTS)} |")
    print("|---" * (1 + len(SHIFTS)) + "|")
    for key, by_title in by_key.items():
        cells = [told(by_title[title]) for title in SHIFTS]
        print(f"| {key} | {' | '.join(cells)} |")


def one_stream(place: Scene, rows: int, shift: Shift, wait: int) -> Iterator[tuple[str, float]]:
    """Each monitor's delay in one stream, infinite where it never alarms."""
    running = {key: build(one, place.sample) for key, one in monitors().items()}
    feature = "V9" if shift is single else "V14"
    alone = river_alone(place.sample, feature)
    delay = dict.fromkeys([*running, *alone], float("inf"))
    quiet = dict.fromkeys(delay, True)
    for batch in range(1 - QUIET_BATCHES, DRIFTED + 1):
        view = place.view(rows, shift(batch) if batch > 0 else NONE)
        loud = {key: one.update(view).level is Level.ALARM for key, one in running.items()}
        loud |= {key: fires(one, view, feature) for key, one in alone.items()}
        for key, alarms in loud.items():
            if batch > wait and alarms and quiet[key] and delay[key] == float("inf"):
                delay[key] = batch - wait
            # an alarm that was there before the drift is none of the drift's
            quiet[key] = not alarms or batch > wait
        if batch > wait and all(value < float("inf") for value in delay.values()):
            break
        if wait and batch >= wait + PHASE:
            break
    yield from delay.items()


def told(delays: list[float]) -> str:
    """Mean delay where it was seen, and in how many streams that was."""
    seen = [delay for delay in delays if delay < float("inf")]
    if not seen:
        return "never"
    share = "" if len(seen) == len(delays) else f" ({len(seen)} of {len(delays)})"
    return f"{fmean(seen):.1f}{share}"


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["false", "delay"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 100, 1000, 10_000])
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100, help="a batch, for delay")
    given = parser.parse_args()
    use_one_thread()
    if given.what == "false":
        false_alarms(given.sizes, given.batches, given.seeds)
    else:
        delays(given.rows, given.seeds)


if __name__ == "__main__":
    main()
