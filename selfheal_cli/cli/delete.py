"""``selfheal delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.rollback.deletion import Deletion


@click.command("delete", cls=Command)
@click.argument("target", metavar="RUN|MODEL")
@click.option("--yes", "really", is_flag=True, help="Delete it; without it the plan is shown.")
@click.option("--dry-run", is_flag=True, help="Show the plan and delete nothing.")
@click.option("--serving", is_flag=True, help="Delete a model although a version of it serves.")
@options.tracking_uri
@options.as_json
def command(
    target: str,
    really: bool,
    dry_run: bool,
    serving: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Delete a run or a model: versions, files, event logs and exported files.

    RUN is the beginning of a run's id, MODEL a model's name. The plan is shown first; --yes carries
    it out, once it is written in the model's journal. A run whose version an alias names is never
    deleted, nor is anything of a run under way. MLflow keeps what it calls deleted until 'mlflow
    gc'.
    """
    if really and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other")
    from selfheal_cli.cli import output
    from selfheal_cli.errors import RegistryError
    from selfheal_cli.events.archive import find_run
    from selfheal_cli.pipeline.prepare.lease import is_alive
    from selfheal_cli.registry.journal import Lease
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.deletion import delete, plan_model, plan_run
    from selfheal_cli.workspace import WORKSPACE

    registry = MlflowRegistry(tracking_uri)

    def alive(lease: Lease) -> bool:
        return is_alive(registry, lease, WORKSPACE / "runs", clock)

    if target in registry.models():
        plan = plan_model(registry, target, alive, serving_too=serving)
    else:
        log = find_run(target)
        plan = plan_run(registry, log.parent.name if log else target, alive)
    if really and plan.refused:
        raise RegistryError(plan.refused)
    freed = delete(registry, plan, actor=actor(), clock=clock) if really else 0
    if as_json:
        output.print_json(plan.as_dict() | {"deleted": really, "bytes": freed})
        return
    say(f"{'Deleted' if really else 'Would go'}: {_all_of(plan)}.")
    if really:
        say(f"{freed:,} bytes came back.")
    else:
        refused = plan.refused
        say(f"It is refused: {refused}." if refused else "Nothing was deleted; --yes does it.")


def _all_of(plan: Deletion) -> str:
    from selfheal_cli.cli.output import counted

    what = f"model '{plan.model}' with its journal" if plan.whole else f"run {plan.runs[0]}"
    return (
        f"{what}, {counted(len(plan.runs), 'run')}, "
        f"{counted(len(plan.versions), 'version')} of '{plan.model}'"
        f"{''.join(f', {folder}/' for folder in plan.folders)}"
    )
