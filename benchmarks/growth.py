"""How commands slow down as versions, moves, aliases or models pile up in a store with a real run.

Versions are copied by SQL, made an hour ago as it seems; moves and aliases go through the one door,
and take long to make.

Each size is a SQLite store of its own. Queries are interleaved in rounds within this process;
commands are whole processes. The best version is one of the real ones, so that a rollback has a
file to check.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table

from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.mlflow.versions import VERSIONS_TAG

BATCHES = 3
BLOCK = 5_000
VERSIONS = {
    "rollback --to-best --yes": ("rollback", "--to-best", "--yes"),
    "champion": ("champion",),
    "snapshots --limit 20": ("snapshots", "--limit", "20"),
    "snapshots --sort f1 --limit 20": ("snapshots", "--sort", "f1", "--limit", "20"),
    "history --limit 20": ("history", "--limit", "20"),
}
COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {
    "versions": VERSIONS,
    "moves": {
        "champion": ("champion",),
        "rollback --to 2 --yes": ("rollback", "--to", "2", "--yes"),
    },
    "aliases": {"champion": ("champion",), "doctor": ("doctor",)},
    "models": {"champion": ("champion",), "doctor": ("doctor",)},
}
COPIED = ("logged_models", "logged_model_tags", "logged_model_metrics", "model_versions",
          "model_version_tags")  # fmt: skip


def selfheal(*arguments: str) -> float:
    """Seconds of a whole command in the working folder."""
    command = [str(Path(sys.executable).with_name("selfheal")), *arguments]
    # MLflow writes the store that this process opened into the environment
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def fill(database: Path, what: str, count: int) -> None:
    """As many ``what`` as ``count``."""
    if what == "versions":
        return copy_versions(database, count)
    registry, client = (
        MlflowRegistry(f"sqlite:///{database}"),
        MlflowClient(f"sqlite:///{database}"),
    )
    if what == "models":
        for number in range(count):
            client.create_registered_model(f"other-{number}")
        return None
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for number in range(count):
        alias = f"alias-{number}" if what == "aliases" else "canary"
        move_alias(registry, Move("fraud", alias, 1 + number % 2, "benchmark", now, "to grow"))
    return None


def copy_versions(database: Path, versions: int) -> None:
    """Copies of one post-heal version, each with figures, tags and a number of its own."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        (real,) = connection.execute("SELECT max(version) FROM model_versions").fetchone()
        source = connection.execute(
            "SELECT source FROM model_versions WHERE version = ?", (real,)
        ).fetchone()["source"]
        template = Template(connection, source.removeprefix("models:/"), real)
        drawn = np.random.default_rng(42)
        for start in range(real + 1, versions + 1, BLOCK):
            block = range(start, min(start + BLOCK, versions + 1))
            for table in COPIED:
                rows = [row for number in block for row in template.copy(table, number, drawn)]
                names = ", ".join(rows[0])
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(
                    f"INSERT INTO {table} ({names}) VALUES ({marks})",  # noqa: S608
                    [tuple(row.values()) for row in rows],
                )
            connection.commit()
        connection.execute("UPDATE model_versions SET creation_time = creation_time - 3600000")
        connection.commit()
        connection.execute("ANALYZE")


