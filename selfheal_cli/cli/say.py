"""Lines that a command says: whatever is in them stays on its line and moves nothing."""

from __future__ import annotations

import click

from selfheal_cli.visible import visible


def say(*lines: str, err: bool = False) -> None:
    """Each on a line of its own, on standard output or error."""
    for line in lines:
        click.echo(visible(line), err=err)
