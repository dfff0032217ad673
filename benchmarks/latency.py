"""Latency of one-row predictions while heals run back to back, against none running.

Every variant scores the same rows with the same network and goes through the same stages after
each prediction (take an outcome, publish it, submit the next heal); only the `HealEngine` differs.
The clock runs around ``predict`` alone; what the stages cost the scoring thread is a column of
its own. One variant heals nothing and keeps the other core busy from a process that has no part in
scoring: what is lost there is the machine's, and no engine can win it back.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from queue import SimpleQueue
from threading import RLock, Thread
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from selfheal_cli.config import HealSettings, RunConfig, SyntheticSettings
from selfheal_cli.heal.engine import HealEngine, LiveModel, Serving
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealRows, HealTask
from selfheal_cli.heal.worker import decode_recipes, encode_recipes
from selfheal_cli.heal.worker_engine import WorkerEngine
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.sources.synthetic import SyntheticSource

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

PAUSES = (0.0, 0.001)  # seconds between predictions
IDLE = "no heals (idle)"


class NoHeals:
    """A `HealEngine` that is never done."""

    in_flight = False

    def submit(self, task: HealTask) -> HealTask | None:
        """Nothing is healed."""

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """There is nothing to take."""

    def close(self) -> None:
        """Nothing to give back."""


class BusyNeighbour(NoHeals):
    """Heals nothing here; from `submit` to ``take(wait=True)`` a process heals for nobody."""

    def __init__(self, recipes: Recipes, task: HealTask) -> None:
        context = get_context("spawn")
        self._running = context.Event()
        arguments = (self._running, encode_recipes(recipes), task)
        self._process = context.Process(target=heal_for_nobody, args=arguments, daemon=True)
        self._process.start()

    def submit(self, task: HealTask) -> HealTask | None:
        """Let the process run."""
        self.in_flight = True
        self._running.set()
        return None

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """Nothing comes of it; ``wait`` stops the process."""
        if wait:
            self.in_flight = False
            self._running.clear()
        return None

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def heal_for_nobody(running: Event, base: bytes, task: HealTask) -> None:
    """Heal a network of this process's own while ``running`` is set."""
    use_one_thread()
    recipes = decode_recipes(base)
    before = AdapterState(recipes.network.adapter.state_dict(), {})
    while running.wait():
        recipes.heal(before, task)


class ThreadEngine:
    """A `HealEngine` in a thread, with ``guard`` held around all steps of a heal."""

    def __init__(
        self, live: LiveModel, recipes: Recipes, guard: AbstractContextManager[object]
    ) -> None:
        self._live = live
        self._recipes = recipes
        self._guard = guard
        self._asked: SimpleQueue[HealTask | None] = SimpleQueue()
        self._done: SimpleQueue[HealOutcome] = SimpleQueue()
        self._thread = Thread(target=self._work, name="heal-thread", daemon=True)
        self._thread.start()
        self.in_flight = False

    def submit(self, task: HealTask) -> HealTask | None:
        """See `HealEngine`; the stages here ask only when nothing is in flight."""
        self.in_flight = True
        self._asked.put(task)
        return None

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """See `HealEngine`."""
        if not self.in_flight or (self._done.empty() and not wait):
            return None
        self.in_flight = False
        return self._done.get()

    def close(self) -> None:
        """End the thread."""
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (task := self._asked.get()) is not None:
            with self._guard:
                outcome = self._recipes.heal(self._live.serving.adapter, task)
            self._done.put(outcome)


@dataclass
class Subject:
    """A live model with an engine beside it; ``handovers`` are ns of the stages for each heal."""

    name: str
    live: LiveModel
    engine: HealEngine
    predict: Callable[[FloatArray], FloatArray]
    tasks: Iterator[HealTask]
    handovers: list[int] = field(default_factory=list)

    def stages(self) -> None:
        """What the stream does around a batch: take, publish, ask again."""
        start = time.perf_counter_ns()
        outcome = self.engine.take()
        if isinstance(outcome, HealFailure):
            raise SystemExit(f"{self.name}: {outcome.reason}")
        if outcome is not None:
            self.live.publish(outcome.after, outcome.task.heal_id, 0.5)
        if not self.engine.in_flight:
            self.engine.submit(next(self.tasks))
        if outcome is not None:
            self.handovers.append(time.perf_counter_ns() - start)

    def rest(self, trained: AdapterState) -> None:
        """Let the last heal end, and serve the adapter as trained again.

        Thousands of heals on the same rows would drive the probabilities to 0 and 1.
        """
        self.engine.take(wait=True)
        self.live.publish(trained, "trained", 0.5)
        self.handovers.clear()
        gc.collect()


@dataclass(frozen=True, slots=True)
class Segment:
    """One variant in one round: milliseconds, and heals a second."""

    p50: float
    p99: float
    largest: float
    handover: float
    heals: float


def measure(
    subject: Subject, rows: list[FloatArray], seconds: float, pause: float, trained: AdapterState
) -> Segment:
    """Predict row after row; Python's collector stays on, as it is in the product."""
    subject.rest(trained)
    clock, taken = time.perf_counter_ns, list[int]()
    start = after = clock()
    end = start + int(seconds * 1e9)
    for row in cycle(rows):
        before = clock()
        subject.predict(row)
        after = clock()
        taken.append(after - before)
        if after > end:
            break
        subject.stages()
        if pause:
            time.sleep(pause)
    p50, p99, largest = (float(value) for value in np.percentile(taken, (50, 99, 100)) / 1e6)
    handover = float(np.median(subject.handovers or [0])) / 1e6
    heals = len(subject.handovers) / ((after - start) / 1e9)
    subject.engine.take(wait=True)
    return Segment(p50, p99, largest, handover, heals)


