"""The walk of one batch through our own functions: calls, files, how often each file is entered.

``sys.setprofile`` counts each call of a function that lies in the package, in every thread but
those of the registry's writer, from the moment in which the source gives a batch until it is asked
for the next one. A file is entered where the call before it, in the same thread, was of another.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import selfheal_cli
from selfheal_cli.actor import clock
from selfheal_cli.config import RunConfig
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.records import Batch
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.sources.base import Source

PACKAGE = f"{Path(selfheal_cli.__file__).parent}/"
WRITER = ("outbox", "delivery")  # names of the threads that write to the registry
FIRST, LAST = 5, 12  # batches of the article's stream: warm, and each with a heal


class Call(NamedTuple):
    """One call of a function of ours, ``depth`` calls of ours below the thread's first."""

    thread: str
    depth: int
    file: str
    function: str


@dataclass
class Walk:
    """What was called while one batch was gone through, in order."""

    calls: list[Call] = field(default_factory=list)

    def by_file(self) -> Counter[str]:
        """Calls by file."""
        return Counter(call.file for call in self.calls)

    def entries(self) -> Counter[str]:
        """How often each file was entered."""
        counted = Counter[str]()
        for thread in {call.thread for call in self.calls}:
            files = (call.file for call in self.calls if call.thread == thread)
            counted.update(file for file, _ in groupby(files))
        return counted


class Tracer:
    """Takes down calls into ``walk`` while there is one, in all threads but the writer's."""

    def __init__(self) -> None:
        self.walk: Walk | None = None

    def __enter__(self) -> Tracer:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        walk, name, thread = self.walk, frame.f_code.co_filename, threading.current_thread().name
        if walk is None or event != "call" or thread in WRITER or not name.startswith(PACKAGE):
            return
        file, function = name.removeprefix(PACKAGE), frame.f_code.co_qualname
        walk.calls.append(Call(thread, _depth(frame), file, function))


def _depth(frame: FrameType) -> int:
    depth = 0
    while frame.f_back is not None:
        frame = frame.f_back
        depth += frame.f_code.co_filename.startswith(PACKAGE)
    return depth


class Traced:
    """A source that begins a walk with each batch that it gives, the first time that it gives it.

    At its end a run goes through the article's stream once more, by another recipe.
    """

    def __init__(self, source: Source, tracer: Tracer) -> None:
        self._source, self._tracer = source, tracer
        self.walks: dict[int, Walk] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The source's own."""
        for batch in self._source.batches(start):
            if FIRST <= batch.index <= LAST and batch.index not in self.walks:
                self._tracer.walk = self.walks[batch.index] = Walk()
            yield batch
            self._tracer.walk = None


def trace() -> dict[int, Walk]:
    """Run the article's stream in a folder of its own; returns its walks by batch."""
    with tempfile.TemporaryDirectory() as name, Tracer() as tracer:
        folder = Path(name)
        registry = MlflowRegistry(f"sqlite:///{folder}/mlflow.db", create=True)
        config = RunConfig(batches=LAST + 1, plots=False, export_dir=folder / "export")
        source = Traced(open_source(config), tracer)
        run(config, source, RunContext(registry, clock, "trace", workspace=folder))
        return source.walks


def table_of(walks: dict[int, Walk]) -> Table:
    """A line a batch, and their mean."""
    table = Table(title=f"batches {FIRST} to {LAST} of the article's stream")
    for heading in ("batch", "calls", "files", "changes of file", "entries of one file, at most"):
        table.add_column(heading, justify="right")
    for batch, walk in walks.items():
        entries = walk.entries()
        file, most = entries.most_common(1)[0]
        figures = len(walk.calls), len(entries), entries.total()
        table.add_row(str(batch), *map(str, figures), f"{most} ({file})")
    mean = fmean(len(walk.calls) for walk in walks.values())
    table.add_section()
    table.add_row("mean", f"{mean:.0f}")
    return table


def main() -> None:
    """Print the table, and of one batch what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=FIRST, help="the batch that is shown")
    parser.add_argument("--walk", action="store_true", help="show each call, in order")
    parser.add_argument("--files", action="store_true", help="show each file's calls and entries")
    arguments = parser.parse_args()
    walks = trace()
    walk = walks[arguments.batch]
    if arguments.walk:
        for call in walk.calls:
            print(f"{'  ' * call.depth}{call.file} {call.function}")
    if arguments.files:
        calls = walk.by_file()
        for file, entries in walk.entries().most_common():
            print(f"{file}: {calls[file]} calls, {entries} entries")
    Console().print(table_of(walks))


if __name__ == "__main__":
    main()
