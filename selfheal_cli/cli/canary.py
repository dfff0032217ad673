"""``selfheal canary``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.confirming import confirm, require_no_question
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName, version_number

if TYPE_CHECKING:
    from selfheal_cli.rollback.tried import TriedCanary


@click.group("canary", cls=Group)
def command() -> None:
    """Show the version that answers a share of the requests; have one tried, promote or withdraw
    it by hand.
    """


@command.command("show")
@options.model
@options.tracking_uri
@options.as_json
def show(model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show what is tried beside the champion, since when and why; exit code 5 where nothing is.

    Its share and figures are known to the server: 'selfheal status'.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.tried import tried_canary

    canary = tried_canary(MlflowRegistry(tracking_uri), model_name)
    if as_json:
        output.print_json(_document(canary))
    else:
        say(*canary.lines())


@command.command("try")
@click.argument("version", type=VersionName())
@click.option("--dry-run", is_flag=True, help="Show and check the plan; move nothing.")
@options.yes
@options.reason
@options.allow_module
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def try_(
    version: str,
    dry_run: bool,
    yes: bool,
    reason: str,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Have VERSION answer the share of requests that the server's policy has, from now on.

    It may be one that was retrained, on a base and columns of its own: callers send the columns of
    both. It takes the place of what is tried; its figures promote or withdraw it. With two people
    or in another mode than auto it is proposed then. Needs a server whose policy has canary_share.
    """
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli.rollback import plan_document, settle_first, show_plan, tell
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.plan import By, check_target, load_checks
    from selfheal_cli.rollback.tried import plan_trial, try_out

    load_checks()
    registry = MlflowRegistry(tracking_uri)
    if not dry_run:
        settle_first(registry, model_name)
    number = version_number(registry, model_name, version)
    plan = plan_trial(registry, model_name, number)
    if not as_json:
        show_plan(plan, "Trial")
    check_target(registry, plan)
    move, done = None, "Dry run: nothing was changed."
    if not dry_run:
        confirm(f"Try v{number}?", yes=yes)
        move = try_out(registry, model_name, number, By(actor(), now_text(), reason)).as_dict()
        done = f"v{number} is tried from the next batch on: see 'selfheal status'."
    tell(plan_document(plan) | {"move": move}, done, as_json=as_json)


@command.command("promote")
@click.option("--dry-run", is_flag=True, help="Show and check the plan; move nothing.")
@options.yes
@options.reason
@options.policy
@options.allow_module
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def promote(
    dry_run: bool,
    yes: bool,
    reason: str,
    policy: str | None,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Make the version that is tried the champion, whatever its figures say by now.

    The plan is shown first, and the move is one by hand: no budget counts it. Where the model wants
    two people, 'selfheal rollback --to canary --propose' asks the second.
    """
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import configured
    from selfheal_cli.cli.rollback import carry_out, plan_document, settle_first, show_plan, tell
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.plan import By, load_checks
    from selfheal_cli.rollback.tried import plan_promotion

    load_checks()
    registry = MlflowRegistry(tracking_uri)
    if not dry_run:
        settle_first(registry, model_name)
    plan = plan_promotion(registry, model_name)
    if not as_json:
        show_plan(plan, "Promotion")
    four_eyes = configured.policy_here(click.get_current_context(), policy).four_eyes
    by = By(actor(), now_text(), reason, four_eyes)
    move, done = carry_out(registry, plan, by, dry_run=dry_run, yes=yes)
    tell(plan_document(plan) | {"move": move}, done, as_json=as_json)


@command.command("withdraw")
@click.option("--dry-run", is_flag=True, help="Say what would be withdrawn; change nothing.")
@options.yes
@options.reason
@options.model
@options.tracking_uri
@options.as_json
def withdraw(
    dry_run: bool,
    yes: bool,
    reason: str,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Have the champion answer all requests again, from the next batch on.

    What was learned goes on: the next heal that is worth a version is tried in its place, unless
    the mode is another ('selfheal mode'), or healing is held ('selfheal hold').
    """
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback import tried
    from selfheal_cli.rollback.plan import By

    registry = MlflowRegistry(tracking_uri)
    canary = tried.tried_canary(registry, model_name)
    if not as_json:
        say(*canary.lines())
    move = None
    if not dry_run:
        confirm(f"Withdraw v{canary.version.version}?", yes=yes)
        move = tried.withdraw(registry, canary, By(actor(), now_text(), reason))
    if as_json:
        output.print_json(_document(canary) | {"move": move and move.as_dict()})
    else:
        say("It is withdrawn." if move else "Dry run: nothing was changed.")


def _document(canary: TriedCanary) -> dict[str, Any]:
    began = canary.began
    return {
        "model": canary.version.model,
        "version": canary.version.version,
        "snapshot": canary.version.tags["selfheal.snapshot"],
        "since": canary.since or None,
        "by": began and began.actor,
        "reason": began and began.reason,
    }
