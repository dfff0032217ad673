"""``selfheal run``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options

if TYPE_CHECKING:
    from selfheal_cli.config import Policy, RunConfig
    from selfheal_cli.source.base import Source

INTERRUPTED = 130
FOR_TABLES = ("target", "positive", "drop", "categorical", "separator", "train_fraction")
POLICY_OPTIONS = ("fidi_threshold", "rollback_f1_drop", "conflict_min")
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("run")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--target", metavar="COLUMN", help="Column of DATA to predict; two values.")
@click.option(
    "--positive",
    metavar="VALUE",
    help="The target's positive value. [default: a word for true, else the rarer value]",
)
@click.option("--drop", metavar="COLUMN", multiple=True, help="Leave a column out; repeatable.")
@click.option(
    "--categorical",
    metavar="COLUMN",
    multiple=True,
    help="Take a column of numbers as categories; repeatable.",
)
@click.option("--separator", metavar="CHAR", help="Of a CSV file. [default: found in its head]")
@click.option(
    "--train-fraction",
    type=float,
    help="First share of the rows, which trains the network; the rest streams. [default: 0.25]",
)
@click.option(
    "--sensitive",
    metavar="FEATURE",
    help="Numeric feature whose drift is watched. [default: V14, or the first rule's]",
)
@click.option(
    "--rule",
    "rules",
    metavar="RULE",
    multiple=True,
    help="Domain rule such as 'V14 < -1.5 and V9 > 0 => 1'; repeatable. [default: the "
    "article's, or for DATA the best one-split rule of the training part]",
)
@click.option("--recipe", type=click.Choice(["article"]), help="How to heal. [default: article]")
@click.option(
    "--heal-mode",
    type=click.Choice(["sync", "async"]),
    help="In place and replayable, or in a process of its own beside scoring. [default: sync]",
)
@click.option("--heal-steps", type=int, help="Gradient steps a heal. [default: 5]")
@click.option("--heal-lr", type=float, help="Learning rate of a heal. [default: 0.003]")
@click.option(
    "--drift-strength",
    type=float,
    help="Of the synthetic stream: how far the normals' V14 moves down. [default: 2.2]",
)
@click.option("--batches", type=int, help="Batches to stream. [default: 25, or all of DATA]")
@click.option("--batch-size", type=int, help="Rows a batch. [default: 100]")
@click.option("--seed", type=int, help="Of data, initialisation and training. [default: 42]")
@click.option(
    "--policy",
    metavar="NAME|FILE",
    default="default",
    show_default=True,
    help="Thresholds; see 'selfheal policy list'.",
)
@click.option(
    "--thresholds", type=FILE, help="An exported threshold_config.json, put over the policy."
)
@click.option(
    "--fidi-threshold",
    type=float,
    help="Drift threshold, in training standard deviations. [default: the policy's, 1.0]",
)
@click.option(
    "--conflict-min",
    type=int,
    help="Conflicts in a batch that start a heal. [default: the policy's, 5]",
)
@click.option(
    "--rollback-f1-drop",
    type=float,
    help="Fall of the mean F1 that rolls back. [default: the policy's, 0.08]",
)
@click.option("--model-name", help="Registered model. [default: fraud, or DATA's file name]")
@click.option("--experiment", help="MLflow experiment. [default: selfheal]")
@click.option(
    "--export-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the monitoring files. [default: monitoring_export]",
)
@click.option("--no-plots", is_flag=True, help="Draw no pictures.")
@options.tracking_uri
@options.as_json
@click.pass_context
def command(ctx: click.Context, /, tracking_uri: str | None, as_json: bool, **given: Any) -> None:
    """Train on clean rows, stream batches, heal, register every snapshot, export and plot.

    Without DATA: the article's synthetic stream. With DATA, a CSV or Parquet file in time order
    and --target: the first rows train the network, the rest stream.
    """
    config = build_config(given)
    from selfheal_cli.cli import output
    from selfheal_cli.cli.run_screen import RunScreen, as_document
    from selfheal_cli.pipeline.run import Surroundings, run
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    source = open_source(config)
    registry = MlflowRegistry(tracking_uri)
    with RunScreen(quiet=as_json) as screen, stop_on_interrupt() as stop:
        around = Surroundings(
            registry, output.clock, output.actor(), screen.on_epoch, screen.on_event, stop
        )
        finished = run(config, source, around)
    if as_json:
        output.print_json(as_document(finished, registry.uri))
    else:
        screen.conclude(finished, tracking_uri)
    if finished.outcome == "KILLED":
        ctx.exit(INTERRUPTED)


def build_config(given: Mapping[str, Any]) -> RunConfig:
    """Options to configuration; raises `ConfigurationError` or click's usage error."""
    from selfheal_cli.config import HealSettings, NetworkSettings, RunConfig, checked

    data = given["data"]
    _refuse_ignored(given, data)
    heal = {"recipe": given["recipe"], "mode": given["heal_mode"], "steps": given["heal_steps"],
            "learning_rate": given["heal_lr"]}  # fmt: skip
    named = ("sensitive", "batches", "batch_size", "seed", "model_name", "experiment", "export_dir")
    values: dict[str, Any] = {name: given[name] for name in named}
    values["model_name"] = given["model_name"] or (_model_name(data) if data else None)
    values |= {
        "source": _source_settings(given, data),
        "network": NetworkSettings(shadow="frozen" if data else "plain"),
        "heal": checked(HealSettings, _known(heal), where="options"),
        "policy": _policy(given),
        "rules": given["rules"] or None,
        "plots": not given["no_plots"],
    }
    if data is None and not given["rules"]:
        from selfheal_cli.source.article import RULE

        values["rules"] = (RULE,)
    return checked(RunConfig, _known(values), where="options")


