"""What the monitors of own data see: false alarms where nothing moves, delays where something does.

Each stream is a run as ``selfheal run table.csv --target y`` makes it: a network is trained on the
first quarter, the rest comes in batches of 100 rows whose labels come at once, heals and all.
``quiet`` runs 375 batches without drift, ``drift`` 160 with one change after 100 of them, ``cost``
says what the monitors add to a batch. Tables go to stdout as Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import pandas as pd

from selfheal_cli.drift.sentences import changes_of
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import BatchScored, ColumnMoved, MonitorAlarmed
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.settings.layers import Layer
from selfheal_cli.settings.resolve import resolve
from selfheal_cli.settings.sources import parse_document

ROWS = 50_000
CHANGE = 22_500  # the row of batch 101
FIRST = 101
SEEN = 160  # batches of a stream with a change
SHOPS, SHARES = ("food", "travel", "shop", "fuel"), (0.5, 0.2, 0.2, 0.1)
Table = dict[str, np.ndarray]
Late = np.ndarray  # (rows,) true from the change on


def payments(draw: np.random.Generator, rate: float = 0.1, beside: int = 0) -> Table:
    """Money, distances, counts, temperatures and shops; ``beside`` columns of noise."""
    y = draw.random(ROWS) < rate
    return of_classes(draw, y) | {
        f"noise{place}": draw.standard_normal(ROWS) for place in range(beside)
    }


def of_classes(draw: np.random.Generator, y: np.ndarray) -> Table:
    """Columns of rows with these classes (n,)."""
    shop = draw.choice(SHOPS, ROWS, p=SHARES)
    distance = np.abs(draw.normal(4 + 3 * y, 3))
    distance[draw.random(ROWS) < 0.02] = np.nan
    return {
        "amount": np.exp(draw.normal(3 + 0.8 * y, 1)),
        "distance": distance,
        "temperature": draw.normal(20 - 4 * y, 6),
        "velocity": draw.poisson(2 + 2 * y).astype(float),
        "shop": np.where(draw.random(ROWS) < 0.3 * y, "crypto", shop).astype(object),
        "y": y.astype(int),
    }


def shift(table: Table, late: Late, draw: np.random.Generator) -> None:
    """One column rises by two thirds of its sd."""
    table["temperature"][late] += 4


def slow(table: Table, late: Late, draw: np.random.Generator) -> None:
    """The same column rises by one and a half sd over 50 batches."""
    table["temperature"] += np.clip((np.arange(ROWS) - CHANGE) / 5_000, 0, 1) * 9


def spread(table: Table, late: Late, draw: np.random.Generator) -> None:
    """A column's sd doubles, its mean stays."""
    table["temperature"][late] = 20 + 2 * (table["temperature"][late] - 20)


