"""How heals run: what every engine keeps to, and a worker that can be killed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from typing import TYPE_CHECKING

import numpy as np
import pytest

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal import worker as heal_worker
from selfheal_cli.heal.engine import HealEngine, InlineEngine, LiveModel, Serving
from selfheal_cli.heal.task import HealFailure, HealOutcome, HealTask
from selfheal_cli.heal.worker_engine import MAX_STARTS, WorkerEngine
from tests.conftest import PATIENCE
from tests.heal import small

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

SETTINGS = HealSettings()
RECIPES = small.recipes_of(small.small_network(), SETTINGS)


def first_serving() -> Serving:
    """A small network with the adapter that it was built with."""
    network = small.small_network()
    return Serving(network, small.start(network), "s-0", 0.5)


def x_of(batch: int) -> FloatArray:
    """The inputs behind a task's features."""
    return np.random.default_rng(batch).normal(size=(30, small.INPUTS)).astype(np.float32)


def task_of(batch: int, *, broken: bool = False) -> HealTask:
    """Rows to heal on; broken ones, of which no rule speaks, give weights that are not finite."""
    x = x_of(batch)
    y, rule_label = np.random.default_rng(batch + 100).integers(0, 2, (2, 30)).astype(np.int8)
    if broken:
        x, rule_label = x + np.float32("inf"), rule_label * 0 - 1
    rows = small.rows_of(RECIPES.network, x, y, rule_label)
    return HealTask(f"h{batch}", batch, "drift", "article", rows, 0.2)


def outcome_bytes(outcome: HealOutcome | HealFailure | None) -> tuple[object, ...]:
    """Everything that a heal gave, as bytes."""
    assert isinstance(outcome, HealOutcome)
    return small.outcome_bytes(outcome)


def gone(pid: int) -> bool:
    """There is no such process any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def killed(engine: WorkerEngine) -> int:
    """Kill the worker and see it dead; returns its process id."""
    pid = engine.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[LiveModel, WorkerEngine]]:
    """One worker for the whole module, since it takes seconds to start."""
    live = LiveModel(first_serving())
    engine = WorkerEngine(live, RECIPES)
    yield live, engine
    engine.close()


@pytest.fixture
def live(shared: tuple[LiveModel, WorkerEngine]) -> LiveModel:
    """The worker's live model, serving what it served at first."""
    shared[0].serving = first_serving()
    return shared[0]


@pytest.fixture
def worker(shared: tuple[LiveModel, WorkerEngine], live: LiveModel) -> WorkerEngine:
    """The module's worker with nothing in flight."""
    engine = shared[1]
    while engine.take(wait=True) is not None:
        pass
    return engine


@pytest.fixture(params=["inline", "worker"])
def engine(request: pytest.FixtureRequest, live: LiveModel, worker: WorkerEngine) -> HealEngine:
    """Every engine there is, healing for ``live``."""
    return worker if request.param == "worker" else InlineEngine(live, RECIPES)


def test_without_a_task_there_is_nothing_to_take(engine: HealEngine) -> None:
    assert not engine.in_flight
    assert engine.take() is None
    assert engine.take(wait=True) is None


def test_a_task_is_in_flight_until_its_outcome_is_taken(engine: HealEngine) -> None:
    task = task_of(1)
    assert engine.submit(task) is None
    assert engine.in_flight
    outcome = engine.take(wait=True)
    assert isinstance(outcome, HealOutcome)
    assert outcome.task is task
    assert not engine.in_flight
    assert engine.take(wait=True) is None


def test_an_outcome_comes_without_waiting_too(engine: HealEngine) -> None:
    task = task_of(1)
    engine.submit(task)
    until = time.monotonic() + PATIENCE
    while (outcome := engine.take()) is None and time.monotonic() < until:
        assert engine.in_flight
    assert isinstance(outcome, HealOutcome)
    assert outcome.task is task


