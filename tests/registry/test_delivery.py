"""What reaches the registry of a run that was stopped and goes on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal_cli.errors import ConflictError
from selfheal_cli.registry.base import CHAMPION, Lineage, StepMetrics
from selfheal_cli.registry.delivery import _proposed as deliver_proposal
from selfheal_cli.registry.journal import EntryKind, Proposal, standing
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.orders import CLEAN, REBUILT, approve_first, propose, reject
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from tests.rollback.test_prune import AT, filled


def send(registry: MemoryRegistry, run_id: str, path: Path, batches: int) -> None:
    """Go through so many batches, as a run from its beginning or once more."""
    writer = RegistryWriter(
        registry, Lineage("m", run_id, "", "article", "full", "1"), Outbox(path)
    )
    for batch in range(1, batches + 1):
        writer.log_metrics(StepMetrics(batch, {"f1": batch / 10}, 1_000 * batch))
    writer.send_steps()
    writer.flush(0.0)
    writer.close()


def test_figures_of_batches_after_the_stop_are_sent_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    registry = MemoryRegistry()
    run_id = registry.begin_run("trial", {}, {})
    for batches in (2, 3):
        send(registry, run_id, tmp_path / "outbox.db", batches)
    assert [step.batch for step in registry.metrics[run_id]] == [1, 2, 3]


def test_what_a_rebuilt_heal_proposes_takes_the_place_of_the_clean_version_that_waits() -> None:
    registry = filled(MemoryRegistry())
    after = standing(registry, "m").moves[CHAMPION].sequence
    clean = Proposal(
        2, "0" * 64, "ann", AT, f"{CLEAN}: by hand", after, snapshot="s2", expires="9999"
    )
    first = propose(registry, "m", clean)
    heal = replace(clean, target=3, snapshot="s3", reason="heal h1: drift")
    with pytest.raises(ConflictError, match="is open until"):
        deliver_proposal(registry, "m", heal)
    rebuilt = replace(heal, reason=f"heal h1: {REBUILT}; 4.0% of decisions change")
    made = deliver_proposal(registry, "m", rebuilt)
    assert standing(registry, "m").proposals == (made,)
    last = list(registry.entries("m"))[-1]
    assert (last.kind, last.data["proposal"]) == (EntryKind.REJECTED, first.sequence)
    assert "has learned more" in last.data["reason"]


def test_a_later_heal_takes_the_place_of_one_that_nobody_approved_ever_more_rarely() -> None:
    registry = filled(MemoryRegistry())
    after = standing(registry, "m").moves[CHAMPION].sequence
    heal = Proposal(2, "0" * 64, "ann", AT, "heal", after, expires="9999")
    stood = []
    for batch in (7, 9, 10, 12, 16, 21, 30, 35):
        wanted = replace(heal, batch=batch, snapshot=f"run-s{batch}")
        with suppress(ConflictError):
            deliver_proposal(registry, "m", wanted)
        (waiting,) = standing(registry, "m").proposals
        stood.append(waiting.batch)
    assert stood == [7, 9, 9, 12, 12, 21, 21, 35]
    approve_first(registry, "m", waiting.sequence, actor="ann", at=AT, reason="")
    much_later = replace(heal, batch=900, snapshot="run-s900")
    with pytest.raises(ConflictError, match="is open until"):
        deliver_proposal(registry, "m", much_later)
    reject(registry, "m", waiting.sequence, actor="bob", at=AT, reason="no")
    assert deliver_proposal(registry, "m", replace(much_later, batch=902)).first == 902
    another = deliver_proposal(registry, "m", replace(heal, batch=3, snapshot="later-s3"))
    assert standing(registry, "m").proposals == (another,)
