"""``selfheal run``."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli import options as row_options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.command import hidden, note_old, section
from selfheal_cli.cli.part_choice import PartChoice
from selfheal_cli.cli.say import say, say_settled
from selfheal_cli.errors import RegistryUnreachable

if TYPE_CHECKING:
    from selfheal_cli.cli.run_screen import RunScreen
    from selfheal_cli.config import RunConfig
    from selfheal_cli.events.event import Event
    from selfheal_cli.events.types import RunFinished
    from selfheal_cli.pipeline.runs.run import Finished, RunContext
    from selfheal_cli.registry.base import Registry
    from selfheal_cli.settings.resolve import ResolvedSettings

INTERRUPTED = 130
BESIDE_RESUME = (
    "allow_module",
    "resume",
    "no_wait",
    "tracking_uri",
    "config",
    "no_config",
    "quiet",
    "wide",
    "as_json",
)


class Run(standing.ConfiguredCommand):
    """``--model`` meant the wrapped model up to 0.2, and is the registered one now."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what says the wrapped model and the registered one as before."""
        if {"--model", "--model-name"} <= {one.partition("=")[0] for one in args}:
            raise click.UsageError(
                "--model is the registered model by now, as --model-name was: name the wrapped one "
                "with --from, the registered one with --model",
                ctx,
            )
        return super().parse_args(ctx, args)