def test_an_engine_heals_what_serves_and_does_not_touch_it(
    engine: HealEngine, live: LiveModel
) -> None:
    before, task = live.serving, task_of(1)
    engine.submit(task)
    outcome = engine.take(wait=True)
    expected = RECIPES.heal(before.adapter, task)
    assert outcome_bytes(outcome) == outcome_bytes(expected)
    assert live.serving is before


def test_heals_build_on_what_was_published(engine: HealEngine, live: LiveModel) -> None:
    for batch in (1, 2, 3):
        task, before = task_of(batch), live.serving
        engine.submit(task)
        outcome = engine.take(wait=True)
        assert isinstance(outcome, HealOutcome)
        expected = RECIPES.heal(before.adapter, task)
        assert outcome_bytes(outcome) == outcome_bytes(expected)
        np.testing.assert_array_equal(outcome.probabilities_before, live.predict(x_of(batch)))
        live.publish(outcome.after, f"s-{batch}", 0.5)
        np.testing.assert_array_equal(outcome.probabilities_after, live.predict(x_of(batch)))
    assert float(live.serving.adapter.memory["step.scale"]) == 3 * SETTINGS.steps


def test_a_heal_that_is_not_finite_is_a_failure_and_the_next_one_works(
    engine: HealEngine,
) -> None:
    broken = task_of(1, broken=True)
    engine.submit(broken)
    failure = engine.take(wait=True)
    assert isinstance(failure, HealFailure)
    assert failure.task is broken
    assert "heal h1 of batch 1: " in failure.reason
    assert "is not finite" in failure.reason
    assert not failure.worker_restarted
    assert not engine.in_flight
    engine.submit(task_of(2))
    assert isinstance(engine.take(wait=True), HealOutcome)


def test_rows_of_another_width_are_a_failure(engine: HealEngine) -> None:
    task = small.with_rows(task_of(9), features=np.ones((30, 3), np.float32))
    engine.submit(task)
    failure = engine.take(wait=True)
    assert isinstance(failure, HealFailure)
    assert "shapes cannot be multiplied" in failure.reason
    assert "\n" not in failure.reason


def test_closing_an_inline_engine_is_nothing() -> None:
    engine = InlineEngine(LiveModel(first_serving()), RECIPES)
    engine.close()
    assert not engine.in_flight


def test_inline_the_newest_task_replaces_the_one_that_waits(live: LiveModel) -> None:
    engine = InlineEngine(live, RECIPES)
    first, second = task_of(1), task_of(2)
    assert engine.submit(first) is None
    assert engine.submit(second) is first
    outcome = engine.take()
    assert isinstance(outcome, HealOutcome)
    assert outcome.task is second
    assert engine.take() is None


def test_in_a_worker_the_newest_task_replaces_the_one_that_waits(worker: WorkerEngine) -> None:
    tasks = [task_of(batch) for batch in range(1, 5)]
    assert [worker.submit(task) for task in tasks] == [None, None, tasks[1], tasks[2]]
    for task in (tasks[0], tasks[3]):
        assert worker.in_flight
        outcome = worker.take(wait=True)
        assert isinstance(outcome, HealOutcome)
        assert outcome.task is task
    assert not worker.in_flight


def test_a_task_that_waited_heals_what_was_published_meanwhile(
    worker: WorkerEngine, live: LiveModel
) -> None:
    worker.submit(task_of(1))
    worker.submit(task_of(2))
    first = worker.take(wait=True)
    assert isinstance(first, HealOutcome)
    live.publish(first.after, "s-1", 0.5)
    second = worker.take(wait=True)
    expected = RECIPES.heal(first.after, task_of(2))
    assert outcome_bytes(second) == outcome_bytes(expected)


