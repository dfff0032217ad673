"""A served model: healed on what was answered, from the champion on, over restarts and kills."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.audit.checks import audit_model
from selfheal_cli.config import HealSettings, ServedSettings
from selfheal_cli.errors import ConfigurationError, NoCandidateError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import EventLog, read
from selfheal_cli.events.types import (
    BatchScored,
    ChampionFollowed,
    HealingHeld,
    HealingReleased,
    HealLearned,
    HealPublished,
    HealRejected,
    HealWithheld,
    LabelsArrived,
    RowsTaken,
    RunStarted,
    SnapshotTaken,
)
from selfheal_cli.labels.queue import Scored
from selfheal_cli.model.checkpoint import assemble, unpack
from selfheal_cli.pipeline.runs.recovery import Beginning, settle_earlier, where_to_begin
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.pipeline.runs.serving import ServedRun, ServingOptions, heal_served, open_served
from selfheal_cli.pipeline.stream import champion as follow
from selfheal_cli.pipeline.stream.batch import LabelFlow
from selfheal_cli.records import Batch
from selfheal_cli.registry.base import BASELINE, CHAMPION
from selfheal_cli.registry.journal import EntryKind, standing
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.settings import own_data
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.spool.entries import Feedback, LoggedRequest
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Spool
from tests.pipeline.small import config, stream_of

WORKSPACE = Path("mlruns") / "selfheal"
REQUEST = 25  # rows


def clock() -> datetime:
    return datetime.now(UTC)


class Server:
    """A registry with a model from a run, and a spool that requests are answered into."""

    def __init__(self, **changes: Any) -> None:
        self.config = config(**changes)
        self.registry = MemoryRegistry()
        run(self.config, stream_of(self.config), RunContext(self.registry, clock, "ann"))
        self.spool = Spool(WORKSPACE / "serving" / "fraud" / "spool.db")
        drawn = self.config.model_copy(update={"batches": 40, "seed": 7})
        self._batches: Iterator[Batch] = stream_of(drawn).batches()
        self.truth: dict[str, list[int]] = {}
        self.time = 0.0  # of the server, in seconds

    @classmethod
    def again(cls, before: Server, folder: Path, into: Path) -> Self:
        """Another with the model of one that was begun in a folder, and what it answered."""
        shutil.copytree(folder, into, dirs_exist_ok=True)
        server = object.__new__(cls)
        server.config, server.registry = before.config, deepcopy(before.registry)
        server.spool = Spool(WORKSPACE / "serving" / "fraud" / "spool.db")
        drawn = before.config.model_copy(update={"batches": 40, "seed": 7})
        gone = len(before.truth) * REQUEST // 100
        server._batches = islice(stream_of(drawn).batches(), gone, None)
        server.truth, server.time = dict(before.truth), before.time
        return server

    def champion(self) -> Any:
        number = self.registry.alias("fraud", CHAMPION)
        assert number is not None
        return self.registry.version("fraud", number)

    def answer(self, batches: int, p: float | None = None) -> None:
        """Requests with fresh rows, answered by the champion, or with one probability."""
        version = self.champion()
        base = self.registry.base(version.base)
        adapter = unpack(self.registry.adapter(version), sha256=version.sha256, where="stored")
        network = assemble(base, adapter, where="stored")
        encoding = Encoding.model_validate(base.describe()["encoding"])
        for _ in range(batches):
            batch = next(self._batches)
            for at in range(0, len(batch.rows), REQUEST):
                part = slice(at, at + REQUEST)
                columns = {name: v[part] for name, v in batch.rows.columns.items()}
                probabilities = network.predict(encoding.encode(columns))
                probabilities = probabilities if p is None else np.full_like(probabilities, p)
                request = f"r{len(self.truth)}"
                self.truth[request] = batch.rows.y[part].tolist()
                columns |= self.sent(batch.rows.y[part])
                snapshot = version.tags["selfheal.snapshot"]
                one = LoggedRequest(
                    request, columns, probabilities, snapshot, version.threshold, self.time
                )
                self.spool.append([one])

    def sent(self, y: Any) -> dict[str, Any]:
        """What callers send of these rows beside what the champion reads."""
        return {}

    def label(self, requests: list[str]) -> None:
        for request in requests:
            self.spool.label(
                [Feedback(y, request=request, place=i) for i, y in enumerate(self.truth[request])]
            )

    def open(self, **overrides: Any) -> ServedRun:
        pace = Pace(100, 1e9, lambda: 0.0, lambda seconds: True)
        return open_served(
            self.registry, ServingOptions("fraud", overrides, None, WORKSPACE), self.spool, pace
        )

    def serve(
        self,
        served: ServedRun | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Finished:
        """Heal on all that was answered by now."""
        around = RunContext(
            self.registry, clock, "ann", watchers=[on_event], follow_seconds=0,
            workspace=WORKSPACE,
        )  # fmt: skip
        source = served or self.open()
        return heal_served(source, self.registry, around, lambda lease: self.beginning().cursor)

    def beginning(self) -> Beginning:
        return where_to_begin("fraud", WORKSPACE, self.spool)

    def holds(self) -> None:
        audit, _ = audit_model(self.registry, "fraud", WORKSPACE)
        assert audit.findings == []


def events_of(done: Finished, *kinds: type[Event]) -> list[Event]:
    return [
        one for one in read(done.folder / "events.jsonl") if not kinds or isinstance(one, kinds)
    ]


def test_a_served_champion_heals_on_and_takes_no_baseline_of_its_own(server: Server) -> None:
    before = server.champion()
    server.answer(6)
    server.label(list(server.truth))
    done = server.serve()
    (followed,) = events_of(done, ChampionFollowed)
    assert (followed.batch, followed.version) == (0, before.version)
    assert followed.to_snapshot == before.tags["selfheal.snapshot"]
    snapshots = events_of(done, SnapshotTaken)
    assert {one.phase for one in snapshots} <= {"pre-heal", "post-heal", "rejected"}
    assert snapshots[0].parent == before.tags["selfheal.snapshot"]
    assert events_of(done, HealPublished)
    after = server.champion()
    assert after.version > before.version
    assert after.base == before.base
    assert server.registry.version("fraud", int(after.tags["selfheal.parent"])).base == before.base
    server.holds()


def test_the_history_has_the_answers_that_were_given_not_what_would_be_given_now(
    server: Server,
) -> None:
    server.answer(2, p=0.9)
    server.label(list(server.truth))
    labels = events_of(server.serve(), LabelsArrived)
    live = [one["live"] for one in labels]
    positives = sum(map(sum, server.truth.values()))
    assert sum(one["tp"] for one in live) == positives
    assert sum(one["fp"] for one in live) == 200 - positives
    assert sum(one["tn"] + one["fn"] for one in live) == 0
    assert sum(one["shadow"]["tn"] for one in labels) > 0


def test_labels_that_come_after_their_batch_are_joined_by_a_later_one(server: Server) -> None:
    server.answer(3)
    first = server.serve()
    assert [one.rows for one in events_of(first, BatchScored)] == [100, 100, 100]
    assert not events_of(first, LabelsArrived, HealPublished)
    server.label([f"r{one}" for one in range(12)])
    server.answer(1)
    second = server.serve()
    labels = events_of(second, LabelsArrived)
    assert sum(one.rows for one in labels) == 300
    assert [one.batch for one in labels] == [-2, -1, 0]
    assert len(events_of(second, BatchScored)) == 1
    server.holds()


def test_a_restart_reads_no_row_twice_and_learns_again_from_what_was_labelled(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(4)
    server.label(list(server.truth))
    first = server.serve()
    server.answer(2)
    server.label([f"r{one}" for one in range(16, 24)])
    known: list[int] = []
    recall = LabelFlow.recall

    def learn(flow: LabelFlow, scored: Scored) -> None:
        known.append(int((scored.y >= 0).sum()))
        recall(flow, scored)

    monkeypatch.setattr(LabelFlow, "recall", learn)
    second = server.serve()
    assert sum(known) == 400
    batches = [len(events_of(done, BatchScored)) for done in (first, second)]
    assert batches == [4, 2]
    offsets = events_of(second, RowsTaken)[-1].offsets
    assert (offsets["answered"], offsets["place"], offsets["labels"]) == (24, 0, 600)
    assert offsets["spool"] == server.spool.identity()
    server.holds()


def test_a_killed_run_is_ended_by_the_next_and_its_rows_are_not_lost(server: Server) -> None:
    server.answer(4)
    server.label(list(server.truth))

    class Killed(BaseException):
        pass

    def die(event: Event) -> None:
        if isinstance(event, BatchScored) and event.batch == 2:
            raise Killed

    with pytest.raises(Killed):
        server.serve(on_event=die)
    (run_id,) = [one for one, tags in server.registry.runs.items() if "serve" in tags.values()]
    log = WORKSPACE / "runs" / run_id / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert b'"kind":"run-finished"' in b"".join(lines)
    last = next(i for i, line in enumerate(lines) if b'"kind":"run-finished"' in line)
    log.write_bytes(b"".join(lines[:last]) + b'{"half a li')  # as if nobody had ended it
    assert server.registry._journals["fraud"].pop().kind is EntryKind.RELEASED
    server.registry.runs[run_id]["status"] = "RUNNING"
    killed = settle_earlier("fraud", WORKSPACE, server.registry, clock, "bob", 1.0)
    assert killed == [run_id]
    assert server.registry.run_status(run_id) == "KILLED"
    assert settle_earlier("fraud", WORKSPACE, server.registry, clock, "bob", 1.0) == []
    done = server.serve()
    rows = [one.rows for one in read(log) if isinstance(one, BatchScored)]
    rows += [one.rows for one in events_of(done, BatchScored)]
    assert sum(rows) == 400
    server.holds()


def test_another_recipe_begins_with_a_baseline_that_decides_as_the_champion(
    empty_dir: Path,
) -> None:
    server = Server(heal=HealSettings(recipe="gradient"))
    before = server.champion()
    served = server.open(heal={"recipe": "anchored"})
    assert served.baseline is None
    server.answer(3)
    server.label(list(server.truth))
    done = server.serve(served)
    first = events_of(done, SnapshotTaken)[0].as_dict()
    assert first["phase"] == "baseline"
    number = server.registry.alias("fraud", BASELINE)
    assert number is not None
    baseline = server.registry.version("fraud", number)
    rows = server.spool.rows_after(0, 1)[0]
    decided = []
    for version in (before, baseline):
        base = server.registry.base(version.base)
        adapter = unpack(server.registry.adapter(version), sha256=version.sha256, where="x")
        encoding = Encoding.model_validate(base.describe()["encoding"])
        network = assemble(base, adapter, where="x")
        decided.append(network.predict(encoding.encode(rows.columns)))
    np.testing.assert_array_equal(*decided)
    server.holds()


def test_another_recipe_has_the_settings_that_it_has_on_own_data(empty_dir: Path) -> None:
    gradient = HealSettings(recipe="gradient", **own_data.healing("gradient"))
    heal = Server(heal=gradient).open(heal={"recipe": "ensemble"}).config.heal
    assert heal == HealSettings(recipe="ensemble", **own_data.healing("ensemble"))


def test_a_champion_that_an_ensemble_healed_is_healed_on_by_it_also_after_a_restart(
    empty_dir: Path,
) -> None:
    recipe = own_data.healing("ensemble") | {"trees": False}
    server = Server(heal=HealSettings(recipe="ensemble", **recipe))
    base = server.champion().base
    for _ in range(2):
        before = set(server.truth)
        server.answer(2)
        server.label([one for one in server.truth if one not in before])
        done = server.serve()
        assert events_of(done, HealPublished, HealWithheld, HealLearned)
        assert server.champion().base == base
    server.holds()


def test_a_gradient_champion_goes_on_from_its_trained_adapter(empty_dir: Path) -> None:
    server = Server(heal=HealSettings(recipe="gradient"))
    served = server.open()
    assert served.baseline is not None
    assert served.baseline.phase.value == "baseline"
    server.answer(2)
    server.label(list(server.truth))
    done = server.serve(served)
    assert events_of(done, HealPublished, HealRejected)
    assert done.view.finished.base_unchanged
    server.holds()


def test_the_statistics_that_heals_are_held_by_are_those_of_the_base(server: Server) -> None:
    served = server.open()
    base = server.registry.base(server.champion().base)
    assert served.prepared.base.sha256 == base.sha256
    done = server.serve(served)
    assert done.view.finished.base_unchanged


def test_a_model_without_a_champion_says_what_to_do(server: Server) -> None:
    del server.registry._aliases["fraud", CHAMPION]
    with pytest.raises(NoCandidateError, match="no champion; run 'selfheal run'"):
        server.open()


def trained_on(source: dict[str, str], tmp_path: Path) -> None:
    """The log says so of the run that made the champion."""
    (log,) = WORKSPACE.glob("runs/*/events.jsonl")
    events = EventLog(tmp_path / "other.jsonl", clock)
    for event in read(log):
        config = {**event.config, "source": source} if isinstance(event, RunStarted) else {}
        events.append(replace(event, config=config) if config else event)
    events.close()
    (tmp_path / "other.jsonl").replace(log)


@pytest.mark.parametrize("kind", ["ndjson", "folder", "sql", "stdin", "kafka"])
def test_rows_of_whatever_kind_that_can_be_read_again_say_what_is_normal(
    server: Server, tmp_path: Path, kind: str
) -> None:
    rows = next(iter(stream_of(server.config).training()))
    frame = pd.DataFrame({**rows.columns, "y": np.where(rows.y == 1, "fraud", "normal")})
    frame.to_json("rows.jsonl", orient="records", lines=True)
    Path("parts").mkdir()
    frame.to_parquet("parts/1.parquet")
    with closing(sqlite3.connect("rows.db")) as database:
        frame.to_sql("rows", database, index=False)
    where = {
        "ndjson": {"path": "rows.jsonl"},
        "folder": {"path": "parts"},
        "sql": {"url": "sqlite:///rows.db", "query": "SELECT * FROM rows"},
        "stdin": {"train": "parts/1.parquet"},
        "kafka": {"train": "rows.jsonl", "bootstrap": "localhost:1", "topic": "rows"},
    }
    trained_on({"kind": kind, "target": "y", **where[kind]}, tmp_path)
    source = server.open().config.source
    assert isinstance(source, ServedSettings)
    assert source.reference.kind == {"stdin": "table", "kafka": "ndjson"}.get(kind, kind)


def test_a_champion_whose_normal_rows_are_gone_asks_for_a_reference(
    server: Server, tmp_path: Path
) -> None:
    trained_on({"kind": "table", "path": "gone.csv", "target": "y"}, tmp_path)
    with pytest.raises(ConfigurationError, match="--reference FILE --target COLUMN"):
        server.open()


def test_healing_pauses_while_more_rows_wait_than_can_be_looked_at(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"BEHIND": 4, "CAUGHT_UP": 2, "WIDE": 2}.items():
        monkeypatch.setattr(f"selfheal_cli.spool.source.{name}", value)
    server.answer(8)
    server.label(list(server.truth))
    done = server.serve()
    told = events_of(done, HealingHeld, HealingReleased)
    assert [type(one) for one in told] == [HealingHeld, HealingReleased]
    assert "rows or more wait" in told[0]["reason"]
    assert [one.rows for one in events_of(done, BatchScored)] == [200] * 4
    healed = [one.batch for one in events_of(done, HealPublished, HealRejected)]
    assert min(healed) > 1


def test_an_alias_that_a_tool_without_the_journal_moved_is_followed_at_the_second_look(
    server: Server,
) -> None:
    registry = server.registry
    last = standing(registry, "fraud").moves[CHAMPION]
    follower = follow.ChampionWatcher(
        registry, "fraud", "run-9", server.champion().base, last.sequence
    )
    registry.set_alias("fraud", CHAMPION, 1)
    follower.look()
    assert follower.take() is None
    follower.look()
    moved = follower.take()
    assert moved is not None
    assert (moved.move.target, moved.move.actor, moved.error) == (1, "another tool", "")
    follower.look()
    assert follower.take() is None
    registry.set_alias("fraud", CHAMPION, last.target)
    follower.look()
    registry.set_alias("fraud", CHAMPION, 1)
    follower.look()
    follower.look()
    assert follower.take() is not None


def test_a_recipe_that_does_not_fit_the_champions_adapter_is_refused(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="leave --recipe out"):
        server.open(heal={"recipe": "article"})
