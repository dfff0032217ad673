"""``selfheal delete``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


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
        plan = plan_model(registry, target, alive)
    else:
        log = find_run(target)
        plan = plan_run(registry, log.parent.name if log else target, alive)
    refused = plan.refused
    if not refused and plan.whole and plan.serving is not None and not serving:
        refused = f"v{plan.serving} of '{plan.model}' serves; --serving deletes it all the same"
    freed = 0
    if really:
        if refused:
            raise RegistryError(refused)
        freed = delete(registry, plan, actor=actor(), clock=clock)
    if as_json:
        output.print_json(
            {
                "model": plan.model,
                "whole": plan.whole,
                "runs": plan.runs,
                "versions": sorted(version.version for version in plan.versions),
                "folders": [str(folder) for folder in plan.folders],
                "serving": plan.serving,
                "refused": refused,
                "deleted": really,
                "bytes": freed,
            }
        )
        return
    what = f"model '{plan.model}' with its journal" if plan.whole else f"run {plan.runs[0]}"
    say(
        f"{'Deleted' if really else 'Would go'}: {what}, "
        f"{output.counted(len(plan.runs), 'run')}, "
        f"{output.counted(len(plan.versions), 'version')} of '{plan.model}'"
        f"{''.join(f', {folder}/' for folder in plan.folders)}."
    )
    if really:
        say(f"{freed:,} bytes came back.")
    else:
        say(f"It is refused: {refused}." if refused else "Nothing was deleted; --yes does it.")