def unit(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Celsius becomes Fahrenheit."""
    table["temperature"][late] = 1.8 * table["temperature"][late] + 32


def cents(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Amounts come in cents."""
    table["amount"][late] *= 100


def missing(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Missing values of a column rise from 2 to 12 %."""
    table["distance"][late & (draw.random(ROWS) < 0.1)] = np.nan


def category(table: Table, late: Late, draw: np.random.Generator) -> None:
    """A new category takes 12 % of the rows."""
    table["shop"][late & (draw.random(ROWS) < 0.12)] = "vapes"


def shares(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Categories that are known exchange some of their rows."""
    table["shop"][late & (table["shop"] == "food") & (draw.random(ROWS) < 0.5)] = "fuel"


def rate(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Positives become 2.5 times as many, each class as it was."""
    more = of_classes(draw, np.where(late, draw.random(ROWS) < 0.25, table["y"] == 1))
    for name, values in more.items():
        table[name] = np.where(late, values, table[name])


def one_class(table: Table, late: Late, draw: np.random.Generator) -> None:
    """Positives alone change: they look like negatives in amount, velocity and shop."""
    like = of_classes(draw, np.zeros(ROWS, bool))
    for name in ("amount", "velocity", "shop"):
        table[name] = np.where(late & (table["y"] == 1), like[name], table[name])


def relation(table: Table, late: Late, draw: np.random.Generator) -> None:
    """No column moves; a fifth of the labels are the other class."""
    other = late & (draw.random(ROWS) < 0.2)
    table["y"] = np.where(other, 1 - table["y"], table["y"])


def gone(table: Table, late: Late, draw: np.random.Generator) -> None:
    """No column moves; labels no longer hang on them."""
    table["y"] = np.where(late, draw.permutation(table["y"]), table["y"])


CHANGES: dict[str, Callable[[Table, Late, np.random.Generator], None]] = {
    one.__name__: one
    for one in (shift, slow, spread, unit, cents, missing, category, shares, rate, one_class,
                relation, gone)
}  # fmt: skip


def config_of(table: Table, folder: Path, more: str = "") -> Layer:
    """The configuration of a bare run on this table."""
    pd.DataFrame(table).to_csv(folder / "t.csv", index=False)
    text = f"source: {{kind: table, path: {folder}/t.csv, target: y}}\nplots: false\n"
    return parse_document(f"{text}model_name: t\nexport_dir: {folder}/out\n{more}", "f.yaml")


def events_of(table: Table, more: str = "") -> list[Event]:
    """A whole run's events."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = resolve([config_of(table, folder, more)]).config
        around = RunContext(MemoryRegistry(), lambda: datetime.now(UTC), "bench", workspace=folder)
        finished = run(config, open_source(config), around)
        return list(read(finished.folder / "events.jsonl"))


def quiet(seeds: int) -> None:
    """Batches in alarm and sentences said, where nothing moves."""
    kinds: dict[str, dict[str, float]] = {"10 % positives": {}, "1.5 % positives": {"rate": 0.015},
                                          "100 columns": {"beside": 95}}  # fmt: skip
    print("| stream | batches | in alarm | alarms by | sentences |\n|---|---|---|---|---|")
    for seed in range(1, seeds + 1):
        name, change = list(kinds.items())[seed % len(kinds)]
        events = events_of(payments(np.random.default_rng(seed), **change))  # type: ignore[arg-type]
        batches = [one for one in events if isinstance(one, BatchScored)]
        loud = sum(any(r["level"] == "alarm" for r in one.monitors.values()) for one in batches)
        by = sorted({one.monitor for one in events if isinstance(one, MonitorAlarmed)})
        said = sum(isinstance(one, ColumnMoved) for one in events)
        told = (
            f"| {name}, seed {seed} | {len(batches)} | {loud} | {', '.join(by) or '-'} | {said} |"
        )
        print(told, flush=True)


def drift(seeds: int, chosen: list[str]) -> None:
    """The first alarm after each change, by whom, and what is said at the end."""
    print("| change | batches until an alarm | first alarm by | said |\n|---|---|---|---|")
    for name in chosen or CHANGES:
        delays, by, said = [], set(), ""
        for seed in range(1, seeds + 1):
            draw = np.random.default_rng(100 + seed)
            table = payments(draw)
            CHANGES[name](table, np.arange(ROWS) >= CHANGE, draw)
            events = events_of(table, f"batches: {SEEN}\n")
            alarms = [one for one in events if isinstance(one, MonitorAlarmed)]
            after = [one for one in alarms if one.batch >= FIRST]
            delays.append(str(after[0].batch - FIRST + 1) if after else "never")
            by |= {one.monitor for one in after if one.batch == after[0].batch}
            said = "; ".join(
                [
                    one.reason
                    for one in changes_of(one for one in events if isinstance(one, ColumnMoved))
                ]
            )
        print(f"| {name} | {', '.join(delays)} | {', '.join(sorted(by))} | {said} |", flush=True)


def cost() -> None:
    """Milliseconds of the processor a batch, of whole runs with and without the monitors."""
    print("| columns | monitors | ms a batch |\n|---|---|---|")
    for beside in (0, 45, 195):
        table = payments(np.random.default_rng(1), beside=beside)
        for title, more in (("none", "monitors: []\ndrift_by: sensitive\n"), ("default", "")):
            print(f"| {beside + 5} | {title} | {_milliseconds(table, more):.2f} |", flush=True)


def _milliseconds(table: Table, more: str) -> float:
    from selfheal_cli.pipeline.prepare.baseline import prepare
    from selfheal_cli.pipeline.stream.memory import Replay

    with tempfile.TemporaryDirectory() as place:
        config = resolve([config_of(table, Path(place), more)]).config
        source = open_source(config)
        replay = Replay(config, source, prepare(config, source, lambda done, total: None))
        return 1000 * median(_steps(replay.step, source.batches()))


def _steps(step: Callable[..., None], batches: Iterator[object]) -> Iterator[float]:
    for batch, _ in zip(batches, range(150), strict=False):
        begun = process_time()
        step(batch)
        yield process_time() - begun


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quiet", "drift", "cost"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--changes", nargs="+", default=[], choices=CHANGES)
    given = parser.parse_args()
    use_one_thread()
    if given.what == "quiet":
        quiet(given.seeds)
    elif given.what == "drift":
        drift(given.seeds, given.changes)
    else:
        cost()


if __name__ == "__main__":
    main()
