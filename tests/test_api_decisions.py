"""What a program decides of its model's heals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from selfheal_cli.api.deciding import HealDecisions
from selfheal_cli.errors import ConfigurationError, RegistryError
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.rollback import plan
from selfheal_cli.rollback.trust import Unverified
from tests.rollback.test_prune import filled
from tests.serve.test_decisions import proposed


class Model(HealDecisions):
    """The part of a program's model that decides."""

    name = "m"

    def __init__(self, registry: MemoryRegistry) -> None:
        self.replica = SimpleNamespace(registry=registry)

    def _here(self) -> Any:
        return self.replica


def test_a_program_sets_the_mode_and_decides_on_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ByTheLog", lambda _: Unverified())  # there are no logs
    registry = filled(MemoryRegistry())
    model = Model(registry)
    assert model.mode == "auto"
    model.set_mode("recommend", "looked at a week")
    assert model.mode == "recommend"
    with pytest.raises(ConfigurationError, match="auto, recommend, shadow, off are known"):
        model.set_mode(cast("Any", "fast"))
    first = proposed(registry, 3).sequence
    assert [one.sequence for one in model.proposals] == [first]
    model.reject(first)
    assert model.proposals == ()
    second = proposed(registry, 5).sequence
    assert (model.approve(second), registry.alias("m", CHAMPION)) == (5, 5)
    with pytest.raises(RegistryError, match="no open proposal"):
        model.approve(second)