def open_source(config: RunConfig) -> Source:
    """The source that a configuration names."""
    size: dict[str, Any] = {"batch_size": config.batch_size, "batches": config.batches}
    if config.source.kind == "table":
        from selfheal_cli.source.table import TableSource

        return TableSource(config.source, **size)
    from selfheal_cli.source.synthetic import SyntheticSource

    return SyntheticSource(config.source, seed=config.seed, **size)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks the stream to end after its batch; a second one interrupts."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    def streaming() -> bool:
        return bool(asked)

    signal.signal(signal.SIGINT, ask)
    try:
        yield streaming
    finally:
        signal.signal(signal.SIGINT, before)


def _refuse_ignored(given: Mapping[str, Any], data: Path | None) -> None:
    if data is None:
        for name in FOR_TABLES:
            if given[name]:
                raise click.UsageError(f"--{name.replace('_', '-')} needs a DATA file")
    elif given["drift_strength"] is not None:
        raise click.UsageError("--drift-strength is for the synthetic stream, not for DATA")
    elif given["target"] is None:
        raise click.UsageError(f"--target COLUMN is needed with {data}")


def _source_settings(given: Mapping[str, Any], data: Path | None) -> Any:
    from selfheal_cli.config import SyntheticSettings, TableSettings, checked

    if data is None:
        values = {"drift_strength": given["drift_strength"]}
        return checked(SyntheticSettings, _known(values), where="options")
    values = {name: given[name] for name in FOR_TABLES} | {"path": data}
    return checked(TableSettings, _known(values), where="options")


def _policy(given: Mapping[str, Any]) -> Policy:
    from selfheal_cli.config import Policy, checked
    from selfheal_cli.decide import policy_file

    policy = policy_file.load(given["policy"])
    if given["thresholds"] is not None:
        policy = policy_file.read_thresholds(given["thresholds"], policy)
    changed = _known({name: given[name] for name in POLICY_OPTIONS})
    return checked(Policy, policy.model_dump() | changed, where="options")


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _model_name(data: Path) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in data.stem)