@pytest.mark.parametrize(
    ("chosen", "assume"),
    [
        (("gradient",), "positives-stable"),
        (("anchored", "assumed"), "positives-stable"),
        (("anchored", "aligned"), "inputs-shifted"),
    ],
    ids=["reflexive", "affine", "affine beside its inputs"],
)
def test_every_recipe_gives_the_same_in_a_worker_as_in_place(
    chosen: tuple[str, ...], assume: str
) -> None:
    network = small.small_network()
    if chosen != ("gradient",):
        network = network.anchored(beside=True)
    settings = HealSettings.model_validate({"recipe": chosen[0], "assume": assume})
    recipes = small.recipes_of(network, settings)
    here, there = (LiveModel(Serving(network, small.start(network), "s-0", 0.5)) for _ in "ab")
    inline, worker = InlineEngine(here, recipes), WorkerEngine(there, recipes)
    healed = set()
    for batch, recipe in itertools.product((1, 2, 3), chosen):
        y, rule_label = np.random.default_rng(batch).integers(-1, 2, (2, 30)).astype(np.int8)
        rows = small.rows_of(network, x_of(batch), y, rule_label)
        rows = dataclasses.replace(
            rows, arrival=rows.arrival * batch, held_out=x_of(batch)[:, 0] > 1
        )
        task = HealTask(f"h{batch}", batch, "drift", recipe, rows)
        for engine in (inline, worker):
            engine.submit(task)
        expected, outcome = inline.take(), worker.take(wait=True)
        if isinstance(expected, HealFailure):
            assert outcome == expected
            continue
        assert outcome_bytes(outcome) == outcome_bytes(expected)
        healed.add(recipe)
        for live in (here, there):
            live.publish(expected.after, task.heal_id, 0.5)
    worker.close()
    assert chosen[0] in healed


def test_the_worker_leaves_an_interrupt_to_its_parent(worker: WorkerEngine) -> None:
    pid = worker.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    worker.submit(task_of(1))
    assert isinstance(worker.take(wait=True), HealOutcome)
    assert worker.worker_pid == pid


def test_a_worker_whose_parent_is_killed_while_it_starts_ends_without_a_word() -> None:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", heal_worker.__name__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stderr=subprocess.PIPE,
    )  # fmt: skip
    theirs.close()
    ours.send_bytes(heal_worker.encode_recipes(RECIPES))
    ours.close()
    assert process.communicate(timeout=PATIENCE) == (None, b"")
    assert process.returncode == 0


def test_a_heal_whose_worker_was_killed_is_a_failure_and_the_waiting_one_works(
    worker: WorkerEngine, live: LiveModel
) -> None:
    pid = worker.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that the heal is under way when the worker is killed
    lost, waiting = task_of(1), task_of(2)
    worker.submit(lost)
    worker.submit(waiting)
    assert worker.take() is None
    killed(worker)
    failure = worker.take(wait=True)
    assert isinstance(failure, HealFailure)
    assert failure.task is lost
    assert failure.worker_restarted
    assert "the heal worker ended (exit code -9) and was started again" in failure.reason
    assert worker.in_flight
    outcome = worker.take(wait=True)
    expected = RECIPES.heal(live.serving.adapter, waiting)
    assert outcome_bytes(outcome) == outcome_bytes(expected)
    assert worker.worker_pid != pid
    assert gone(pid)


def test_a_worker_killed_before_the_task_came_is_started_again_but_not_for_ever() -> None:
    engine = WorkerEngine(LiveModel(first_serving()), RECIPES)
    pid, lost = killed(engine), task_of(1)
    assert engine.submit(lost) is None
    failure = engine.take()
    assert isinstance(failure, HealFailure)
    assert failure.task is lost
    assert failure.worker_restarted
    assert engine.worker_pid != pid
    engine.submit(task_of(2))  # waits for a worker that never comes up
    for _ in range(MAX_STARTS - 2):
        killed(engine)
        assert engine.take() is None
        assert engine.in_flight
    pid = killed(engine)
    with pytest.raises(HealError, match=rf"ended {MAX_STARTS} times in a row \(exit code -9\)"):
        engine.take()
    engine.close()
    assert gone(pid)


def test_closing_a_worker_engine_ends_the_process() -> None:
    engine = WorkerEngine(LiveModel(first_serving()), RECIPES)
    pid = engine.worker_pid
    assert pid is not None
    assert not gone(pid)
    engine.close()
    assert gone(pid)
