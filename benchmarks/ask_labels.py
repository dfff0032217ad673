"""What asking for few labels by lot gives: honest intervals, and most of what all labels bring.

    python benchmarks/ask_labels.py coverage --seeds 500    of figures called sampled
    python benchmarks/ask_labels.py worth --data FOLDER     elec.csv and bank-full.csv of FOLDER
    python benchmarks/ask_labels.py worth --seeds 201       generated (benchmarks/streams.py)

`coverage` draws rows of a model whose scores are wrong, asks for some of their labels, and counts
how often the interval has what all rows have. `worth` has the first quarter train a network, and
then each recipe learn from all labels, from a tenth and from 4 % of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ensemble import RECIPES, config_for, streams
from sklearn.metrics import roc_auc_score

from selfheal_cli.config import HealSettings, LabelSettings, RunConfig
from selfheal_cli.labels.sampled import AskedRows, sampled
from selfheal_cli.labels.sampling import AskPlan
from selfheal_cli.labels.selection import lots_of
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.baselines import Frozen
from selfheal_cli.pipeline.offline.compare import WithPeer, contest
from selfheal_cli.pipeline.prepare.baseline import Trained, survey, train_networks
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.settings.resolve import FEW_HELD_OUT
from selfheal_cli.sources.base import Source

ROWS, BATCH = 10_000, 100
ANSWER = 0.8  # of those who are asked, where not all are answered
VOLUNTEERED = 0.3  # of the positives, that are told without being asked for
SHARES = (1.0, 0.1, 0.04)


@dataclass(frozen=True)
class World:
    """Scores (n,) around ``middle`` on the logit scale, and labels by logits ``off`` beside."""

    name: str
    middle: float
    spread: float
    off: float
    threshold: float
    share: float

    def rows(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and labels; both move slowly, so that batches differ."""
        draw = np.random.default_rng((seed, 9))
        drift = np.repeat(draw.normal(0, 0.3, ROWS // BATCH), BATCH)
        logit = draw.normal(self.middle, self.spread, ROWS) + drift
        truth = 0.7 * (logit - self.middle) + self.middle + self.off
        y = (draw.random(ROWS) < 1 / (1 + np.exp(-truth))).astype(np.int8)
        return (1 / (1 + np.exp(-logit))).astype(np.float32), y


WORLDS = (
    World("30 % positives, 4 % asked", -1.0, 1.5, 0.3, 0.5, 0.04),
    World("30 % positives, 10 % asked", -1.0, 1.5, 0.3, 0.5, 0.10),
    World("2 % positives, 10 % asked by score", -5.0, 1.5, 0.4, 0.1, 0.10),
)


def cases(world: World, seed: int) -> Iterator[tuple[str, AskedRows, dict[str, float]]]:
    """Rows of a world that were asked for by who answered, and what all of its rows have."""
    p, y = world.rows(seed)
    plan = AskPlan.of(f"seed {seed}", world.share, p)
    strata = plan.strata(p)
    drawn = lots_of("rows", 0, ROWS, plan.lot_key()) < np.array(plan.chances)[strata]
    draw = np.random.default_rng((seed, 10))
    volunteers = (draw.random(ROWS) < VOLUNTEERED) & (y == 1)
    answer = draw.random(ROWS) < ANSWER
    truth = _truth(p, y, p >= world.threshold)
    for everybody, told in ((True, 0), (True, 1), (False, 1)):
        known = volunteers & bool(told)
        asked = AskedRows(
            p[drawn], np.full(int(drawn.sum()), world.threshold),
            np.where(known | answer | everybody, y, -1)[drawn].astype(np.int8), known[drawn],
            (np.arange(ROWS) // BATCH)[drawn], strata[drawn],
            np.bincount(strata, minlength=len(plan.chances)),
        )  # fmt: skip
        yield f"{'all' if everybody else '80 %'} | {'yes' if told else 'no'}", asked, truth


def _truth(p: np.ndarray, y: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    hit = float((flagged & (y == 1)).sum())
    return {
        "accuracy": float((flagged == y).mean()), "positive_rate": float(y.mean()),
        "log_loss": float(-np.log(np.where(y == 1, p, 1 - p.astype(np.float64))).mean()),
        "precision": hit / flagged.sum(), "recall": hit / y.sum(),
        "f1": 2 * hit / (flagged.sum() + y.sum()), "roc_auc": roc_auc_score(y, p),
    }  # fmt: skip


def coverage(seeds: int) -> None:
    """A line for each world and figure."""
    print("| rows | answers | volunteers | figure | bias | in the interval | width | not enough |")
    print("|---|---|---|---|---|---|---|---|")
    for world in WORLDS:
        tries: dict[str, list[tuple[Any, dict[str, float]]]] = {}
        for seed in range(seeds):
            for case, asked, truth in cases(world, seed):
                tries.setdefault(case, []).append((sampled(asked, seed).figures, truth))
        for case, known in tries.items():
            for line in _covered(known):
                print(f"| {world.name} | {case} | {line} |", flush=True)


def _covered(tries: list[tuple[Any, dict[str, float]]]) -> Iterator[str]:
    for name in tries[0][1]:
        known = [(figures[name], truth[name]) for figures, truth in tries if name in figures]
        if not known:
            yield f"{name} | | | | {len(tries)}"
            continue
        bias = fmean(one.value - truth for one, truth in known)
        inside = fmean(one.low <= truth <= one.high for one, truth in known)
        width = fmean(one.high - one.low for one, _ in known)
        yield f"{name} | {bias:+.4f} | {inside:.3f} | {width:.3f} | {len(tries) - len(known)}"


def worth(data: Path | None, seeds: str, only: str, recipes: list[str]) -> None:
    """Log loss of the frozen network and of each recipe, by the share of the rows asked for."""
    print("| stream | recipe | frozen | all labels | 10 % | 4 % | of the way at 4 % |")
    print("|---|---|---|---|---|---|---|")
    chosen = argparse.Namespace(data=data, seeds=seeds, only=only)
    with TemporaryDirectory() as scratch:
        for name, settings in streams(chosen, Path(scratch)):
            config = config_for(settings)
            source = open_source(config)
            trained = train_networks(config, source, lambda done, total: None)
            peer = WithPeer(Frozen(trained.network), config)
            frozen = contest("frozen", peer, config, source).figures["log_loss"]
            for title in recipes:
                heal = RECIPES[title]
                lost = [_lost(config, heal, source, trained, share) for share in SHARES]
                gain = frozen - lost[0]
                way = f"{(frozen - lost[-1]) / gain:.0%}" if gain > 0.03 else ""
                cells = " | ".join(f"{one:.3f}" for one in (frozen, *lost))
                print(f"| {name} | {title} | {cells} | {way} |", flush=True)


def _lost(
    config: RunConfig, heal: HealSettings, source: Source, trained: Trained, share: float
) -> float:
    """Mean log loss over the stream, each row predicted before any label of its batch came."""
    own: dict[str, Any] = {"better_by": "paired", "pre_heal": "figures"}
    labels = LabelSettings()
    if share < 1:
        own, labels = own | {"held_out": FEW_HELD_OUT}, LabelSettings(ask=share)
    settled = config.model_copy(update={"heal": heal.model_copy(update=own), "labels": labels})
    replay = Replay(settled, source, survey(settled, source, trained))
    return float(contest("", replay, settled, source).figures["log_loss"])


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("coverage", "worth"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    arguments = parser.parse_args()
    use_one_thread()
    if arguments.what == "coverage":
        coverage(int(arguments.seeds or 500))
    else:
        worth(arguments.data, arguments.seeds, arguments.only, arguments.recipes.split(","))


if __name__ == "__main__":
    main()