def rounds(
    subjects: list[Subject],
    rows: list[FloatArray],
    count: int,
    seconds: float,
    trained: AdapterState,
) -> dict[tuple[float, str], list[Segment]]:
    """Every variant at every pause once a round, each round beginning with another variant."""
    runs: dict[tuple[float, str], list[Segment]] = {
        (pause, subject.name): [] for pause in PAUSES for subject in subjects
    }
    for number in range(-1, count):  # the first round warms up
        first = number % len(subjects)
        for pause in PAUSES:
            for subject in subjects[first:] + subjects[:first]:
                segment = measure(subject, rows, seconds, pause, trained)
                if number >= 0:
                    runs[pause, subject.name].append(segment)
    return runs


def lay_out(runs: dict[tuple[float, str], list[Segment]]) -> Table:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""
    table = Table(title=f"One-row predictions, ms: medians over {len(runs[0.0, IDLE])} rounds")
    table.add_column("pause ms", justify="right")
    table.add_column("beside live scoring", no_wrap=True)
    for title in ("p50", "p99", "p99 / idle", "max", "max of all", "hand-over", "heals / s"):
        table.add_column(title, justify="right", min_width=len(title))
    for (pause, name), segments in runs.items():
        if name == IDLE:
            table.add_section()
        resting = runs[pause, IDLE]
        ratios = [own.p99 / other.p99 for own, other in zip(segments, resting, strict=True)]
        heals = np.median([s.heals for s in segments])
        table.add_row(
            f"{1e3 * pause:g}",
            name,
            f"{np.median([s.p50 for s in segments]):.3f}",
            f"{np.median([s.p99 for s in segments]):.3f}",
            f"{np.median(ratios):.2f}",
            f"{np.median([s.largest for s in segments]):.2f}",
            f"{max(s.largest for s in segments):.2f}",
            f"{np.median([s.handover for s in segments]):.2f}" if heals else "",
            f"{heals:.0f}" if heals else "",
        )
    return table


def subjects_of(
    prepared: Prepared, tasks: list[HealTask], trained: AdapterState, stack: ExitStack
) -> list[Subject]:
    """Each variant with a live model of its own."""

    recipes = Recipes(prepared.network, prepared.anchor, HealSettings())

    def subject(name: str, engine: Callable[[LiveModel], HealEngine]) -> Subject:
        network = prepared.network.with_adapter(trained.weights)
        live = LiveModel(Serving(network, trained, "trained", 0.5))
        new_subject = Subject(name, live, engine(live), live.predict, cycle(tasks))
        stack.callback(new_subject.engine.close)
        return new_subject

    lock = RLock()
    one_lock = subject(
        "heals in a thread, one lock", lambda live: ThreadEngine(live, recipes, lock)
    )
    free_predict = one_lock.predict

    def locked_predict(x: FloatArray) -> FloatArray:
        with lock:
            return free_predict(x)

    one_lock.predict = locked_predict
    return [
        subject(IDLE, lambda live: NoHeals()),
        subject("no heals, other core busy", lambda live: BusyNeighbour(recipes, tasks[0])),
        subject("heals in a process (ours)", lambda live: WorkerEngine(live, recipes)),
        subject(
            "heals in a thread, no lock", lambda live: ThreadEngine(live, recipes, nullcontext())
        ),
        one_lock,
    ]


def tasks_of(prepared: Prepared, source: SyntheticSource) -> list[HealTask]:
    """A heal of 100 rows for each batch of the stream."""
    tasks = []
    for batch in source.batches():
        verdict = prepared.trained.rules.judge(batch.rows.columns)
        probabilities = prepared.network.predict(batch.rows.x)
        conflicts = verdict.conflicts_with(probabilities, batch.rows.y, 0.30)
        tasks.append(
            HealTask(
                heal_id=f"h{batch.index}",
                batch=batch.index,
                reason="benchmark",
                recipe="article",
                rows=HealRows(
                    features=prepared.network.features(batch.rows.x),
                    y=batch.rows.y,
                    rule_label=verdict.label,
                    arrival=np.full(len(batch.rows), batch.index, dtype=np.int32),
                    held_out=np.zeros(len(batch.rows), dtype=bool),
                ),
                positive_share=conflicts.positive_share,
            )
        )
    return tasks


def main() -> None:
    """Train the article's network, measure, print."""
    parser = argparse.ArgumentParser(description="One-row predictions while heals run.")
    parser.add_argument("--rounds", type=int, default=13, help="rounds that count")
    parser.add_argument("--seconds", type=float, default=0.4, help="one variant in one round")
    options = parser.parse_args()
    use_one_thread()
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=25)
    prepared = prepare(RunConfig(), source, lambda done, total: None)
    trained = AdapterState(prepared.network.adapter.state_dict(), {})
    drifted = source.held_out()["drifted"].x
    rows = [drifted[number : number + 1] for number in range(len(drifted))]
    with ExitStack() as stack:
        subjects = subjects_of(prepared, tasks_of(prepared, source), trained, stack)
        runs = rounds(subjects, rows, options.rounds, options.seconds, trained)
    Console(width=120).print(lay_out(runs))


if __name__ == "__main__":
    main()
