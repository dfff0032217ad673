"""``selfheal release``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("release", cls=Command)
@options.model
@options.tracking_uri
def command(model_name: str, tracking_uri: str | None) -> None:
    """Allow the healing of a model again after 'selfheal hold'."""
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import hold

    registry = MlflowRegistry(tracking_uri)
    registry.versions(model_name, limit=1)  # there must be such a model
    held = standing(registry, model_name).hold
    if held is None:
        say(f"'{model_name}' is not held.")
        return
    hold(registry, model_name, None, actor=actor(), at=now_text())
    say(f"Healing of '{model_name}' is allowed again; {held.actor} had held it.")
