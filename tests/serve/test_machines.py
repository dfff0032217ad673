"""A model that several machines heal by turns on one log: each goes on where the other was, and who
lost the lease writes nothing more, wherever it was stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.audit.checks import audit_model
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import BatchScored, HealPublished, LabelsArrived, RowsTaken
from selfheal_cli.pipeline.runs.serving import ServingOptions, open_served
from selfheal_cli.registry.journal import standing
from selfheal_cli.serve.healer import healing
from selfheal_cli.serve.healer.healing import HealerContext, ModelHealer, run_elsewhere
from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.spool.entries import Cursor
from selfheal_cli.spool.source import Pace
from tests.pipeline.conftest import begun
from tests.pipeline.test_served import Server, clock
from tests.spool.conftest import Place, in_postgres, log_database, log_uri, model

__all__ = ["begun", "in_postgres", "log_database", "log_uri", "model"]  # fixtures
See = Callable[[Event], None]


class Machine:
    """A healer with a folder of its own, which heals on what is there and stops."""

    def __init__(
        self, name: str, server: Server, place: Place, see: See = lambda event: None
    ) -> None:
        self.workspace = Path(name) / "mlruns" / "selfheal"
        self.said: list[str] = []
        self.spool, self.channel = place.spool(), place.channel()
        elsewhere = partial(run_elsewhere, self.channel)
        wanted = ServingOptions("fraud", {}, None, self.workspace, elsewhere)
        pace = Pace(100, 1e9, lambda: 0.0, lambda seconds: True)
        around = HealerContext(
            "fraud", name, self.workspace, server.registry, self.spool, self.channel,
            threading.Event(), self.said.append, see,
        )  # fmt: skip
        self.healer = ModelHealer(
            around, lambda: open_served(server.registry, wanted, self.spool, pace)
        )

    def heal(self) -> None:
        self.healer.look()
        self.healer.give_up_turn()

    def events(self, *kinds: type[Event]) -> list[Any]:
        logs = sorted(self.workspace.glob("runs/*/events.jsonl"))
        return [event for log in logs for event in read(log) if isinstance(event, kinds)]

    @property
    def run(self) -> str:
        (log,) = self.workspace.glob("runs/*/events.jsonl")
        return log.parent.name


@pytest.fixture
def server(begun: tuple[Server, Path], empty_dir: Path, in_postgres: Place) -> Iterator[Server]:
    """A registry, and a log in PostgreSQL that requests are answered into."""
    server = Server.again(*begun, empty_dir)
    server.spool = in_postgres.spool()
    yield server


def audited(server: Server, *machines: Machine) -> list[str]:
    """What does not hold in one history from their logs."""
    first, *others = (machine.workspace for machine in machines)
    audit, _ = audit_model(server.registry, "fraud", first, others=others)
    return [str(one) for one in audit.findings]


def test_another_machine_goes_on_where_the_first_one_was(
    server: Server, in_postgres: Place
) -> None:
    one, other = (Machine(name, server, in_postgres) for name in ("one", "other"))
    server.answer(3)
    server.label(list(server.truth))
    one.heal()
    server.answer(2)
    server.label([name for name in server.truth if int(name[1:]) >= 12])
    other.heal()
    assert one.healer.error is None and other.healer.error is None
    assert [event.rows for event in one.events(BatchScored)] == [100] * 3
    assert [event.rows for event in other.events(BatchScored)] == [100] * 2
    learned = sum(event.rows for event in one.events(LabelsArrived) + other.events(LabelsArrived))
    assert learned == 500
    begun = [Cursor(**event.offsets) for event in other.events(RowsTaken)]
    assert begun[0].is_beyond(Cursor(**one.events(RowsTaken)[-1].offsets))


@pytest.mark.parametrize("stop", [RowsTaken, BatchScored, HealPublished])
def test_who_lost_the_lease_while_it_stood_still_writes_nothing_more(
    server: Server, in_postgres: Place, stop: type[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Machine("other", server, in_postgres)
    after: dict[str, Any] = {}

    def stand_still(event: Event) -> None:
        if not isinstance(event, stop) or after or getattr(event, "batch", 0) < 2:
            return
        with monkeypatch.context() as later:
            later.setattr(healing, "clock", lambda: clock() + timedelta(seconds=90))
            other.channel.take_turn(one.healer._holder, -1.0)  # nobody renews it
            after["lease"] = standing(server.registry, "fraud").lease
            other.heal()
        after["entries"] = len(list(server.registry.entries("fraud")))
        after["published"] = other.channel.published()
        after["committed"] = other.spool.committed("", 0)
        after["said"] = other.channel.status(HEALER)

    one = Machine("one", server, in_postgres, stand_still)
    server.answer(3)
    server.label(list(server.truth))
    one.heal()
    lost = one.run
    assert other.healer.error is None, other.healer.error
    assert after["committed"][1] == other.run
    assert [event.rows for event in other.events(BatchScored)][-1:] == [100]
    later = list(server.registry.entries("fraud"))[after["entries"] :]
    assert [entry for entry in later if entry.data.get("run") == one.run] == []
    assert one.channel.published() == after["published"]
    assert one.spool.committed("", 0) == after["committed"]
    assert one.healer.finished is None
    # what it had written down before is told of once it heals again, and is not missed until then
    assert audited(server, one, other) == []
    with monkeypatch.context() as later:
        later.setattr(healing, "clock", lambda: clock() + timedelta(seconds=180))
        other.channel.take_turn(other.healer._holder, -1.0)
        one.heal()
    assert one.healer.error is None, one.healer.error
    assert server.registry.run_status(lost) == "FAILED"
    assert audited(server, one, other) == []


def test_of_two_processes_one_asks_the_registry(server: Server, in_postgres: Place) -> None:
    one, other = (Machine(name, server, in_postgres) for name in ("one", "other"))
    assert (one.healer.has_turn(), other.healer.has_turn()) == (True, False)
    asked = server.registry.entries
    server.registry.entries = None  # type: ignore[assignment, method-assign]
    other.healer.look()
    server.registry.entries = asked  # type: ignore[method-assign]
    one.healer.give_up_turn()
    assert (other.healer.has_turn(), one.healer.has_turn()) == (True, False)


def test_a_lease_of_a_registry_that_counts_anew_is_not_taken_for_an_old_one(
    server: Server, in_postgres: Place
) -> None:
    one = Machine("one", server, in_postgres)
    one.spool.set_fence(one.spool.fence(), 10_000)
    server.answer(1)
    one.heal()
    assert one.healer.error is None
    assert [event.rows for event in one.events(BatchScored)] == [100]