def _refuse_uri(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.startswith("models:/"):
        raise click.UsageError(
            f"--model is the name of the registered model; '--from {value}' heals that wrapped "
            "one, and --model NAME beside it says where its versions go",
            ctx,
        )
    return value


@click.command("run", cls=Run, old={"--export-dir": "--output"})
@run_options.data
@row_options.elsewhere
@section(
    run_options.HEALING,
    click.option(
        "--from",
        "model",
        metavar="NAME",
        help="Heal a wrapped model, as 'selfheal wrap' registered it, instead of training one.",
    ),
    click.option(
        "--recipe",
        type=PartChoice("recipe"),
        help="How to heal; see docs/healing.md. [default: article, or ensemble for DATA]",
    ),
)
@run_options.learning
@hidden(click.option("--heal-mode", type=click.Choice(["sync", "async"])))
@run_options.stream
@run_options.watching
@run_options.segmenting
@section(
    run_options.KEPT,
    click.option(
        "--model",
        "model_name",
        metavar="NAME",
        callback=_refuse_uri,
        help="Registered model. [default: fraud, DATA's file name, or that of --from]",
    ),
    click.option(
        "--output",
        "export_dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the monitoring files. [default: monitoring_export]",
    ),
    click.option("--no-plots", is_flag=True, help="Draw no pictures."),
    click.option(
        "--no-wait",
        is_flag=True,
        help="Do not wait at the end for the registry; 'selfheal flush' brings what is left.",
    ),
    click.option(
        "--resume",
        metavar="RUN",
        help="Go on with an interrupted run, as it was begun: id, its beginning, or latest.",
    ),
)
@hidden(click.option("--record-rows", is_flag=True, default=None))
@options.settings
@options.allow_module
@options.device
@options.tracking_uri
@options.quiet
@options.wide
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    no_wait: bool,
    resume: str | None,
    tracking_uri: str | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Train on clean rows, stream batches, heal, register every snapshot, export and plot.

    Without DATA: the article's synthetic stream. With DATA in time order and --target (CSV,
    Parquet, a folder of Parquet files, NDJSON, or - for NDJSON on standard input) or with --sql or
    --kafka: the first rows train the network, the rest stream. What no option says, SELFHEAL_*
    variables and a selfheal.yaml in this folder say; see 'selfheal init'.
    """
    settled = _settled(ctx, tracking_uri, resume=resume is not None)
    from selfheal_cli.cli.output import require_log
    from selfheal_cli.cli.run_screen import RunScreen
    from selfheal_cli.heal.recipe import without_trees
    from selfheal_cli.pipeline.prepare.objective import by_the_data
    from selfheal_cli.pipeline.prepare.rows import open_new
    from selfheal_cli.pipeline.runs.run import run
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    quiet = quiet or as_json
    config = _config(settled, tracking_uri, quiet=quiet) if settled else None
    with standing.naming_the_file(settled):
        source = None
        if settled and config:
            config, source = open_new(config)
            config, why = by_the_data(settled, config, source)
            for said in (
                () if quiet else (*source.remarks, *filter(None, [why, without_trees(config.heal)]))
            ):
                say(f"{said[0].upper()}{said[1:]}.", err=True)
    log = require_log(resume) if resume else None
    registry = MlflowRegistry(tracking_uri, create=resume is None)
    if config is not None and (note := registry.copied_from(config.experiment)):
        say(f"selfheal: {note}", err=True)
    with (
        standing.naming_the_file(settled),
        RunScreen(quiet=quiet) as screen,
        answering(Interrupts(training=True)) as interrupts,
    ):
        around = _around(registry, screen, interrupts, no_wait=no_wait)
        if config is not None and source is not None:
            finished = run(config, source, around)
        elif log is not None:
            finished = _resumed(log, around)
    if as_json:
        _print_document(finished, registry.uri)
    else:
        screen.conclude(finished, tracking_uri)
    if finished.away:
        raise RegistryUnreachable(finished.away)
    killed = finished.outcome == "KILLED" and not finished.endless
    if killed or interrupts.leave():
        ctx.exit(INTERRUPTED)


def _settled(
    ctx: click.Context, tracking_uri: str | None, *, resume: bool
) -> ResolvedSettings | None:
    """What the run is told; None for one that goes on as it was begun."""
    if not resume:
        settled = standing.settle_here(ctx)
        _refuse_wrapped(settled, tracking_uri)
        return settled
    _refuse_beside_resume(ctx)
    if ctx.get_parameter_source("resume") is ParameterSource.ENVIRONMENT:
        note_old(ctx, "SELFHEAL_RESUME", "--resume")
    return None


def _config(settled: ResolvedSettings, tracking_uri: str | None, *, quiet: bool) -> RunConfig:
    """The configuration; of a wrapped model, with what that takes."""
    if settled.config.source.kind in ("stdin", "kafka") and not quiet:
        say("Waiting for the rows to train on; Ctrl-C ends the run.", err=True)
    if settled.config.model is None:
        return settled.config
    from selfheal_cli.estimators.describing import changed_libraries
    from selfheal_cli.pipeline.prepare.wrapped import find_wrapped, for_wrapped
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    wrapped = find_wrapped(MlflowRegistry(tracking_uri), settled.config.model)
    if not quiet and (changed := changed_libraries(wrapped.encoding.model)):
        say(f"selfheal: {changed}", err=True)
    return for_wrapped(settled.config, wrapped, settled.given.get("model_name"))


def _around(
    registry: Registry, screen: RunScreen, interrupts: Interrupts, *, no_wait: bool
) -> RunContext:
    """A run in front of a person, who watches it and may end it."""
    from selfheal_cli.pipeline.runs.run import PATIENCE_SECONDS, RunContext

    def on_results(end: RunFinished) -> None:
        interrupts.conclude()
        screen.show_results(end)

    return RunContext(
        registry,
        clock,
        actor(),
        on_epoch=screen.on_epoch,
        watchers=[screen.on_event, interrupts.on_event],
        on_results=on_results,
        on_left=screen.on_left,
        stop=interrupts.asked,
        leave=interrupts.leave,
        patience=None if no_wait else PATIENCE_SECONDS,
        on_settled=say_settled,
    )


def _resumed(log: Path, around: RunContext) -> Finished:
    from selfheal_cli.pipeline.prepare.rows import open_kept
    from selfheal_cli.pipeline.runs.recovery import resume

    folder, run_id, registry = log.parent, log.parent.name, around.registry
    return resume(
        log, around, lambda known: open_kept(known, folder, registry, run_id, folder, live=True)
    )


def _print_document(finished: Finished, uri: str) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.cli.run_screen import as_document, batches_of

    output.print_json_with(as_document(finished, uri), "batches", batches_of(finished))


def _refuse_wrapped(settled: ResolvedSettings, tracking_uri: str | None) -> None:
    """``--model`` of a wrapped model without ``--from`` is a slip, or its meaning of before."""
    named, wrapped = settled.origin(("model_name",)), settled.origin(("model",))
    if str(named) != "--model" or wrapped.kind == "option":
        return
    from selfheal_cli.errors import NoStore
    from selfheal_cli.pipeline.prepare.wrapped import WRAPPED
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    name = settled.config.model_name
    try:
        there = MlflowRegistry(tracking_uri).alias(name, WRAPPED)
    except NoStore:
        return
    if there is not None:
        raise click.UsageError(
            f"'{name}' is a wrapped model: '--from {name}' heals it, and --model NAME beside it "
            "says where its versions go. Nothing was trained"
        )


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


class Interrupts:
    """Ctrl-C and SIGTERM, each answered at once by what it means in that part of a run.

    While the network trains nothing is kept, and it ends there. The stream ends after its batch,
    or at once when asked again; once the figures are there only the registry is not waited for.
    """

    def __init__(self, *, training: bool = False) -> None:
        self._training = training
        self._asked = self._concluded = self._leave = False

    def asked(self) -> bool:
        """Whether the stream is to end after its batch."""
        return self._asked

    def leave(self) -> bool:
        """Whether the registry is not to be waited for."""
        return self._leave

    def on_event(self, event: Event) -> None:
        """The network is trained once that is written down."""
        self._training = self._training and event.kind != "trained"

    def conclude(self) -> None:
        """The figures are there."""
        self._concluded = True

    def on_signal(self, number: int, frame: object) -> None:
        """The next one."""
        if self._concluded and not self._leave:
            self._leave = True
            say(
                "Ending: the figures hold; what the registry does not have stays on disk.", err=True
            )
        elif self._training or self._asked:
            raise KeyboardInterrupt
        else:
            self._asked = True
            say(
                "Ending after this batch, with its figures, files and versions. Ctrl-C again ends "
                "at once; 'selfheal run --resume latest' then goes on from here.",
                err=True,
            )


@contextmanager
def answering(interrupts: Interrupts) -> Iterator[Interrupts]:
    """Ctrl-C and SIGTERM go there for so long."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupts.on_signal)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
