"""Are verdict and recommendation right? Short streams whose truth is known, over many seeds.

``returns``: a relation changes, is healed, healing is held, and the old relation comes back.
``poisoned``: labels are wrong for ten batches, what was healed on them is published, healing is
held, the labels are right again. In both an older version is better: a rollback should be
recommended, and the version that it goes to should lose less on rows after the run.
``drift``: the relation turns slowly, so that healing is worth about .02 ROC AUC or more: "helped".
``none``: nothing moves: no recommendation, no difference in any figure.

Each run goes over a CSV file as `selfheal run` would, its registry is in memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.actor import clock
from selfheal_cli.model.checkpoint import assemble, unpack
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs import run as runs
from selfheal_cli.pipeline.stream.champion import ChampionMove, ChampionWatcher
from selfheal_cli.records import Batch
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import Hold
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.orders import hold
from selfheal_cli.report.gains import CHANCE, HELPED
from selfheal_cli.report.recommendation import recommend
from selfheal_cli.settings.resolve import resolve
from selfheal_cli.settings.sources import read_settings
from selfheal_cli.sources.base import Source

INPUTS, ROWS, TRAINING, AFTER = 8, 100, 3_000, 2_000
MODEL, AT = "decisions", "1970-01-01T00:00:00.000+00:00"
WRONG = "wrong labels"


@dataclass(frozen=True)
class Story:
    """Batches by what holds in them; healing is held after the batch ``held``, if any.

    ``turn`` is the angle, in radians, between the first relation and the last.
    """

    phases: tuple[tuple[str, int], ...]
    held: int = 0
    turn: float = 2.0


STORIES = {
    "returns": Story((("old", 15), ("new", 20), ("old", 22)), held=34),
    "poisoned": Story((("old", 15), (WRONG, 10), ("old", 22)), held=24),
    "drift": Story((("slow", 80),), turn=0.65),
    "none": Story((("old", 80),)),
}


def table(story: Story, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows and the stream; and the rows after it."""
    random = np.random.default_rng(seed)
    first, across = np.linalg.qr(random.normal(size=(INPUTS, 2)))[0].T
    batches = [name for name, count in story.phases for _ in range(count)]
    names = [*["old"] * (TRAINING // ROWS), *batches, *batches[-1:] * (AFTER // ROWS)]
    began, slow = TRAINING // ROWS, len(batches)
    parts = []
    for place, name in enumerate(names):
        share = {"new": 1.0, "slow": min(1.0, (place - began) / slow)}.get(name, 0.0)
        angle = story.turn * share
        x = random.normal(size=(ROWS, INPUTS))
        logits = 2.0 * x @ (np.cos(angle) * first + np.sin(angle) * across) - 0.5
        y = (random.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(int)
        parts.append(np.column_stack([x, 1 - y if name == WRONG else y]))
    columns = [*(f"x{number}" for number in range(INPUTS)), "y"]
    frame = pd.DataFrame(np.concatenate(parts), columns=columns).astype({"y": int})
    return frame[:-AFTER], frame[-AFTER:]


class HeldStream:
    """A source at one of whose batches somebody holds healing."""

    def __init__(self, source: Source, registry: MemoryRegistry, batch: int) -> None:
        self._source, self._registry, self._batch = source, registry, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """As they are."""
        for batch in self._source.batches(start):
            if batch.index == self._batch:
                hold(self._registry, MODEL, Hold("bench", AT, "trial"), actor="bench", at=AT)
            yield batch


class LookingWatcher(ChampionWatcher):
    """Looks before each batch, not each second: the same rows give the same run."""

    def take(self) -> ChampionMove | None:
        """See `Others`."""
        self.look()
        return super().take()


@dataclass(frozen=True)
class Told:
    """What a run said, and by how much the recommended version lost less after it."""

    words: dict[str, str]
    auc: float
    back: bool
    gain: float | None


def told(story: Story, seed: int) -> Told:
    """One run, and the rows after it."""
    frame, after = table(story, seed)
    registry = MemoryRegistry()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        frame.to_csv("rows.csv", index=False)
        given = {
            "source.kind": "table", "source.path": "rows.csv", "source.target": "y",
            "source.train_fraction": TRAINING / len(frame), "model_name": MODEL, "seed": seed,
            "plots": "false",
        }  # fmt: skip
        config = resolve([read_settings([f"{key}={value}" for key, value in given.items()])]).config
        source: Any = HeldStream(open_source(config), registry, story.held)
        around = runs.RunContext(registry, clock, "bench", workspace=Path("work"))
        view = runs.run(config, source, around).view
        advised, end = recommend(view), view.finished
        figures = {one["figure"]: one for one in (end.compared if end else ())}
        words = {name: one["word"] for name, one in figures.items()}
        auc = figures["ROC AUC"]["after"] - figures["ROC AUC"]["before"]
        gain = None
        if advised.back and advised.version is not None:
            serving = registry.alias(MODEL, CHAMPION) or 0
            gain = _loss(registry, serving, after) - _loss(registry, advised.version, after)
    return Told(words, auc, advised.back, gain)


def _loss(registry: MemoryRegistry, number: int, rows: pd.DataFrame) -> float:
    """Mean log loss of a version."""
    version = registry.version(MODEL, number)
    weights = unpack(registry.adapter(version), sha256=version.sha256, where="version")
    network = assemble(registry.base(version.base), weights, where="version")
    x, y = rows.drop(columns="y").to_numpy(np.float32), rows["y"].to_numpy()
    p = network.predict(x).astype(np.float64)
    return -float(np.mean(np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-12, 1))))


def main() -> None:
    """Print a line a seed, then how often each story was told as it was."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stories", nargs="*", default=list(STORIES), help=", ".join(STORIES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    setattr(runs, "ChampionWatcher", LookingWatcher)  # noqa: B010
    use_one_thread()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in arguments.stories:
        answers = []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            answers.append(told(STORIES[name], seed))
            one = answers[-1]
            print(name, seed, f"ROC AUC {one.auc:+.3f}", one.words, one.back, one.gain, flush=True)
        right = sum(one.back and (one.gain or 0) > 0 for one in answers)
        print(
            f"{name}: of {len(answers)} recommended {sum(one.back for one in answers)}, right "
            f"{right}; helped (ROC AUC) {sum(a.words.get('ROC AUC') == HELPED for a in answers)}; "
            f"no difference {sum(set(a.words.values()) == {CHANCE} for a in answers)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
