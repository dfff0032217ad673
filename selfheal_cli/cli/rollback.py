"""``selfheal rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.cli import options

if TYPE_CHECKING:
    from selfheal_cli.registry.base import Registry
    from selfheal_cli.rollback import Plan


@click.command("rollback")
@click.option("--to-best", is_flag=True, help="To the post-heal version with the highest F1.")
@click.option("--to", "number", type=click.IntRange(min=1), metavar="VERSION", help="To a version.")
@click.option("--to-previous", is_flag=True, help="To what served before.")
@click.option("--dry-run", is_flag=True, help="Show what would be done and check it; move nothing.")
@click.option("--reason", default="by hand", show_default=True, help="Why; kept in the history.")
@options.model_name
@options.tracking_uri
@options.as_json
def command(
    to_best: bool,
    number: int | None,
    to_previous: bool,
    dry_run: bool,
    reason: str,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Move the alias champion to a better version, once its file and hash are checked.

    The move is recorded with who, when, from, to and why.
    """
    if to_best + to_previous + (number is not None) != 1:
        raise click.UsageError("give one of --to-best, --to VERSION and --to-previous")
    from selfheal_cli.cli import output
    from selfheal_cli.history.archive import record_operation
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry
    from selfheal_cli.rollback import execute, load_verified

    registry = MlflowRegistry(tracking_uri)
    plan = _plan(registry, model_name, number, to_previous=to_previous)
    if not as_json:
        _show(plan)
    move = None
    if dry_run:
        load_verified(registry, plan.target)
    else:
        move = execute(registry, plan, actor=output.actor(), at=output.now_text(), reason=reason)
        record_operation(move, output.clock)
    if as_json:
        output.print_json(
            {
                "serving": plan.serving.as_dict() if plan.serving else None,
                "target": plan.target.as_dict(),
                "criterion": plan.criterion,
                "verified": True,
                "move": move.as_dict() if move else None,
            }
        )
    elif move is None:
        click.echo("Dry run: the target's file and hash hold; nothing was moved.")
    else:
        source = f"v{move.source}" if move.source else "nothing"
        click.echo(f"champion of '{move.model}' moved from {source} to v{move.target}: {reason}")


def _plan(registry: Registry, model: str, number: int | None, *, to_previous: bool) -> Plan:
    from selfheal_cli.rollback import plan_best, plan_previous, plan_version

    if number is not None:
        return plan_version(registry, model, number)
    return plan_previous(registry, model) if to_previous else plan_best(registry, model)


def _show(plan: Plan) -> None:
    from selfheal_cli.cli import output

    rows = []
    for name, version in (("serves now", plan.serving), ("target", plan.target)):
        if version is None:
            rows.append([name, *["-"] * 6])
            continue
        rows.append(
            [
                name,
                f"v{version.version}",
                version.phase.value,
                output.figure(version.f1),
                str(version.eval_rows),
                version.tags["selfheal.evaluation"],
                output.age(version.created_ms),
            ]
        )
    columns = ("", ">version", "phase", ">F1", ">rows", "scored on rows", ">age")
    title = f"Rollback of '{plan.target.model}' ({plan.criterion})"
    output.make_console().print(output.make_table(title, columns, rows))
