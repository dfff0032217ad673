"""``selfheal hold``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("hold", cls=Command)
@options.reason
@options.model
@options.tracking_uri
def command(reason: str, model_name: str, tracking_uri: str | None) -> None:
    """Stop the healing of a model; scoring goes on with the serving version.

    A run that is under way sees it within two seconds. 'selfheal release' allows healing again.
    """
    from selfheal_cli.registry.journal import MAX_TEXT, Hold, standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import hold

    registry = MlflowRegistry(tracking_uri)
    registry.versions(model_name, limit=1)  # there must be such a model
    held = standing(registry, model_name).hold
    if held is not None:
        say(f"'{model_name}' is held already, by {held.actor} at {held.at}: {held.reason}")
        return
    who = {"actor": actor(), "at": now_text()}
    hold(registry, model_name, Hold(who["actor"], who["at"], reason[:MAX_TEXT]), **who)
    say(f"Healing of '{model_name}' is held: {reason}")
