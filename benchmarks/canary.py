"""How often a canary is decided wrongly, how soon rightly, and what its second scoring costs.

    python benchmarks/canary.py [--streams N] [--batches N]

Each stream has two versions that lose as much, one more of it on positives, the other on negatives;
positives are labelled 20 batches later than negatives. The comparison is looked at with each batch,
at margin 0: whatever is decided of a stream without difference is wrong. Beside it: rows taken as
their labels come, which is what the order of scoring is there to prevent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from selfheal_cli.anytime import RunningMean
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.stream.comparison import MOST, PairedRows, ScoredTwice
from selfheal_cli.records import LateLabels

ROWS, LATE, LEVEL = 100, 20, 0.95
OFF = 0.4  # of the champion, in the logit
Stream = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def offset(rate: float) -> float:
    """By how much the canary's logits are off, so that it loses as much as a champion whose logits
    are off by `OFF` to the other side: on negatives less, on positives more.
    """
    draws = np.random.default_rng(0)
    truth = logit(rate) + draws.normal(0.0, 1.5, 400_000)
    p, errors = expit(truth), draws.normal(0.0, 0.5, len(truth))

    def loss(off: float) -> float:
        q = expit(truth + errors + off)
        clipped = -np.log(np.maximum([q, 1.0 - q], np.exp(-MOST)))
        return float((p * clipped[0] + (1.0 - p) * clipped[1]).mean())

    return float(brentq(lambda off: loss(off) - loss(OFF), -3.0, -0.01))


def stream(seed: int, batches: int, rate: float, off: float, gain: float = 0.0) -> Stream:
    """Labels, and probabilities by champion and canary, of each batch: the true logits with errors
    of 0.5, off by `OFF` and by ``off``. With a ``gain`` the canary's are off by so much less.
    """
    draws = np.random.default_rng((seed, round(1_000 * rate)))
    apart = np.array([[OFF], [off * (1.0 - gain)]])
    made = []
    for _ in range(batches):
        truth = logit(rate) + draws.normal(0.0, 1.5, ROWS)
        y = (draws.random(ROWS) < expit(truth)).astype(np.int8)
        champion, canary = expit(truth + draws.normal(0.0, 0.5, (2, ROWS)) + apart)
        made.append((y, champion.astype(np.float32), canary.astype(np.float32)))
    return made


def decided(rows: Stream, *, in_order: bool) -> tuple[int, int]:
    """1 where the canary is promoted, -1 where it is withdrawn, 0 where neither is; and when."""
    paired = PairedRows(LATE if in_order else 0, ROWS, 10**9)
    seen = RunningMean()
    for at, one in enumerate(_labelled(rows, paired, in_order=in_order)):
        for difference in paired.ripe(float(one)):
            seen = seen.plus(difference.value)
            bounds = seen.interval(LEVEL)
            if bounds is not None and not bounds[0] <= 0.0 <= bounds[1]:
                return (1 if bounds[0] > 0.0 else -1), at + 1
    return 0, len(rows)


def _labelled(rows: Stream, paired: PairedRows, *, in_order: bool) -> Iterator[int]:
    """Put in batch after batch: negatives with their rows, positives `LATE` batches later."""
    for at, (y, champion, canary) in enumerate(rows):
        then = rows[at - LATE] if at >= LATE else None
        late = np.flatnonzero(then[0]) if then is not None else np.empty(0, np.intp)
        ones = np.ones(len(late), np.int8)
        if in_order:
            known = np.where(y == 1, -1, y).astype(np.int8)
            paired.add(ScoredTwice(at, np.arange(ROWS), known, champion, canary, float(at)))
            paired.label(LateLabels(np.full(len(late), at - LATE), late, ones))
        else:  # as they come: the negatives, and positives of earlier batches
            old = (then[1][late], then[2][late]) if then is not None else (ones[:0], ones[:0])
            p, q = (
                np.concatenate([now[y == 0], before])
                for now, before in zip((champion, canary), old, strict=True)
            )
            known = np.concatenate([y[y == 0], ones])
            paired.add(ScoredTwice(at, np.arange(len(known)), known, p, q, float(at)))
        yield at


def second_scoring(rows: int = 100, repeats: int = 300) -> dict[str, float]:
    """Seconds of the processor that a batch costs: features with one scoring, and the second."""
    import torch

    torch.set_num_threads(1)
    network = SelfHealingNetwork.build(Architecture(inputs=30, hidden=64))
    x = np.random.default_rng(0).normal(size=(rows, 30)).astype(np.float32)
    features = network.features(x)
    paired = PairedRows(1e9, rows, 10**9)
    half = np.full(rows, 0.5, np.float32)

    def first() -> None:
        network.predict_features(network.features(x))

    def second() -> None:
        p = network.predict_features(features)
        paired.add(ScoredTwice(0, np.arange(rows), np.zeros(rows, np.int8), half, p, 0.0))

    return {"first": _seconds(first, repeats), "second": _seconds(second, repeats)}


def _seconds(work: Any, repeats: int) -> float:
    work()
    taken = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        taken.append(time.process_time() - before)
    return median(taken)


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--batches", type=int, default=200)
    given = parser.parse_args()
    print(f"{given.streams} streams of {given.batches} batches of {ROWS} rows, level {LEVEL:g}")
    for rate in (0.3, 0.02, 0.005):
        off, few = offset(rate), given.streams // 4
        made = partial(stream, batches=given.batches, rate=rate, off=off)
        wrong = [decided(made(seed), in_order=True)[0] for seed in range(given.streams)]
        print(
            f"{rate:.1%} positives, no difference: {sum(map(abs, wrong))} decided "
            f"({wrong.count(1)} promoted, {wrong.count(-1)} withdrawn)"
        )
        shifted = [decided(made(seed), in_order=False)[0] for seed in range(few)]
        print(f"  taken as their labels come: {sum(map(abs, shifted))} of {few} decided")
        for gain in (0.25, 0.5, 1.0, -0.25):
            after = [decided(made(seed, gain=gain), in_order=True) for seed in range(few)]
            ends = [when for sign, when in after if sign == (1 if gain > 0 else -1)]
            what = "promoted" if gain > 0 else "withdrawn"
            print(
                f"  canary {gain:+.0%} of its error better: {len(ends)} of {few} {what}, half of "
                f"them by batch {median(ends) if ends else 0:.0f}, "
                f"{few - len(ends) - sum(sign == 0 for sign, _ in after)} the other way"
            )
    costs = second_scoring()
    print(
        f"processor's time of a batch: features and first scoring {1e6 * costs['first']:.0f} µs, "
        f"second scoring and comparison {1e6 * costs['second']:.0f} µs"
    )


if __name__ == "__main__":
    main()
