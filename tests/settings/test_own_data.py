"""What holds on own data, and how settings follow another recipe."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal_cli.config import HealSettings
from selfheal_cli.settings.own_data import healing, with_recipe


def own(recipe: Any, **said: Any) -> HealSettings:
    return HealSettings(**{**healing(recipe), "recipe": recipe, **said})


@pytest.mark.parametrize(("before", "after"), [("anchored", "ensemble"), ("ensemble", "anchored")])
def test_another_recipe_has_its_own_settings(before: str, after: str) -> None:
    trees = {"trees": healing(after)["trees"]}
    assert with_recipe(own(before), after).model_copy(update=trees) == own(after)


def test_what_was_said_stays() -> None:
    heal = with_recipe(own("anchored", window=40), "ensemble")
    assert (heal.window, heal.charged) == (40, healing("ensemble")["charged"])
    assert with_recipe(own("ensemble", held_out=0.3), "anchored").held_out == 0.3


def test_the_same_recipe_changes_nothing() -> None:
    assert with_recipe(own("ensemble"), "ensemble") == own("ensemble")
