"""A run goes back only to what it wrote down itself, whatever the registry says by then."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from selfheal_cli.audit.checks import audit_model
from selfheal_cli.audit.finding import Audit
from selfheal_cli.config import HealSettings, LabelSettings, Policy
from selfheal_cli.errors import VersionNotFound
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RolledBack, VersionRegistered
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.scores import Scores
from selfheal_cli.workspace import WORKSPACE
from tests.pipeline.small import stream_of
from tests.pipeline.test_run import config

RAISED = Scores(tp=9_000, tn=9_000, fp=1, fn=1)


class Edited:
    """Raises the F1 of the first post-heal version, from outside, once it is registered."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self.registry = registry
        self.version = 0
        self.rollbacks: list[Event] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, RolledBack):
            self.rollbacks.append(event)
        if not isinstance(event, VersionRegistered) or self.version:
            return
        version = self.registry.version("fraud", event.version)
        if version.phase.value == "post-heal":
            self.version = version.version
            lineage = Lineage("fraud", version.run_id, version.base, "article", "full", "1")
            self.registry.score_version(lineage, version.version, 1, RAISED.figures(), RAISED)

    def stop(self) -> bool:
        return bool(self.rollbacks)


def test_a_run_passes_over_a_version_whose_figures_were_edited_and_says_so(
    empty_dir: Path,
) -> None:
    registry = MemoryRegistry()
    edited = Edited(registry)
    policy = Policy(conflict_min=1, rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    settings = config(policy=policy, batches=14)
    around = RunContext(registry, lambda: datetime.now(UTC), "ann", watchers=[edited.on_event])
    stopping = RunContext(
        registry, lambda: datetime.now(UTC), "ann", watchers=[edited.on_event], stop=edited.stop
    )
    stopped = run(settings, stream_of(settings), stopping)
    (rollback,) = edited.rollbacks
    best = next(registry.ranked("fraud", base=registry.version("fraud", 1).base))
    assert best.version == edited.version != rollback.version
    (told,) = rollback.passed_over
    assert told.startswith(f"v{edited.version} was passed over: tag selfheal.counts is")
    again = resume(stopped.folder / "events.jsonl", around, stream_of)
    assert again.outcome == "FINISHED"
    events = list(read(again.folder / "events.jsonl"))
    assert all(edited.version != one.version for one in events if isinstance(one, RolledBack))


def test_the_log_of_a_run_has_the_hash_of_each_versions_manifest(empty_dir: Path) -> None:
    from selfheal_cli.records import digest
    from selfheal_cli.registry.manifest import MANIFEST_FILE

    registry = MemoryRegistry()
    settings = config(batches=3)
    done = run(
        settings, stream_of(settings), RunContext(registry, lambda: datetime.now(UTC), "ann")
    )
    registered = [
        event.as_dict()
        for event in read(done.folder / "events.jsonl")
        if isinstance(event, VersionRegistered)
    ]
    assert len(registered) == len(registry.numbers("fraud")) > 1
    for data in registered:
        stored = registry.stored(registry.version("fraud", data["version"]))
        assert data["manifest"] == digest(stored.files[MANIFEST_FILE])


@pytest.mark.parametrize("recipe", ["article", "anchored"])
def test_an_audit_beside_a_live_run_accuses_nobody_at_any_moment(
    empty_dir: Path, recipe: str
) -> None:
    registry = MemoryRegistry()
    looks: list[Audit] = []

    def look(event: Event) -> None:
        if event.sequence > 2:  # before, the model has no version and no name
            with suppress(VersionNotFound):
                looks.append(audit_model(registry, "fraud", WORKSPACE, alive=lambda _: True)[0])

    late = LabelSettings(regime="delayed", delay=2) if recipe == "anchored" else LabelSettings()
    settings = config(batches=4, heal=HealSettings(recipe=recipe), labels=late)
    around = RunContext(registry, lambda: datetime.now(UTC), "ann", watchers=[look])
    run(settings, stream_of(settings), around)
    assert len(looks) > 10
    assert [one.findings for one in looks if one.findings] == []
    assert any("is under way" in note.problem for one in looks for note in one.notes)
    after, _ = audit_model(registry, "fraud", WORKSPACE)
    assert (after.findings, after.notes) == ([], [])
