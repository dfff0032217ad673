"""``selfheal proposals``."""

from __future__ import annotations

from dataclasses import asdict

import click

from selfheal_cli.actor import now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("proposals", cls=Command)
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """List what heals and people proposed and nobody has decided yet.

    'selfheal approve' and 'selfheal reject' decide. One that is stale has expired, or the champion
    has moved since; the next heal's takes its place.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.registry.base import CHAMPION
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    registry.versions(model_name, limit=1)  # there must be such a model
    now, at = standing(registry, model_name), now_text()
    move = now.moves.get(CHAMPION)
    champion = move.sequence if move else 0
    if as_json:
        output.print_json(
            [asdict(one) | {"open": one.is_open(at, champion)} for one in now.proposals]
        )
        return
    if not now.proposals:
        say(f"'{model_name}': nothing waits for approval.")
        return
    rows = [
        [
            str(one.sequence),
            "one person is enough" if one.loosens else f"v{one.target}",
            "open" if one.is_open(at, champion) else "stale",
            one.expires or "-",
            one.actor,
            one.approved_by or "-",
            one.reason,
        ]
        for one in now.proposals
    ]
    columns = (">proposal", "for", "", "+until", "by", "+approved by", "why")
    output.print_table(f"Proposals of '{model_name}'", columns, rows)