class Template:
    """The rows of one version, by table."""

    def __init__(self, connection: sqlite3.Connection, model_id: str, number: int) -> None:
        self._id = model_id
        self._rows = {
            table: [
                dict(row)
                for row in connection.execute(
                    f"SELECT * FROM {table} WHERE {key} = ?",  # noqa: S608
                    (number if table.startswith("model_v") else model_id,),
                )
            ]
            for table in COPIED
            for key in ("version" if table.startswith("model_v") else "model_id",)
        }

    def copy(self, table: str, number: int, drawn: np.random.Generator) -> Iterator[dict[str, Any]]:
        """The rows of ``table`` for version ``number``; its figures are below the template's."""
        fresh = f"m-{number:032x}"
        lower = 0.2 + 0.5 * drawn.random()
        for row in self._rows[table]:
            fresh_row = dict(row)
            for name, value in row.items():
                if isinstance(value, str):
                    fresh_row[name] = value.replace(self._id, fresh)
            if "version" in fresh_row:
                fresh_row["version"] = number
            for name in ("creation_timestamp_ms", "creation_time"):
                if name in fresh_row:
                    fresh_row[name] += number
            if table == "logged_model_metrics":
                fresh_row["metric_value"] *= lower
            if fresh_row.get("tag_key") == VERSIONS_TAG:
                fresh_row["tag_value"] = f'[{{"name": "fraud", "version": "{number}"}}]'
            if "selfheal.snapshot" in (fresh_row.get("tag_key"), fresh_row.get("key")):
                fresh_row["tag_value" if "tag_key" in fresh_row else "value"] = f"copy-{number}"
            yield fresh_row


def queries(uri: str) -> dict[str, Callable[[], Any]]:
    """Ours, and the same question put to MLflow's client directly."""
    registry, client = MlflowRegistry(uri), MlflowClient(uri)
    base = registry.versions("fraud", limit=1)[0].base
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    conditions = (
        "tags.`selfheal.model` = 'fraud' AND tags.`selfheal.phase` = 'post-heal' "
        f"AND tags.`selfheal.base` = '{base}'"
    )
    order = [{"field_name": "metrics.f1", "ascending": False}]

    def bare() -> object:
        return client.search_logged_models(
            experiments, filter_string=conditions, order_by=order, max_results=1
        )

    return {
        "bare search_logged_models": bare,
        "registry.best": lambda: registry.best("fraud", base=base),
        "what stands": lambda: standing(MlflowRegistry(uri), "fraud"),
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def store_of(what: str, count: int) -> Iterator[Path]:
    """A temporary folder with a run and as many ``what``; the working folder meanwhile."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            selfheal("run", "--batches", str(BATCHES), "--no-plots")
            fill(Path(folder, "mlflow.db"), what, count)
            yield Path(folder)
        finally:
            os.chdir(before)


def measure(what: str, count: int, rounds: int) -> dict[str, float]:
    """Median seconds by question and command."""
    commands = COMMANDS[what]
    with store_of(what, count) as folder:
        asked = queries(f"sqlite:///{folder}/mlflow.db")
        for work in asked.values():
            work()
        timings: dict[str, list[float]] = {name: [] for name in (*asked, *commands)}
        for _ in range(rounds):
            for name, work in asked.items():
                timings[name].append(timed(work))
            for name, arguments in commands.items():
                timings[name].append(selfheal(*arguments))
    return {name: float(np.median(seconds)) for name, seconds in timings.items()}


def lay_out(what: str, timings: dict[int, dict[str, float]]) -> Table:
    """Seconds by size; the last column compares the largest store with the smallest."""
    sizes: Sequence[int] = sorted(timings)
    table = Table(title=f"Seconds (medians) by number of {what}")
    table.add_column("what", no_wrap=True)
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column(f"{sizes[-1]:,} / {sizes[0]:,}", justify="right")
    for name in timings[sizes[0]]:
        seconds = [timings[size][name] for size in sizes]
        shown = [f"{value:.3f}" for value in seconds]
        table.add_row(name, *shown, f"{seconds[-1] / seconds[0]:.2f}")
    ratios = [
        f"{timings[size]['registry.best'] / timings[size]['bare search_logged_models']:.2f}"
        for size in sizes
    ]
    table.add_row("best / bare", *ratios, "")
    return table


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description="Seconds by what piles up.")
    parser.add_argument("--what", choices=COMMANDS, default="versions")
    parser.add_argument("--sizes", default="1000,10000,100000", help="how many of them")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    timings = {size: measure(options.what, size, options.rounds) for size in sizes}
    Console(width=120).print(lay_out(options.what, timings))


if __name__ == "__main__":
    main()
