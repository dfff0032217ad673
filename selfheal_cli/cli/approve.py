"""``selfheal approve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.rollback import confirm, plan_document, settle_first, show_plan, told_move
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.registry.base import Registry
    from selfheal_cli.registry.journal import Proposal


@click.command("approve", cls=Command)
@click.argument("proposal", type=click.IntRange(min=1))
@click.option(
    "--unverified", is_flag=True,
    help="Take the version as the registry has it, whatever its run wrote down.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.allow_module
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(
    proposal: int,
    unverified: bool,
    yes: bool,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Carry out a rollback that another person proposed, if nothing has changed since.

    PROPOSAL is the number that 'selfheal rollback --propose' gave, or 'selfheal four-eyes --off',
    after which one person is enough; 'selfheal champion' lists those
    that are open.
    """
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: give --yes with it")
    from selfheal_cli.cli import output
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import open_proposal
    from selfheal_cli.rollback.plan import By, execute, load_checks, plan_proposed
    from selfheal_cli.rollback.trust import ByTheLog, Unverified

    registry = MlflowRegistry(tracking_uri)
    asked = open_proposal(standing(registry, model_name), model_name, proposal)
    if asked.loosens:
        _loosen(registry, model_name, asked, yes=yes, as_json=as_json)
        return
    load_checks()
    settle_first(registry, model_name)
    trust = Unverified() if unverified else ByTheLog(registry)
    plan, proposed = plan_proposed(registry, model_name, proposal, trust)
    if not as_json:
        show_plan(plan)
        say(f"Proposed by {proposed.actor} at {proposed.at}: {proposed.reason}")
    confirm(f"Make v{plan.target.version} the champion?", yes=yes)
    by = By(actor(), now_text(), f"{proposed.reason} (proposed by {proposed.actor})")
    move = execute(registry, plan, by, proposal)
    if as_json:
        output.print_json(plan_document(plan) | {"move": move and move.as_dict()})
    else:
        say(told_move(plan, move))


def _loosen(registry: Registry, model: str, asked: Proposal, *, yes: bool, as_json: bool) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.registry.orders import set_four_eyes

    if not as_json:
        say(f"Proposed by {asked.actor} at {asked.at}: {asked.reason}")
    confirm(f"Is one person enough to move the champion of '{model}' from now on?", yes=yes)
    reason = f"{asked.reason} (proposed by {asked.actor})"
    set_four_eyes(
        registry, model, on=False, actor=actor(), at=now_text(), reason=reason,
        proposal=asked.sequence,
    )  # fmt: skip
    if as_json:
        output.print_json({"four_eyes": False, "proposal": asked.sequence})
    else:
        say(f"A move of the champion of '{model}' takes one person from now on.")
