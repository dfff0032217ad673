"""``selfheal mode``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.confirming import confirm, require_no_question
from selfheal_cli.cli.say import say

MODES = ("auto", "recommend", "shadow", "off")


@click.command("mode", cls=Command)
@click.argument("wanted", metavar="[MODE]", type=click.Choice(MODES), required=False)
@options.reason
@click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
@options.yes
@options.model
@options.tracking_uri
@options.as_json
def command(
    wanted: str | None,
    reason: str,
    dry_run: bool,
    yes: bool,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Say what the heals of a served model may do, or order it: auto, recommend, shadow or off.

    shadow: they are made, judged and registered, and nothing is published. recommend: they are
    proposed, and serve once somebody approves. auto: they serve within the budget of the policy,
    and are proposed beyond it. off: none is made. A server sees it within two seconds. Rollbacks
    and moves by people are never held up. Without MODE, nothing is changed.
    """
    require_no_question(as_json=as_json and wanted is not None, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import output
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import STANDS, mode_of, set_mode

    registry = MlflowRegistry(tracking_uri)
    registry.versions(model_name, limit=1)  # there must be such a model
    now = standing(registry, model_name)
    before = mode_of(now)
    changes = wanted is not None and wanted != before
    by = f", by {now.mode.actor} at {now.mode.at}: {now.mode.reason}" if now.mode else ""
    lines = [f"'{model_name}' is in mode {before}{by}.", f"{before}: {STANDS[before]}."]
    if changes and wanted:
        lines.append(f"{wanted}: {STANDS[wanted]}.")
    if not as_json:
        say(*lines)
    if changes and wanted and not dry_run:
        confirm(f"Have '{model_name}' in mode {wanted} from now on?", yes=yes)
        set_mode(registry, model_name, wanted, actor=actor(), at=now_text(), reason=reason)
    if as_json:
        mode = wanted if wanted and not dry_run else before
        told = {"model": model_name, "mode": mode, "before": before, "wanted": wanted}
        output.print_json(told)
    elif wanted:
        done = f"It is in mode {wanted} from now on." if changes else "Nothing was changed."
        say("Dry run: nothing was changed." if dry_run else done)
