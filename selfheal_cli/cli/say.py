"""Lines that a command says: whatever is in them stays on its line and moves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.visible import visible

if TYPE_CHECKING:
    from selfheal_cli.registry.aliases import Unsettled


def say(*lines: str, err: bool = False) -> None:
    """Each on a line of its own, on standard output or error."""
    for line in lines:
        click.echo(visible(line), err=err)


def say_settled(left: Unsettled) -> None:
    """What an interrupted command had left of an alias, and was put right."""
    say(f"Put right first: {left}.", err=True)
