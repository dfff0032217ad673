"""``selfheal reject``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("reject", cls=Command)
@click.argument("proposal", type=click.IntRange(min=1))
@options.reason
@options.model
@options.tracking_uri
def command(proposal: int, reason: str, model_name: str, tracking_uri: str | None) -> None:
    """Close a proposal without carrying it out."""
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import reject

    registry = MlflowRegistry(tracking_uri)
    who = {"actor": actor(), "at": now_text()}
    closed = reject(registry, model_name, proposal, reason=reason, **who)
    what = "one person is enough" if closed.loosens else f"v{closed.target}"
    say(f"Proposal {proposal} of {closed.actor} ({what}) is closed: {reason}")
