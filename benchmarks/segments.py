"""Segments that drift and segments that do not: who is named, and after how many rows of its own.

1,000 segments with means of their own, 6 columns, 100 batches. Without drift: how many are ever
named. With it: one segment with 1 % of the rows moves by some standard deviations in one column.

    python benchmarks/segments.py quiet --seeds 20
    python benchmarks/segments.py drift --seeds 20
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import numpy as np

from selfheal_cli.config import SegmentSettings
from selfheal_cli.config_policy import SegmentPolicy
from selfheal_cli.drift.monitor import TrainingSample
from selfheal_cli.drift.segment_evidence import CELLS
from selfheal_cli.drift.segments import ColumnCells, SegmentReference, SegmentWatch
from selfheal_cli.records import Rows

COLUMNS = 6
SHARE = 0.01  # of the rows, that of the segment that drifts


def columns_of(draw: np.random.Generator, rows: int, segments: int) -> tuple[dict[str, Any], Any]:
    """Rows, and which are the first segment's."""
    shares = np.full(segments, (1 - SHARE) / (segments - 1))
    shares[0] = SHARE
    codes = draw.choice(segments, rows, p=shares)
    columns: dict[str, Any] = {
        f"c{place}": draw.normal(0.3 * (codes % 7) * (place % 2), 1.0) for place in range(COLUMNS)
    }
    names = np.array([f"s{code}" for code in range(segments)], dtype=object)
    return columns | {"segment": names[codes]}, codes == 0


def watch_of(training: dict[str, Any], seed: int) -> SegmentWatch:
    """As a run has it by default."""
    names = tuple(f"c{place}" for place in range(COLUMNS))
    count = len(training["segment"])
    none = np.zeros((count, 0), np.float32), np.zeros(count, np.int8)
    sample = TrainingSample(Rows(*none, training), none[0], none[1], 0, ("0", "1"), names, {}, {})
    cells = {name: ColumnCells.of(sample, name) for name in names}
    empty = np.zeros((0, COLUMNS, CELLS), np.int32)
    settings = SegmentSettings(by="segment")
    return SegmentWatch(
        SegmentReference("segment", (), cells, empty).with_rows(training), window=settings.window,
        threshold=settings.threshold, rate=SegmentPolicy().false_discovery_rate,
        most=settings.most, seed=seed,
    )  # fmt: skip


def stream(arguments: argparse.Namespace, seed: int, shift: float) -> tuple[int, int | None, int]:
    """How many of the others were named, and after how many rows of its own the first one was, of
    so many.
    """
    draw = np.random.default_rng(seed)
    watch = watch_of(columns_of(draw, arguments.training, arguments.segments)[0], seed)
    others, own, after = set(), 0, None
    for batch in range(1, arguments.batches + 1):
        columns, first = columns_of(draw, arguments.rows, arguments.segments)
        if shift and batch > arguments.batches // 2:
            columns["c1"] = columns["c1"] + shift * first
            own += int(first.sum())
        watch.observe(batch, columns, np.arange(arguments.rows))
        for one in watch.newly_named(batch):
            if one["segment"] != "s0" or not shift or not own:
                others.add(one["segment"])
            elif after is None:
                after = own
        if after is not None:
            break
    return len(others), after, own


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["quiet", "drift"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--segments", type=int, default=1_000)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1_000, help="of a batch")
    parser.add_argument("--training", type=int, default=20_000, help="training rows")
    arguments = parser.parse_args()
    for shift in (0.0,) if arguments.what == "quiet" else (2.5, 1.0, 0.5):
        begun = perf_counter()
        said = [stream(arguments, seed, shift) for seed in range(arguments.seeds)]
        named = [others for others, _, _ in said]
        seconds = (perf_counter() - begun) / (arguments.seeds * arguments.batches)
        print(
            f"shift {shift:g} sd: others named in {len(said)} seeds: {sorted(named)}; "
            f"seeds with at most 5: {sum(one <= 5 for one in named)} of {len(named)}; "
            f"{1e3 * seconds:.0f} ms a batch of {arguments.rows:,} rows"
        )
        if shift:
            rows = [after for _, after, _ in said]
            after = sorted(one for one in rows if one is not None)
            print(
                f"  the one that drifts: named in {len(after)} of {len(rows)} seeds, after "
                f"{after} rows of its own; within 500: {sum(one <= 500 for one in after)}"
            )


if __name__ == "__main__":
    main()
