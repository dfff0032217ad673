"""Two at once want a run that was killed: whoever does not get its lease changes not one byte."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import EventLogError, LeaseHeld, RegistryRestored
from selfheal_cli.events.log import EventLog, read
from selfheal_cli.events.types import RunFinished, RunStarted, StreamStopped
from selfheal_cli.pipeline.prepare.lease import RunLease
from selfheal_cli.pipeline.runs import recovery as resuming
from selfheal_cli.pipeline.runs.recovery import flush, resume
from selfheal_cli.pipeline.runs.run import Finished, RunContext, RunSpec
from selfheal_cli.records import Phase
from selfheal_cli.registry import delivery
from selfheal_cli.registry.aliases import Move, OnSettled, Unsettled, move_alias, untold
from selfheal_cli.registry.base import CHAMPION, Lineage, Registry
from selfheal_cli.registry.journal import Lease, standing
from selfheal_cli.registry.lease import take_lease
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.outbox import Outbox
from tests.conftest import DEPTH
from tests.events.examples import example
from tests.registry.chains import check_chain
from tests.registry.stepping import Interleaving, Stepped
from tests.registry.test_contract import ADAPTER, a_base, snapshot

AT = "2026-01-01T00:00:00.000+00:00"
BOBS = Lease("r2", "bob", AT)
REFUSED = (LeaseHeld, EventLogError)  # the second where the first has brought it to its end


def clock() -> datetime:
    return datetime.now(UTC)


def killed_run(registry: Registry, workspace: Path) -> Path:
    """The folder of a run that was killed: half a line in its log, writes in its outbox, and its
    lease not given back.
    """
    run_id = registry.begin_run("trial", {}, {})
    folder = workspace / "runs" / run_id
    config = RunConfig(model_name="m")
    started = example(RunStarted, run_id=run_id, model="m", config=config.model_dump(mode="json"))
    with closing(EventLog(folder / "events.jsonl", clock)) as log:
        log.append(started)
    with (folder / "events.jsonl").open("ab") as stream:
        stream.write(b'{"sequence":2,"at":"20')
    take_lease(registry, "m", Lease(run_id, "ann", AT), four_eyes=False, alive=lambda _: "")
    lineage = Lineage("m", run_id, registry.store_base(run_id, a_base()), "article", "full", "1")
    taken = snapshot(1, Phase.POST_HEAL)
    with closing(Outbox(folder / "outbox.db")) as outbox:
        outbox.lineage = asdict(lineage)
        wanted = Move("m", CHAMPION, 0, "ann", AT, "healed", run_id, f"{run_id}:1", 0)
        outbox.put([delivery.version_job(taken, ADAPTER), delivery.move_job(wanted, taken.id)])
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file that lasts, by its hash."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if not path.name.endswith("-shm")  # SQLite's own memory of who reads
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume that trains nothing and goes through no rows; what it writes it writes."""

    def go(course: RunSpec, around: RunContext, lease: RunLease) -> Finished:
        for number in (1, 2):
            around.registry.run_tags(course.run_id)  # somebody else may go on here
            course.log.append(StreamStopped(batch=number))
        lease.require()
        course.log.append(RunFinished(outcome="KILLED"))
        return Finished(course.run_id, "KILLED", course.log.path.parent, None, ())  # type: ignore[arg-type]

    monkeypatch.setattr(resuming, "go", go)
    monkeypatch.setattr(resuming, "prepare", lambda *_: None)
    monkeypatch.setattr(resuming, "wrapped_of", lambda *_: None)
    monkeypatch.setattr(resuming, "open_kept", None, raising=False)


def resumes(registry: Any, folder: Path, told: OnSettled = untold) -> None:
    around = RunContext(registry, clock, "ann", workspace=folder.parents[1], on_settled=told)
    resume(folder / "events.jsonl", around, lambda config: None)  # type: ignore[arg-type,return-value]


