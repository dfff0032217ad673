"""Latency of one-row predictions while versions are written to MLflow beside them.

`RegistryWriter` gets a new snapshot as soon as it is done with the last, as it does when heals come
faster than MLflow takes versions. The clock runs around ``predict`` alone.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.heal.engine import LiveModel, Serving
from selfheal_cli.heal.task import AdapterState
from selfheal_cli.metrics import score
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import make_base, pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.records import Evaluation, Phase, Snapshot, digest
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.sources.synthetic import SyntheticSource

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

PAUSES = (0.0, 0.001)  # seconds between predictions


@dataclass
class Feed:
    """Keeps a writer busy with copies of one snapshot."""

    writer: RegistryWriter
    snapshot: Snapshot
    adapter: bytes
    written: int = 0

    def add(self) -> None:
        """Another snapshot, once the last is written."""
        if self.writer.pending == 0:
            self.written += 1
            self.writer.add(replace(self.snapshot, id=f"s{self.written}"), self.adapter)


@dataclass(frozen=True, slots=True)
class Segment:
    """One variant in one round: milliseconds, and versions a second."""

    p50: float
    p99: float
    largest: float
    versions: float


def feed_of(network: SelfHealingNetwork, source: SyntheticSource) -> Feed:
    """A writer to a store in the working folder, with what it is to write."""
    registry = MlflowRegistry("sqlite:///mlflow.db")
    run_id = registry.begin_run("benchmark", {}, {})
    document = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
    }
    base = registry.store_base(run_id, make_base(network, {}, document))
    lineage = Lineage("benchmark", run_id, base, "article", "full", "1")
    adapter, rows = pack(network.adapter.state_dict()), source.held_out()["drifted"]
    scores = score(network.predict(rows.x), rows.y, 0.5)
    snapshot = Snapshot(
        id="s0",
        phase=Phase.POST_HEAL,
        batch=1,
        sha256=digest(adapter),
        scores=scores,
        evaluation=Evaluation.IN_SAMPLE,
        reason="benchmark",
        threshold=0.5,
        metrics=scores.figures(),
    )
    return Feed(RegistryWriter(registry, lineage, Outbox(Path("outbox.db"))), snapshot, adapter)


def measure(
    live: LiveModel, rows: list[FloatArray], feed: Feed | None, seconds: float, pause: float
) -> Segment:
    """Predict row after row; Python's collector stays on, as it is in the product."""
    gc.collect()
    clock, taken, written = time.perf_counter_ns, list[int](), feed.written if feed else 0
    end = clock() + int(seconds * 1e9)
    for row in cycle(rows):
        before = clock()
        live.predict(row)
        after = clock()
        taken.append(after - before)
        if after > end:
            break
        if feed:
            feed.add()
        if pause:
            time.sleep(pause)
    if feed:
        written = feed.written - written
        feed.writer.flush(patience=0.0)
    p50, p99, largest = (float(value) for value in np.percentile(taken, (50, 99, 100)) / 1e6)
    return Segment(p50, p99, largest, written / seconds)


def lay_out(by_pause: dict[float, list[tuple[Segment, Segment]]]) -> Table:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""
    table = Table(title=f"One-row predictions, ms: medians over {len(by_pause[0.0])} rounds")
    table.add_column("pause ms", justify="right")
    table.add_column("beside live scoring", no_wrap=True)
    for title in ("p50", "p99", "p99 / idle", "max", "max of all", "versions / s"):
        table.add_column(title, justify="right", min_width=len(title))
    for pause, pairs in by_pause.items():
        table.add_section()
        for place, name in enumerate(("nothing written (idle)", "versions written (ours)")):
            segments = [pair[place] for pair in pairs]
            versions = np.median([s.versions for s in segments])
            table.add_row(
                f"{1e3 * pause:g}",
                name,
                f"{np.median([s.p50 for s in segments]):.3f}",
                f"{np.median([s.p99 for s in segments]):.3f}",
                f"{np.median([pair[place].p99 / pair[0].p99 for pair in pairs]):.2f}",
                f"{np.median([s.largest for s in segments]):.2f}",
                f"{max(s.largest for s in segments):.2f}",
                f"{versions:.0f}" if versions else "",
            )
    return table


@contextmanager
def own_folder() -> Iterator[None]:
    """Work in a temporary folder, so that no store of the user's is touched."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def main() -> None:
    """Make a store, measure, print."""
    parser = argparse.ArgumentParser(description="One-row predictions while versions are written.")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--seconds", type=float, default=0.8, help="one variant in one round")
    options = parser.parse_args()
    use_one_thread()
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=1)
    network = SelfHealingNetwork.build(Architecture(source.encoding.width, 64))
    network.freeze()
    trained = AdapterState(network.adapter.state_dict(), {})
    live = LiveModel(Serving(network, trained, "", 0.5))
    drifted = source.held_out()["drifted"].x
    rows = [drifted[number : number + 1] for number in range(len(drifted))]
    by_pause: dict[float, list[tuple[Segment, Segment]]] = {pause: [] for pause in PAUSES}
    with own_folder():
        feed = feed_of(network, source)
        for number in range(-1, options.rounds):  # the first round warms up
            for pause in PAUSES:
                idle = measure(live, rows, None, options.seconds, pause)
                busy = measure(live, rows, feed, options.seconds, pause)
                if number >= 0:
                    by_pause[pause].append((idle, busy))
        feed.writer.close()
    Console(width=120).print(lay_out(by_pause))


if __name__ == "__main__":
    main()
