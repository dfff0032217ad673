"""A rollback plan as a person or a program sees it; shared by ``rollback`` and ``approve``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.pipeline.recent import Rescored
    from selfheal_cli.records import AliasMove, AnyVersion
    from selfheal_cli.registry.base import Registry
    from selfheal_cli.rollback.plan import Plan

COLUMNS = ("", ">version", "phase", ">F1", ">95 % sure of", ">rows", "scored on rows", "recipe",
           "stream", ">age")  # fmt: skip


def settle_first(registry: Registry, model: str) -> None:
    """Finish what an interrupted command left of the model's aliases, and say so."""
    from selfheal_cli.registry.aliases import settle

    for left in settle(registry, model):
        say(f"Put right first: {left}.", err=True)


def show_plan(plan: Plan) -> None:
    """The plan as a table, and what should be known before agreeing."""
    from selfheal_cli.cli import output

    rows = [_row(plan, "serves now", plan.serving), _row(plan, "target", plan.target)]
    title = f"Rollback of '{plan.target.model}': {plan.criterion}"
    console = output.make_console()
    console.print(output.make_table(title, COLUMNS, rows))
    for note in plan.notes:
        console.print(output.line(("Note:", "yellow"), f" {note}."), soft_wrap=True)


def show_rescored(found: list[Rescored]) -> None:
    """Versions on the recent rows, the best first."""
    from selfheal_cli.cli import output

    rows = [
        [
            f"v{one.version.version}",
            output.figure(one.version.f1),
            str(one.version.eval_rows),
            output.figure(one.scores.f1),
            output.figure(one.scores.accuracy),
            str(one.scores.rows),
            "" if one.new else "it may have learned from them",
        ]
        for one in found
    ]
    columns = (">version", ">F1 then", ">rows then", ">F1 now", ">accuracy now", ">rows now", "")
    title = "Scored again on the latest labelled rows"
    output.make_console().print(output.make_table(title, columns, rows))


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    from selfheal_cli.records import ForeignVersion

    def told(version: AnyVersion) -> dict[str, Any]:
        if isinstance(version, ForeignVersion):
            return {**version.as_dict(), "foreign": True}
        return {**version.as_dict(), "f1_lower_bound": plan.sure_of(version)}

    return {
        "serving": told(plan.serving) if plan.serving else None,
        "target": told(plan.target),
        "criterion": plan.criterion,
        "notes": list(plan.notes),
    }


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere ``--yes`` must have said it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("not a terminal: give --yes to go ahead, or --dry-run to look")
    click.confirm(question, abort=True)


def tell_move(plan: Plan, move: AliasMove | None) -> None:
    """What was done."""
    if move is None:
        say(nothing_moved(plan))
        return
    source = f"v{move.source}" if move.source else "nothing"
    say(f"champion of '{move.model}' moved from {source} to v{move.target}: {move.reason}")


def nothing_moved(plan: Plan) -> str:
    """What is said where the target serves already."""
    return f"v{plan.target.version} serves already; nothing was moved."


def _row(plan: Plan, name: str, version: AnyVersion | None) -> list[str]:
    from selfheal_cli.cli import output
    from selfheal_cli.records import ForeignVersion

    if version is None:
        return [name, *["-"] * (len(COLUMNS) - 1)]
    if isinstance(version, ForeignVersion):
        told = [name, f"v{version.version}", "another tool's"]
        return [*told, *["-"] * (len(COLUMNS) - 1 - len(told)), output.age(version.created_ms)]
    return [
        name,
        f"v{version.version}",
        version.phase.value,
        output.figure(version.f1),
        output.figure(plan.sure_of(version)),
        str(version.eval_rows),
        version.tags["selfheal.evaluation"],
        version.tags["selfheal.recipe"],
        version.regime or "-",
        output.age(version.created_ms),
    ]
