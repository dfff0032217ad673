"""``selfheal approve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.confirming import confirm, require_no_question
from selfheal_cli.cli.rollback import plan_document, settle_first, show_plan, told_move
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
@click.option("--dry-run", is_flag=True, help="Show and check the plan; approve nothing.")
@click.option("--reason", default="", help="Why; kept in the history beside the proposal's own.")
@options.yes
@options.allow_module
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(
    proposal: int,
    unverified: bool,
    dry_run: bool,
    reason: str,
    yes: bool,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Carry out what a heal or another person proposed, if nothing has changed since.

    PROPOSAL is its number: 'selfheal proposals' lists those that are open. A heal's has the version
    that was judged, by its hash, and expires; where the model wants two people, two approve it. One
    of 'selfheal four-eyes --off' has one person be enough from then on.
    """
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import output
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import open_proposal
    from selfheal_cli.rollback.plan import By, approve, check_target, load_checks, plan_proposed
    from selfheal_cli.rollback.trust import ByTheLog, Unverified

    registry = MlflowRegistry(tracking_uri)
    asked = open_proposal(standing(registry, model_name), model_name, proposal)
    if asked.loosens and dry_run:
        raise click.UsageError("--dry-run is for the proposal of a version")
    if asked.loosens:
        _loosen(registry, model_name, asked, reason, yes=yes, as_json=as_json)
        return
    load_checks()
    settle_first(registry, model_name)
    trust = Unverified() if unverified else ByTheLog(registry)
    plan, proposed = plan_proposed(registry, model_name, proposal, now_text(), trust)
    if not as_json:
        show_plan(plan, "Approval")
        say(*_told(proposed))
    move = None
    if dry_run:
        check_target(registry, plan)
        done = "Dry run: the target's file, hashes and decisions hold; nothing was approved."
    else:
        confirm(f"Make v{plan.target.version} the champion?", yes=yes)
        by = By(actor(), now_text(), proposed.reason_of(reason))
        move = approve(registry, plan, proposed, by)
        done = told_move(plan, move)
        if move is None and not plan.serves_already:
            done = f"Approved by you; somebody else runs 'selfheal approve {proposal}', too."
    if as_json:
        output.print_json(plan_document(plan) | {"move": move and move.as_dict()})
    else:
        say(done)


def _told(proposed: Proposal) -> list[str]:
    told = [f"Proposed by {proposed.actor} at {proposed.at}: {proposed.reason}"]
    if proposed.snapshot:
        told.append(f"Judged as sha256 {proposed.sha256[:12]}…; open until {proposed.expires}")
    if proposed.approved_by:
        told.append(f"Approved by {proposed.approved_by}")
    return told


def _loosen(
    registry: Registry, model: str, asked: Proposal, reason: str, *, yes: bool, as_json: bool
) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.registry.orders import set_four_eyes

    if not as_json:
        say(f"Proposed by {asked.actor} at {asked.at}: {asked.reason}")
    confirm(f"Is one person enough to move the champion of '{model}' from now on?", yes=yes)
    set_four_eyes(
        registry, model, on=False, actor=actor(), at=now_text(), reason=asked.reason_of(reason),
        proposal=asked.sequence,
    )  # fmt: skip
    if as_json:
        output.print_json({"four_eyes": False, "proposal": asked.sequence})
    else:
        say(f"A move of the champion of '{model}' takes one person from now on.")
