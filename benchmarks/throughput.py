"""Rows a second of the whole stream, against the bare forward pass over the same rows.

The batches of the article's generator are drawn beforehand, so that both sides start from rows in
memory. A pass of the stream ends when its last heal is published and its last version registered.

``--stores`` asks something else: is scoring slower while versions go to a tracking server over
HTTP, with its artifacts through the server, than while they go to SQLite? Heals run in their
process, a batch comes every 50 ms, and the clock runs around the steps alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from servers import tracking_server

from selfheal_cli.config import HealSettings, Policy, RunConfig, SyntheticSettings
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import HealPublished
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.metrics import score
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.stream.champion import NullWatcher
from selfheal_cli.pipeline.stream.context import SessionContext, serve
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.session import Session
from selfheal_cli.records import Batch, Evaluation
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.sources.synthetic import SyntheticSource

BARE = "forward pass alone"
BATCH_ROWS = 100
PAUSE_SECONDS = 0.05  # before a batch, where stores are compared
NEVER = Policy(fidi_threshold=1e9, conflict_min=10_000_000)
VARIANTS = {
    "stream, heals off": RunConfig(policy=NEVER),
    "stream, heals in place": RunConfig(),
    "stream, heals in a process": RunConfig(heal=HealSettings(mode="async")),
}


@dataclass(frozen=True, slots=True)
class Pass:
    """One variant in one round."""

    seconds: float
    heals: int = 0
    arrival: float = 0.0  # from the last batch until the registry has everything


def forward(prepared: Prepared, batches: list[Batch]) -> Pass:
    """Nothing but predictions."""
    start = time.perf_counter()
    for batch in batches:
        prepared.network.predict(batch.rows.x)
    return Pass(time.perf_counter() - start)


def stream(
    config: RunConfig,
    source: SyntheticSource,
    prepared: Prepared,
    batches: list[Batch],
    registry: Registry | None = None,
    pause: float = 0.0,
) -> Pass:
    """A new run's stream from its first batch to its last write.

    With a pause before each batch the seconds are those of the batches alone.
    """
    heals = 0

    def count(event: Event) -> None:
        nonlocal heals
        heals += isinstance(event, HealPublished)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = registry or MemoryRegistry()
        run_id = registry.begin_run(config.experiment, {}, {})
        base = registry.store_base(run_id, prepared.base)
        lineage = Lineage(config.model_name, run_id, base, config.heal.recipe, "full", "1")
        log = EventLog(folder / "events.jsonl", lambda: datetime.now(UTC))
        stack.callback(log.close)
        writer = RegistryWriter(registry, lineage, Outbox(folder / "outbox.db"))
        stack.callback(writer.close)
        recorder = RunRecorder(log, writer, lambda: datetime.now(UTC), "benchmark", [count])
        live = serve(prepared)
        recipes = Recipes(prepared.network, prepared.anchor, config.heal)
        world = Live(config, registry, lineage, writer, NullWatcher(), live, recipes)
        stack.callback(world.close)
        _ = world.heals  # begun before the stream, as a run does
        context = SessionContext(config, source, prepared, live, lineage, recorder, world)
        session = Session(context)
        first = batches[0].rows
        clean = score(prepared.network.predict(first.x), first.y, live.serving.threshold)
        session.healing.baseline(clean, Evaluation.HELD_OUT)
        start = time.perf_counter()
        spent = 0.0
        for batch in batches:
            time.sleep(pause)
            begun = time.perf_counter()
            session.step(batch)
            spent += time.perf_counter() - begun
        streamed = time.perf_counter()
        session.finish()
        writer.send_steps()
        writer.flush(0.0)
        recorder.catch_up()
        end = time.perf_counter()
        return Pass(spent if pause else end - start, heals, end - streamed)


def lay_out(by_variant: dict[str, list[Pass]], rows: int) -> Table:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""
    bare = by_variant[BARE]
    table = Table(
        title=f"{rows:,} rows in batches of {BATCH_ROWS}: medians over {len(bare)} rounds"
    )
    table.add_column("variant", no_wrap=True)
    for title in ("rows / s", "share of forward", "ms a batch", "heals"):
        table.add_column(title, justify="right")
    for name, passes in by_variant.items():
        seconds = float(np.median([one.seconds for one in passes]))
        shares = [other.seconds / own.seconds for own, other in zip(passes, bare, strict=True)]
        table.add_row(
            name,
            f"{rows / seconds:,.0f}",
            f"{np.median(shares):.4f}",
            f"{1e3 * seconds * BATCH_ROWS / rows:.2f}",
            f"{np.median([one.heals for one in passes]):.0f}",
        )
    return table


def stores(source: SyntheticSource, prepared: Prepared, rounds: int) -> Table:
    """Scoring beside writes to SQLite and to a server, in turns."""
    config, batches = VARIANTS["stream, heals in a process"], list(source.batches())
    table = Table(title=f"{len(batches)} batches, heals in a process: medians over {rounds} rounds")
    table.add_column("store", no_wrap=True)
    for title in ("rows / s while scoring", "share of SQLite's", "heals", "s until all is there"):
        table.add_column(title, justify="right")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(chdir(folder))
        served = stack.enter_context(tracking_server(folder))
        uris = {"SQLite": "sqlite:///mlflow.db", "server over HTTP, artifacts through it": served}
        by_store: dict[str, list[Pass]] = {name: [] for name in uris}
        for number in range(-1, rounds):
            for name, uri in uris.items():
                registry = MlflowRegistry(uri)
                one = stream(config, source, prepared, batches, registry, PAUSE_SECONDS)
                if number >= 0:
                    by_store[name].append(one)
    for name, passes in by_store.items():
        shares = [a.seconds / b.seconds for a, b in zip(by_store["SQLite"], passes, strict=True)]
        rate = np.median([len(batches) * BATCH_ROWS / one.seconds for one in passes])
        heals = np.median([one.heals for one in passes])
        arrival = np.median([one.arrival for one in passes])
        table.add_row(name, f"{rate:,.0f}", f"{np.median(shares):.2f}", f"{heals:.0f}",
                      f"{arrival:.2f}")  # fmt: skip
    return table


def main() -> None:
    """Train the article's network, measure, print."""
    parser = argparse.ArgumentParser(description="Rows a second, stream against forward pass.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--batches", type=int, default=100, help="batches of 100 rows in a pass")
    parser.add_argument("--stores", action="store_true", help="compare SQLite with a server")
    options = parser.parse_args()
    if options.stores:
        options.batches = 25
    use_one_thread()
    source = SyntheticSource(
        SyntheticSettings(), seed=42, batch_size=BATCH_ROWS, batches=options.batches
    )
    prepared = prepare(RunConfig(), source, lambda done, total: None)
    if options.stores:
        Console(width=120).print(stores(source, prepared, options.rounds))
        return
    batches = list(source.batches())
    by_variant: dict[str, list[Pass]] = {BARE: [], **{name: [] for name in VARIANTS}}
    for number in range(-1, options.rounds):  # the first round warms up
        passes = [forward(prepared, batches)]
        passes += [stream(config, source, prepared, batches) for config in VARIANTS.values()]
        if number >= 0:
            for own, one in zip(by_variant.values(), passes, strict=True):
                own.append(one)
    Console(width=120).print(lay_out(by_variant, options.batches * BATCH_ROWS))


if __name__ == "__main__":
    main()
