"""``selfheal run``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli import options as row_options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.say import say, say_settled
from selfheal_cli.errors import RegistryUnreachable
from selfheal_cli.kinds import RECIPES

INTERRUPTED = 130
BESIDE_RESUME = (
    "allow_module",
    "resume",
    "no_wait",
    "tracking_uri",
    "config",
    "no_config",
    "as_json",
)


@click.command("run", cls=standing.ConfiguredCommand)
@run_options.data
@row_options.elsewhere
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    help="How to heal; see docs/healing.md. [default: article, or anchored for DATA]",
)
@click.option(
    "--model",
    metavar="NAME",
    help="Heal a wrapped model, as 'selfheal wrap' registered it, instead of training one.",
)
@run_options.learning
@click.option(
    "--heal-mode",
    type=click.Choice(["sync", "async"]),
    help="In place and replayable, or in a process of its own beside scoring. [default: sync]",
)
@run_options.stream
@run_options.watching
@click.option("--model-name", help="Registered model. [default: fraud, or DATA's file name]")
@click.option("--experiment", help="MLflow experiment. [default: selfheal]")
@click.option(
    "--export-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the monitoring files. [default: monitoring_export]",
)
@click.option(
    "--record-rows",
    is_flag=True,
    default=None,
    help="Keep DATA with the run's files, so that a resume and an audit find its rows.",
)
@click.option("--no-plots", is_flag=True, help="Draw no pictures.")
@click.option(
    "--no-wait",
    is_flag=True,
    help="Do not wait at the end for the registry; 'selfheal flush' brings what is left.",
)
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with an interrupted run, as it was begun: id, its beginning, or latest.",
)
@options.allow_module
@options.tracking_uri
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    no_wait: bool,
    resume: str | None,
    tracking_uri: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train on clean rows, stream batches, heal, register every snapshot, export and plot.

    Without DATA: the article's synthetic stream. With DATA in time order and --target (CSV,
    Parquet, a folder of Parquet files, NDJSON, or - for NDJSON on standard input) or with --sql or
    --kafka: the first rows train the network, the rest stream. What no option says, SELFHEAL_*
    variables and a selfheal.yaml in this folder say; see 'selfheal init'.
    """
    settled = None
    if resume is not None:
        _refuse_beside_resume(ctx)
    else:
        settled = standing.settle_here(ctx)
    config = settled.config if settled else None
    from selfheal_cli.cli import output
    from selfheal_cli.cli.output import require_log
    from selfheal_cli.cli.run_screen import RunScreen, as_document, batches_of
    from selfheal_cli.pipeline.prepare.rows import open_kept, open_source
    from selfheal_cli.pipeline.prepare.wrapped import find_wrapped, for_wrapped
    from selfheal_cli.pipeline.runs import recovery as resuming
    from selfheal_cli.pipeline.runs.run import PATIENCE_SECONDS, RunContext, run
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    if settled is not None and config is not None and config.model is not None:
        registry = MlflowRegistry(tracking_uri)
        wrapped = find_wrapped(registry, config.model)
        config = for_wrapped(config, wrapped, settled.given.get("model_name"))
    if config is not None and config.source.kind in ("stdin", "kafka") and not as_json:
        say("Waiting for the rows to train on; Ctrl-C ends the run.", err=True)
    with standing.naming_the_file(settled):
        source = open_source(config) if config else None
    log = require_log(resume) if resume else None
    registry = MlflowRegistry(tracking_uri, create=resume is None)
    if config is not None and (note := registry.copied_from(config.experiment)):
        say(f"selfheal: {note}", err=True)
    with (
        standing.naming_the_file(settled),
        RunScreen(quiet=as_json) as screen,
        stop_on_interrupt() as stop,
    ):
        around = RunContext(
            registry,
            clock,
            actor(),
            on_epoch=screen.on_epoch,
            watchers=[screen.on_event],
            on_left=screen.on_left,
            stop=stop,
            patience=None if no_wait else PATIENCE_SECONDS,
            on_settled=say_settled,
        )
        if config is not None and source is not None:
            finished = run(config, source, around)
        elif log is not None:
            folder, run_id = log.parent, log.parent.name
            finished = resuming.resume(
                log,
                around,
                lambda known: open_kept(known, folder, registry, run_id, folder, live=True),
            )
    if as_json:
        document = as_document(finished, registry.uri)
        output.print_json_with(document, "batches", batches_of(finished))
    else:
        screen.conclude(finished, tracking_uri)
    if finished.away:
        raise RegistryUnreachable(finished.away)
    if finished.outcome == "KILLED" and not finished.endless:
        ctx.exit(INTERRUPTED)


def _refuse_beside_resume(ctx: click.Context) -> None:
    """A run goes on as it was begun: nothing that decides its result may be given again."""
    for parameter in ctx.command.params:
        name = str(parameter.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in BESIDE_RESUME:
            shown = "DATA" if name == "data" else parameter.opts[0]
            raise click.UsageError(
                f"{shown} cannot be given with --resume: the run goes on as it was begun"
            )


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM asks the stream to end after its batch; a second interrupts."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    def streaming() -> bool:
        return bool(asked)

    for number in before:
        signal.signal(number, ask)
    try:
        yield streaming
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
