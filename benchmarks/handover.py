"""What the thread that scores pays for a snapshot while heals are asynchronous: processor time of
that thread alone, so that other work on the machine and the threads that write do not count.

*Handed over* is what becomes of it in the registry's writer; the rest is the line in the event log.
The adapter comes packed and hashed from the process that healed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import SnapshotTaken
from selfheal_cli.metrics import score
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import Packed, make_base, pack
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.records import Evaluation, Phase, Snapshot, digest
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.sources.synthetic import SyntheticSource


def parts(folder: Path, stack: ExitStack) -> dict[str, Callable[[], object]]:
    """What is paid for, by name: a whole snapshot, and its parts."""
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=1)
    network = SelfHealingNetwork.build(Architecture(source.encoding.width, 64))
    network.freeze()
    registry = MemoryRegistry()
    run_id = registry.begin_run("handover", {}, {})
    document = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
    }
    base = registry.store_base(run_id, make_base(network, {}, document))
    lineage = Lineage("handover", run_id, base, "article", "full", "1")
    log = EventLog(folder / "events.jsonl", lambda: datetime.now(UTC))
    stack.callback(log.close)
    writer = RegistryWriter(registry, lineage, Outbox(folder / "outbox.db"))
    stack.callback(writer.close)
    ledger = RunRecorder(log, writer, lambda: datetime.now(UTC), "benchmark")
    beside, in_place = Snapshots(ledger, run_id), Snapshots(ledger, run_id)
    rows, weights = source.held_out()["drifted"], network.adapter.state_dict()
    scores = score(network.predict(rows.x), rows.y, 0.5)
    packed = Packed.of(weights)
    adapter = packed.data

    def take(snapshots: Snapshots, weights: Weights, packed: Packed | None = None) -> str:
        return snapshots.take(
            weights, packed=packed, phase=Phase.POST_HEAL, batch=1, scores=scores,
            evaluation=Evaluation.HELD_OUT, reason="benchmark", threshold=0.5,
        )  # fmt: skip

    one = Snapshot("s0", Phase.POST_HEAL, 1, digest(adapter), scores, Evaluation.HELD_OUT,
                   "benchmark", 0.5, metrics=scores.figures())  # fmt: skip
    return {
        "snapshot after a heal": lambda: take(beside, dict(weights), packed),
        "snapshot after a heal in place": lambda: take(in_place, dict(weights)),
        "snapshot before a heal (bytes at hand)": lambda: take(beside, weights),
        "adapter packed": lambda: pack(weights),
        "adapter hashed": lambda: digest(adapter),
        "event written": lambda: ledger.note(SnapshotTaken.of(one)),
        "version handed over": lambda: writer.add(one, adapter),
        "alias handed over": lambda: ledger.point("champion", "s0", "benchmark"),
    }


def main() -> None:
    """Measure each in turns, print."""
    parser = argparse.ArgumentParser(description="What a snapshot costs the scoring thread.")
    parser.add_argument("--turns", type=int, default=200)
    options = parser.parse_args()
    use_one_thread()
    with ExitStack() as stack:
        work = parts(Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(options.turns):
            for name, do in work.items():
                start = time.thread_time_ns()
                do()
                taken[name].append((time.thread_time_ns() - start) / 1e6)
    table = Table(title=f"ms of the scoring thread, {options.turns} turns")
    for title in ("what", "least", "10 %", "median"):
        table.add_column(title, justify="left" if title == "what" else "right", no_wrap=True)
    for name, seconds in taken.items():
        least, tenth, middle = np.percentile(seconds, (0, 10, 50))
        table.add_row(name, f"{least:.3f}", f"{tenth:.3f}", f"{middle:.3f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
