"""Early warnings from rules, as a sibling program of the article's has them, beside our monitors.

    python benchmarks/early_warnings.py                      payments that do not drift (generated)
    python benchmarks/early_warnings.py --data elec.csv --target class

Facts and thresholds are of github.com/Emmimal/neuro-symbolic-drift-detection; there a network
learns the rules, here `rules suggest` finds them in what the network decides. Each is a monitor
part, looks at the last ten batches together (but where it is told otherwise), and is put beside
the default monitors by `selfheal compare --inject`.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from default_monitors import payments
from numpy.typing import NDArray

from selfheal_cli.config import MonitorSettings
from selfheal_cli.drift.monitor import BatchView, FeatureReading
from selfheal_cli.installed import name_of
from selfheal_cli.kinds import INJECTIONS
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.contest import contest
from selfheal_cli.pipeline.offline.injecting import Injection, inject
from selfheal_cli.rules.search import suggest_rules
from selfheal_cli.settings.layers import Layer
from selfheal_cli.settings.resolve import resolve

Floats = NDArray[np.float64]
WINDOW, CUTS, TINY = 10, (0.25, 0.5, 0.75), 1e-6


class RuleWarning:
    """What the parts below share: rules, and how often each fires in the last batches."""

    threshold = 0.1
    window = WINDOW

    def fit(self, reference: BatchView, features: Sequence[str]) -> None:
        """Rules of what the network decides on training rows."""
        columns = reference.columns
        numeric = [name for name, values in columns.items() if values.dtype.kind == "f"]
        text = [name for name in columns if name not in numeric]
        self._rules = [one.rule for one in suggest_rules(columns, numeric, text, reference.classes)]
        self._name = features[0]
        self._last: deque[tuple[Floats, int]] = deque(maxlen=self.window)
        self._trained = self._fired(reference)

    def update(self, view: BatchView) -> Iterable[FeatureReading]:
        """Only the effect decides, as there."""
        self._last.append((self._fired(view), len(view.scores)))
        rates, rows = zip(*self._last, strict=True)
        yield FeatureReading(self._name, self.effect(np.average(rates, axis=0, weights=rows)), 0.0)

    def effect(self, rates: Floats) -> float:
        """From the rules' rates (rules,) now."""
        raise NotImplementedError

    def _fired(self, view: BatchView) -> Floats:
        return np.array([rule.fires(view.columns).mean() for rule in self._rules])


class Stability(RuleWarning):
    """One minus the cosine of the rules' rates, then and now."""

    threshold = 0.03

    def effect(self, rates: Floats) -> float:
        """As `RuleWarning`."""
        size = np.linalg.norm(rates) * np.linalg.norm(self._trained)
        return 0.0 if size < TINY else max(0.0, 1 - float(rates @ self._trained) / float(size))


class Velocity(Stability):
    """By how much the stability fell since the batch before."""

    before = 0.0

    def effect(self, rates: Floats) -> float:
        """As `RuleWarning`."""
        now = super().effect(rates)
        fallen, self.before = now - self.before, now
        return max(0.0, fallen)


class Silent(RuleWarning):
    """The most that a rule's rate fell."""

    threshold = 0.08

    def effect(self, rates: Floats) -> float:
        """As `RuleWarning`."""
        return float(max(0.0, (self._trained - rates).max()))


class RulePsi(RuleWarning):
    """The mean population stability index of the rules."""

    threshold = 0.10

    def effect(self, rates: Floats) -> float:
        """As `RuleWarning`."""
        was, now = (np.stack([p, 1 - p]) + TINY for p in (self._trained, rates))
        return float(((now - was) * np.log(now / was)).sum(axis=0).mean())


class OwnHistory:
    """How far a feature's place among training's quartiles is from its own past, batch by batch."""

    threshold = 2.5
    least = 3

    def fit(self, reference: BatchView, features: Sequence[str]) -> None:
        """Quartiles of each feature."""
        values = {name: reference.columns[name].astype(np.float64) for name in features
                  if reference.columns[name].dtype.kind == "f"}  # fmt: skip
        self._cuts = {name: np.nanquantile(one, CUTS) for name, one in values.items()}
        self._past: dict[str, list[float]] = {name: [] for name in self._cuts}

    def update(self, view: BatchView) -> Iterable[FeatureReading]:
        """The largest z of all features alarms."""
        for name, cuts in self._cuts.items():
            share = float((view.columns[name][:, None] > cuts).mean())
            past = self._past[name]
            if len(past) >= self.least:
                spread = float(np.std(past)) or TINY
                yield FeatureReading(name, abs(share - float(np.mean(past))) / spread, 0.0)
            past.append(share)


PARTS = (Stability, Velocity, OwnHistory, Silent, RulePsi)


def settle(path: Path, target: str, drop: Sequence[str]) -> Any:
    """What `selfheal compare FILE --target ...` would do."""
    source = {"path": str(path), "target": target, "drop": list(drop)}
    return resolve([Layer({"source": {"kind": "table", **source}})])


def main() -> None:
    """A table of shares and lags by kind of change, then of alarms without one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--target", default="y")
    parser.add_argument("--drop", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=36_000)
    parser.add_argument("--z", type=float, default=OwnHistory.threshold)
    parser.add_argument("--least", type=int, default=OwnHistory.least, help="batches of history")
    arguments = parser.parse_args()
    OwnHistory.threshold, OwnHistory.least = arguments.z, arguments.least
    use_one_thread()
    with TemporaryDirectory() as scratch:
        path = arguments.data or Path(scratch) / "payments.csv"
        if arguments.data is None:
            table = pd.DataFrame(payments(np.random.default_rng(arguments.seed)))
            table.head(arguments.rows).to_csv(path, index=False)
        config, make_source, _ = contest(settle(path, arguments.target, arguments.drop))
        names = [name_of("monitor", part) for part in PARTS]
        beside = tuple(MonitorSettings(name=name) for name in names)
        ours = {one.key for one in config.monitors}
        config = config.model_copy(update={"monitors": (*config.monitors, *beside)})
        tried = inject(config, make_source(config.seed), INJECTIONS, 10, lambda done: None)
    _print(tried, ours, dict(zip(names, PARTS, strict=True)))


def _print(tried: Injection, ours: set[str], parts: dict[str, type]) -> None:
    titles = [part.__name__ for part in parts.values()]
    print(f"| change | the default monitors | {' | '.join(titles)} |")
    print("|---" * (2 + len(parts)) + "|")
    for row in tried.rows:
        own = [min((lag for name, lag in one.lags.items() if name in ours), default=None)
               for one in row.dates]  # fmt: skip
        cells = [_cell(own)]
        for name in parts:
            lags = [one.lags.get(name) for one in row.dates]
            earlier = sum(
                lag is not None and (first is None or lag < first)
                for lag, first in zip(lags, own, strict=True)
            )
            cells.append(f"{_cell(lags)}; earlier {earlier}")
        print(f"| {row.kind} | {' | '.join(cells)} |")
    alone = tried.untouched
    alarms = [f"{sum(map(alone.per_thousand, ours)):.1f}"]
    alarms += [f"{alone.per_thousand(name):.1f}" for name in parts]
    print(f"| alarms in 1,000 batches without a change | {' | '.join(alarms)} |")


def _cell(lags: Sequence[int | None]) -> str:
    seen = [lag for lag in lags if lag is not None]
    return f"{len(seen)} of {len(lags)}" + (f", {median(seen):g}" if seen else "")


if __name__ == "__main__":
    main()