def flushes(registry: Any, folder: Path, told: OnSettled = untold) -> None:
    flush(
        folder / "outbox.db", registry, clock, "ann", patience=5, on_left=lambda left: None,
        on_settled=told,
    )  # fmt: skip


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("task", [resumes, flushes])
def test_a_move_that_was_begun_is_finished_by_who_gets_the_lease_and_told(
    task: Callable[[Any, Path, OnSettled], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    folder = killed_run(registry, tmp_path)
    run_id = registry.begin_run("trial", {}, {})
    lineage = Lineage("m", run_id, registry.store_base(run_id, a_base()), "article", "full", "1")
    for number in (8, 9):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    move_alias(registry, Move("m", "canary", 1, "ann", AT, "first"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(registry, "set_alias", Mock(side_effect=Killed))
        move_alias(registry, Move("m", "canary", 2, "ann", AT, "begun"))
    told: list[Unsettled] = []
    task(registry, folder, told.append)
    assert [(one.move.target, one.late) for one in told] == [(2, False)]
    assert registry.alias("m", "canary") == 2


Task = Callable[[Any, Path], None]
PAIRS = [
    pytest.param(resumes, resumes, id="two resumes"),
    pytest.param(resumes, flushes, id="a flush beside a resume"),
    pytest.param(flushes, flushes, id="two flushes"),
]


def interleaved(seed: int, open_registry: Callable[[], Any], folder: Path, *tasks: Task) -> None:
    """Both at once; each file's change is the doing of who had the turn."""
    changed: dict[str, set[str]] = {"a": set(), "b": set()}
    last = bytes_of(folder)

    def ran(name: str) -> None:
        nonlocal last
        now = bytes_of(folder)
        changed[name] |= {file for file in now | last if now.get(file) != last.get(file)}
        last = now

    steps = Interleaving(seed, ran)
    registries = [Stepped(open_registry(), steps) for _ in tasks]
    steps.run(
        {
            name: lambda task=task, registry=registry: task(registry, folder)  # type: ignore[misc]
            for name, task, registry in zip("ab", tasks, registries, strict=True)
        }
    )
    for name, raised in steps.raised.items():
        assert isinstance(raised, REFUSED), f"seed {seed}: {raised!r}"
        if isinstance(raised, LeaseHeld):
            assert changed[name] <= {"alive.lock"}, f"seed {seed}: {raised}"
    list(read(folder / "events.jsonl"))  # the chain holds
    assert len(steps.raised) < 2, f"seed {seed}: nobody got it"
    plain = open_registry()
    assert check_chain(plain, "m") > 0
    assert standing(plain, "m").lease is None


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_at_once_one_gets_the_lease_and_the_other_changes_nothing(
    quick: None, tmp_path: Path, first: Task, second: Task
) -> None:
    for seed in range(15 * DEPTH):
        registry = MemoryRegistry()
        folder = killed_run(registry, tmp_path / str(seed))
        interleaved(seed, lambda registry=registry: registry, folder, first, second)  # type: ignore[misc]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("seed", range(DEPTH))
def test_the_same_holds_on_sqlite(
    quick: None, workdir: Path, first: Task, second: Task, seed: int
) -> None:
    folder = killed_run(MlflowRegistry(), Path("mlruns/selfheal"))
    interleaved(seed, MlflowRegistry, folder, first, second)


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[tuple[MemoryRegistry, Path]]:
    """A run that holds its lease and writes."""
    registry = MemoryRegistry()
    folder = killed_run(registry, tmp_path)
    with RunLease(registry, "m", folder.name, folder, "ann", clock, four_eyes=False):
        yield registry, folder


@pytest.mark.parametrize("task", [resumes, flushes])
def test_whoever_wants_a_run_that_is_alive_changes_not_one_byte(
    quick: None, alive: tuple[MemoryRegistry, Path], task: Task
) -> None:
    registry, folder = alive
    before, entries = bytes_of(folder), list(registry.entries("m"))
    with pytest.raises(LeaseHeld, match="is running already, in this folder"):
        task(registry, folder)
    assert bytes_of(folder) == before
    assert list(registry.entries("m")) == entries


@pytest.mark.parametrize("task", [resumes, flushes])
def test_whoever_wants_a_run_whose_model_another_heals_changes_not_one_byte(
    quick: None, tmp_path: Path, task: Task
) -> None:
    registry = MemoryRegistry()
    folder = killed_run(registry, tmp_path)
    other = registry.begin_run("trial", {}, {})
    where = tmp_path / "elsewhere" / "runs" / other
    (folder / "alive.lock").touch()
    before = bytes_of(folder)
    with (
        RunLease(registry, "m", other, where, "bob", clock, four_eyes=False),
        pytest.raises(LeaseHeld, match=f"run {other} of bob heals 'm'"),
    ):
        task(registry, folder)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("task", [resumes, flushes])
def test_a_registry_that_was_put_back_is_known_again_and_nothing_is_written(
    quick: None, workdir: Path, task: Task
) -> None:
    folder = killed_run(MlflowRegistry(), Path("mlruns/selfheal"))
    shutil.copy("mlflow.db", "yesterday.db")
    flushes(MlflowRegistry(), folder)
    shutil.copy("yesterday.db", "mlflow.db")
    registry = MlflowRegistry()
    entries = list(registry.entries("m"))
    with pytest.raises(RegistryRestored, match="it was restored from an earlier state"):
        task(registry, folder)
    assert list(registry.entries("m")) == entries
    assert registry.alias("m", CHAMPION) is None


@pytest.mark.parametrize("back_to", ["before its lease", "after its lease", "another run's"])
def test_a_live_run_knows_a_registry_that_was_put_back(tmp_path: Path, back_to: str) -> None:
    registry = MemoryRegistry()
    run_id = registry.begin_run("trial", {}, {})
    version = registry.add_foreign("m")
    move_alias(registry, Move("m", CHAMPION, version, "ann", AT, "first"))
    folder = tmp_path / "runs" / run_id
    with RunLease(registry, "m", run_id, folder, "ann", clock, four_eyes=False) as lease:
        move_alias(registry, Move("m", "canary", version, "ann", AT, "later"))
        lease.require()
        journal = registry._journals["m"]
        kept = {"before its lease": 1, "after its lease": 2, "another run's": 1}[back_to]
        del journal[kept:]
        if back_to == "another run's":  # which wrote as many entries as there had been
            take_lease(registry, "m", BOBS, four_eyes=False, alive=lambda _: "")
            move_alias(registry, Move("m", "canary", version, "bob", AT, "other"))
        with pytest.raises(RegistryRestored, match="restored from an earlier state"):
            lease.require()
    held = standing(registry, "m").lease
    assert held == (None if back_to != "another run's" else replace(BOBS, sequence=2))
