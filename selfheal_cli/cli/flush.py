"""``selfheal flush``."""

from __future__ import annotations

from pathlib import Path

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say, say_settled


@click.command("flush", cls=Command)
@options.run()
@click.option(
    "--patience",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds to wait for a registry that does not answer.",
)
@options.tracking_uri
@options.quiet
@options.as_json
def command(
    run: str | None, patience: float, tracking_uri: str | None, quiet: bool, as_json: bool
) -> None:
    """Bring to the registry what runs of this folder have left on disk.

    RUN is an id, its beginning, or latest; without it all runs. Nothing is registered twice. Exit
    4 where the registry does not answer; what it does not have stays on disk.
    """
    from dataclasses import asdict

    from selfheal_cli.cli import output
    from selfheal_cli.pipeline.runs.recovery import flush
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    paths = _outboxes(run)
    done = []
    if paths:
        registry = MlflowRegistry(tracking_uri)
        with output.waiting("registry", quiet=quiet or as_json) as on_left:
            for path in paths:
                done.append(
                    flush(
                        path, registry, clock, actor(), patience=patience, on_left=on_left,
                        on_settled=say_settled,
                    )
                )  # fmt: skip
    if as_json:
        output.print_json([asdict(one) for one in done])
        return
    for one in done:
        end = "" if one.ended else f"; it has no end yet: 'selfheal run --resume {one.run_id}'"
        say(f"run {one.run_id}: {one.brought} writes brought{end}")
    if not done:
        say("Nothing waits: the registry has everything.")


def _outboxes(run: str | None) -> list[Path]:
    from selfheal_cli.cli.output import require_log
    from selfheal_cli.pipeline.runs.recovery import outboxes

    paths = outboxes()
    if run is None:
        return paths
    folder = require_log(run).parent
    return [path for path in paths if path.parent == folder]
