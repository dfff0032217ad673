"""Help that a person can start from: an example for each command, and a name for what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from selfheal_cli.cli.examples import EXAMPLES, MEANT
from selfheal_cli.cli.main import main
from tests.conftest import Invoke


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


def test_every_command_has_an_example_and_no_other_is_told() -> None:
    assert set(EXAMPLES) == set(commands())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_of_its_command_and_has_options_that_there_are(
    name: str, invoke: Invoke
) -> None:
    example = EXAMPLES[name]
    assert example.startswith(f"selfheal {name}")
    told = invoke(*name.split(), "--help").stdout
    assert example in " ".join(told.split())
    assert set(re.findall(r"--[a-z-]+", example)) <= set(re.findall(r"--[a-z-]+", told))


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_a_word_for_a_command_of_another_name_is_told_that_name(
    typed: str, meant: str, invoke: Invoke
) -> None:
    done = invoke(typed, expect=2)
    assert f"Did you mean '{meant}'?" in done.stderr
