"""``selfheal approve``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.rollback_plan import confirm, plan_document, show_plan, tell_move


@click.command("approve")
@click.argument("proposal", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.model_name
@options.tracking_uri
@options.as_json
def command(
    proposal: int, yes: bool, model_name: str, tracking_uri: str | None, as_json: bool
) -> None:
    """Carry out a rollback that somebody else proposed, if nothing has changed since.

    PROPOSAL is the number that 'selfheal rollback --propose' gave; 'selfheal champion' lists those
    that are open.
    """
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: give --yes with it")
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry
    from selfheal_cli.rollback.plan import By, execute, load_checks, plan_proposed

    load_checks()
    registry = MlflowRegistry(tracking_uri)
    plan, found = plan_proposed(registry, model_name, proposal)
    if not as_json:
        show_plan(plan)
        click.echo(f"Proposed by {found.actor} at {found.at}: {found.reason}")
    confirm(f"Make v{plan.target.version} the champion?", yes=yes)
    by = By(actor(), now_text(), f"{found.reason} (proposed by {found.actor})")
    move = execute(registry, plan, by, proposal)
    if as_json:
        output.print_json(plan_document(plan) | {"move": move and move.as_dict()})
    else:
        tell_move(plan, move)
