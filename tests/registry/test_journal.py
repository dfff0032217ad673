"""The journal's entries and pages: what each holds, how long it may be, what 0.1.0 wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import RegistryError
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import (
    GENESIS,
    MAX_ENTRY,
    Entry,
    EntryKind,
    Hold,
    JournalState,
    Lease,
    ModeOrder,
    Proposal,
    fold,
    parse_entry,
    standing,
    write,
)
from selfheal_cli.registry.lease import release_lease, take_lease
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.journal import CHECKPOINT, ENTRIES_A_RUN
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.orders import hold, propose, reject
from tests.registry.chains import check_chain

AT = "2026-01-01T00:00:00.000+00:00"
WHO = {"actor": "ann", "at": AT}
OLD = (  # as 0.1.0 stored it
    '{"actor":"ann","at":"2026-01-01T00:00:00.000+00:00","data":{"actor":"ann","alias":"champion",'
    '"at":"2026-01-01T00:00:00.000+00:00","key":"","model":"m","proposal":null,"reason":"é",'
    '"run":"","sequence":1,"source":null,"target":3},"kind":"alias-moved","nonce":"n","previous":"'
    + GENESIS
    + '","sequence":1,"standing":{"four_eyes":false,"hold":null,"lease":{"holder":"bob",'
    '"run":"r","sequence":1,"since":"t"},"moves":{"champion":{"actor":"ann","alias":"champion",'
    '"at":"2026-01-01T00:00:00.000+00:00","key":"","model":"m","proposal":null,"reason":"é",'
    '"run":"","sequence":1,"source":null,"target":3}},"proposals":[]}}'
)


def moved(registry: Registry, alias: str, target: int) -> Entry:
    """A move in the journal; no version need be there."""

    def draft(before: JournalState, sequence: int) -> dict[str, object]:
        return AliasMove("m", alias, None, target, "ann", AT, "why", sequence).as_dict()

    return write(registry, "m", EntryKind.MOVED, draft, **WHO)


def test_an_entry_of_0_1_0_keeps_its_bytes_and_what_stood_after_it() -> None:
    entry = parse_entry(OLD, "here", JournalState())
    assert entry.as_text() == OLD
    assert entry.standing.moves[CHAMPION].target == 3
    assert entry.standing.lease == Lease("r", "bob", "t", 1)


def test_a_journal_that_0_1_0_began_goes_on_with_entries_of_their_own_move_only(
    workdir: Path,
) -> None:
    registry = MlflowRegistry()
    old = parse_entry(OLD, "here", JournalState())
    assert registry.put_entry("m", old)
    moved(registry, "shadow", 4)
    fresh = MlflowRegistry()
    last = fresh.last_entry("m")
    assert last is not None
    assert "standing" not in json.loads(last.as_text())
    assert {alias: move.target for alias, move in last.standing.moves.items()} == {
        "champion": 3,
        "shadow": 4,
    }
    assert last.standing.lease == Lease("r", "bob", "t", 1)
    assert check_chain(fresh, "m") == 2


def test_a_page_that_0_1_0_turned_without_a_checkpoint_is_read_from_the_start(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.registry.mlflow.journal.ENTRIES_A_RUN", 2)
    with monkeypatch.context() as old:
        old.setattr(MlflowRegistry, "_write_checkpoint", lambda *_: None)
        registry = MlflowRegistry()
        for number in (1, 2, 3):
            moved(registry, f"a{number}", number)
    assert sorted(standing(MlflowRegistry(), "m").moves) == ["a1", "a2", "a3"]
    moved(registry, "a4", 4)
    moved(registry, "a5", 5)
    assert len(standing(MlflowRegistry(), "m").moves) == 5


def test_what_stands_is_read_from_one_page_whatever_came_before(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.registry.mlflow.journal.ENTRIES_A_RUN", 10)
    registry = MlflowRegistry()
    for number in range(45):
        moved(registry, f"a{number}", number + 1)
    fresh = MlflowRegistry()
    reads = []
    get_run = fresh._client.get_run
    monkeypatch.setattr(
        fresh._client, "get_run", lambda run_id: reads.append(run_id) or get_run(run_id)
    )
    assert standing(fresh, "m") == standing(registry, "m")
    assert len(standing(fresh, "m").moves) == 45
    assert len(reads) == 2  # one for each question
    assert check_chain(fresh, "m") == 45


def test_a_thousand_aliases_of_one_model_are_a_checkpoint_in_many_parts(workdir: Path) -> None:
    registry = MlflowRegistry()
    moves = {
        f"alias-{number}": AliasMove("m", f"alias-{number}", None, 1, "ann", AT, "why", number)
        for number in range(1_000)
    }
    stands = JournalState(moves, Lease("r", "ann", AT, 7), four_eyes=True)
    moved(registry, CHAMPION, 1)
    place = registry._places["m"]
    run_id = registry._new_run("m", 2)
    registry._write_checkpoint(run_id, stands)
    page = registry._page(run_id)
    assert page.begins("m") == stands
    assert len(page._parts) > 30
    registry._put(place.run_id, "next", run_id)
    place.run_id = run_id
    entry = Entry(2, EntryKind.RESUMED, AT, "ann", {}, stands, GENESIS, "n")
    assert registry.put_entry("m", entry)
    assert standing(MlflowRegistry(), "m") == replace(stands, hold=None)


def test_modes_proposals_of_heals_and_pauses_stand_in_a_checkpoint() -> None:
    stands = JournalState(
        hold=Hold("run", AT, "paused: worse", "r"),
        proposals=(Proposal(3, "0", "run", AT, "heal h1", 2, 4, snapshot="s", expires="9"),),
        mode=ModeOrder("shadow", "ann", AT, "first week", "auto", 5),
    )
    assert JournalState.from_dict(json.loads(json.dumps(stands.as_dict()))) == stands
    older = {name: value for name, value in stands.as_dict().items() if name != "mode"}
    assert JournalState.from_dict(older).mode is None


def test_a_checkpoint_that_was_edited_is_told(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine, text

    monkeypatch.setattr("selfheal_cli.registry.mlflow.journal.ENTRIES_A_RUN", 2)
    registry = MlflowRegistry()
    for number in (1, 2, 3):
        moved(registry, CHAMPION, number)
    engine = create_engine("sqlite:///mlflow.db")
    with engine.begin() as database:
        statement = "UPDATE params SET value = replace(value, :old, :new) WHERE key LIKE :key"
        values = {"old": '"target":2', "new": '"target":9', "key": f"{CHECKPOINT}%"}
        assert database.execute(text(statement), values).rowcount == 1
    engine.dispose()
    with pytest.raises(RegistryError, match="its checkpoint is not what the entries before it say"):
        list(MlflowRegistry().entries("m"))


def test_an_entry_that_is_too_long_says_which_and_how_long() -> None:
    registry = MemoryRegistry()
    with pytest.raises(RegistryError, match=rf"entry 1 \(healing-held\) has \d+ char.*{MAX_ENTRY}"):
        hold(registry, "m", Hold("a" * MAX_ENTRY, AT, "x"), **WHO)
    assert registry.last_entry("m") is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["move", "lease", "release", "hold", "allow", "propose", "reject"]),
              st.integers(1, 3), st.text(max_size=20)),
    max_size=40,
)  # fmt: skip


@given(STEPS)
def test_what_stands_is_the_same_from_texts_as_it_was_when_they_were_written(
    steps: list[tuple[str, int, str]],
) -> None:
    registry = MemoryRegistry()
    for step, number, words in steps:
        now = standing(registry, "m")
        if step == "move":
            moved(registry, f"a{number}", number)
        elif step == "lease":
            lease = Lease(f"run{number}", words, AT)
            take_lease(registry, "m", lease, four_eyes=number > 1, alive=lambda _: "")
        elif step == "release" and now.lease is not None:
            release_lease(registry, "m", replace(now.lease, sequence=now.lease.sequence), AT)
        elif step in ("hold", "allow"):
            hold(registry, "m", Hold(words, AT, words) if step == "hold" else None, **WHO)
        elif step == "propose" and len(now.proposals) < 5:
            propose(registry, "m", Proposal(number, "sha", words, AT, words, after=0))
        elif step == "reject" and now.proposals:
            reject(registry, "m", now.proposals[0].sequence, **WHO, reason=words)
    before = JournalState()
    for entry in registry.entries("m"):
        again = parse_entry(entry.as_text(), "here", before)
        assert (again, again.digest) == (entry, entry.digest)
        before = fold(before, entry.kind, entry.data)
        assert before == entry.standing
    assert JournalState.from_dict(json.loads(json.dumps(before.as_dict()))) == before


def test_a_run_holds_as_many_entries_as_ever() -> None:
    assert ENTRIES_A_RUN == 100  # pages that 0.1.0 began are gone on with
