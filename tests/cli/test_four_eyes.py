"""Two people for a move of the champion: a rule of the model, loosened only by two people."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from selfheal_cli.actor import actor, same_person
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.orders import set_four_eyes
from selfheal_cli.rollback import plan
from selfheal_cli.rollback.trust import Unverified
from selfheal_cli.serve.healer.commands import carry_out
from tests.conftest import Invoke
from tests.rollback.test_prune import AT, filled


def test_the_rule_is_the_models_and_is_loosened_by_two_people(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_ACTOR", "ann")
    assert "takes one person" in invoke("four-eyes").stdout
    assert "two people from now on" in invoke("four-eyes", "--on", "--reason", "audit").stdout
    refused = invoke("rollback", "--to-best", "--yes", "--policy", "default", expect=4).stderr
    assert "wants two people" in refused
    said = invoke("four-eyes", "--off", "--reason", "too slow").stdout
    number = re.findall(r"Proposal (\d+)", said)[0]
    assert f"{number}: one person is enough by ann (claimed)" in invoke("champion").stdout
    assert "ann (claimed)'s own" in invoke("approve", number, "--yes", expect=4).stderr
    assert "takes two people" in invoke("four-eyes").stdout

    monkeypatch.setenv("SELFHEAL_ACTOR", "bob")
    assert "takes one person" in invoke("approve", number, "--yes").stdout
    invoke("rollback", "--to-best", "--yes")
    assert MlflowRegistry().alias("fraud", CHAMPION) == 5
    told = json.loads(invoke("history", "--json").stdout)
    reasons = [(one["actor"], one["reason"]) for one in told if one["kind"] == "four-eyes"]
    assert reasons == [
        ("ann (claimed)", "two people: audit"),
        ("bob (claimed)", "one person: too slow (proposed by ann (claimed))"),
    ]
    assert "Everything holds" in invoke("audit").stdout


def test_an_operator_alone_moves_nothing_behind_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ByTheLog", lambda _: Unverified())  # there are no logs
    registry = filled(MemoryRegistry())
    set_four_eyes(registry, "m", on=True, actor="ann", at=AT, reason="audit")
    shown = carry_out(registry, "m", "plan", {"to": 3})["plan"]
    order = {"to": 3, "digest": shown["digest"], "actor": "bob (claimed)"}
    refused = carry_out(registry, "m", "rollback", order)
    assert (refused["ok"], "wants two people" in refused["error"]) == (False, True)
    assert registry.alias("m", CHAMPION) == 7


def test_who_names_himself_is_shown_as_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHEAL_ACTOR", "alice\x1b[2J")
    assert actor() == "alice[2J (claimed)"
    monkeypatch.setenv("SELFHEAL_ACTOR", "root@here (claimed)")
    assert actor() == "root@here (claimed) (claimed)"
    monkeypatch.delenv("SELFHEAL_ACTOR")
    known = actor()
    monkeypatch.setenv("USER", "bob")
    monkeypatch.setenv("LOGNAME", "bob")
    assert actor() == known  # of the account, and not of what it calls itself
    assert "(claimed)" not in known


def test_one_name_is_one_person_however_it_is_written() -> None:
    assert same_person("alice", "Alice (claimed)")
    assert not same_person("alice", "bob (claimed)")
