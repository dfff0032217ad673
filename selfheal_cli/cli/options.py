"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
CONFIG, NO_CONFIG = "selfheal.config", "selfheal.no_config"  # in click's context
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")


def group(*parts: Decorator) -> Decorator:
    """Several options as one decorator, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for part in reversed(parts):
            command = part(command)
        return command

    return decorate


def _checked_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        if ctx.resilient_parsing:
            return None
        from selfheal_cli.cli.configured import default_model_name

        return default_model_name(ctx)
    return checked_name(ctx, param, value)


def checked_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A registered model's name, as click hands it in."""
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: letters, digits, space, '.', '_' and '-', at most 128, are allowed"
        )
    return value


def _store(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None or ctx.resilient_parsing:
        return value
    from selfheal_cli.cli.configured import default_store

    return default_store(ctx)


def _allow(names: tuple[str, ...]) -> None:
    from selfheal_cli.model.allowed import allow

    allow(names)


# The file that the other options stand over; read by `selfheal_cli.cli.configured`.
config_file: Decorator = group(
    click.option(
        "--config",
        metavar="FILE",
        envvar="SELFHEAL_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(CONFIG, value),
        help="Configuration to use. [default: selfheal.yaml, if it is there]",
    ),
    click.option(
        "--no-config",
        is_flag=True,
        envvar="SELFHEAL_NO_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(NO_CONFIG, value),
        help="Leave selfheal.yaml alone.",
    ),
)
tracking_uri: Decorator = group(
    click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="SELFHEAL_TRACKING_URI",
        callback=_store,
        help="MLflow store. [default: MLFLOW_TRACKING_URI, else selfheal.yaml's, else "
        "sqlite:///mlflow.db]",
    ),
    config_file,
)
allow_module: Decorator = click.option(
    "--allow-module",
    "allow_module",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=lambda ctx, param, value: _allow(value),
    help="Python module whose classes a wrapped model may name, beside those that were wrapped "
    "here; repeatable.",
)
model_name: Decorator = click.option(
    "--model-name",
    envvar="SELFHEAL_MODEL_NAME",
    callback=_checked_name,
    help="Registered model. [default: selfheal.yaml's, else fraud]",
)
policy: Decorator = click.option(
    "--policy",
    metavar="NAME|FILE",
    envvar="SELFHEAL_POLICY",
    help="Thresholds; see 'selfheal policy list'. [default: selfheal.yaml's, else default]",
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)


FILE = click.Path(path_type=Path, dir_okay=False)
# Which columns of a table there are, and which is the target.
columns = group(
    click.option(
        "--target", metavar="COLUMN", help="Column of DATA to predict; two or more values."
    ),
    click.option(
        "--positive",
        metavar="VALUE",
        help="The target's positive value. [default: a word for true, else the rarer value]",
    ),
    click.option("--drop", metavar="COLUMN", multiple=True, help="Leave a column out; repeatable."),
    click.option(
        "--categorical",
        metavar="COLUMN",
        multiple=True,
        help="Take a column of numbers as categories; repeatable.",
    ),
    click.option("--separator", metavar="CHAR", help="Of a CSV file. [default: found in its head]"),
)
# What streams, and what is watched in it.
data = group(
    click.argument("data", required=False, type=click.Path(path_type=Path)),
    columns,
    click.option(
        "--train-fraction",
        type=float,
        help="First share of the rows, which trains the network; the rest streams. [default: 0.25]",
    ),
    click.option(
        "--time", metavar="COLUMN", help="Column of DATA with the row's time, for --label-time."
    ),
    click.option(
        "--label-time",
        metavar="COLUMN",
        help="Column of DATA with the time at which the row's label came; empty: never.",
    ),
    click.option(
        "--sensitive",
        metavar="FEATURE",
        help="Numeric feature whose drift is watched; auto for the one that the network's "
        "decisions hang on most (gradient times input). [default: V14, or the first rule's]",
    ),
    click.option(
        "--rule",
        "rules",
        metavar="RULE",
        multiple=True,
        help="Domain rule such as 'V14 < -1.5 and V9 > 0 => 1'; repeatable; see docs/rules.md. "
        "[default: the article's, or for DATA the best one-split rule of the training part]",
    ),
    click.option(
        "--rules",
        "rules_file",
        type=FILE,
        help="YAML file of named rules, before those of --rule; several vote by confidence.",
    ),
)
# When labels come, and what is done with them.
learning = group(
    click.option(
        "--labels",
        metavar="full|delayed:K|none",
        help="When labels come: with their batch, K batches later, or never. [default: full]",
    ),
    click.option(
        "--assume",
        type=click.Choice(["positives-stable", "negatives-stable", "inputs-shifted"]),
        help="Heal without labels on this assumption, until it is refuted. [default: none]",
    ),
    click.option(
        "--objective",
        metavar="accuracy|f1|cost:FN,FP",
        help="What decisions are for: sets each snapshot's threshold. [default: accuracy]",
    ),
    click.option("--heal-steps", type=int, help="Gradient steps a heal. [default: 5]"),
    click.option("--heal-lr", type=float, help="Learning rate of a heal. [default: 0.003]"),
)
# Its length, its seed, and the thresholds of operations.
stream = group(
    click.option(
        "--drift-strength",
        type=float,
        help="Of the synthetic stream: how far the normals' V14 moves down. [default: 2.2]",
    ),
    click.option("--batches", type=int, help="Batches to stream. [default: 25, or all of DATA]"),
    click.option("--batch-size", type=int, help="Rows a batch. [default: 100]"),
    click.option("--seed", type=int, help="Of data, initialisation and training. [default: 42]"),
    policy,
    click.option(
        "--thresholds", type=FILE, help="An exported threshold_config.json, put over the policy."
    ),
    click.option(
        "--fidi-threshold",
        type=float,
        help="Drift threshold, in training standard deviations. [default: the policy's, 1.0]",
    ),
    click.option(
        "--conflict-min",
        type=int,
        help="Conflicts in a batch that start a heal. [default: the policy's, 5]",
    ),
    click.option(
        "--rollback-f1-drop",
        type=float,
        help="Fall of the mean F1 that rolls back. [default: the policy's, 0.08]",
    ),
)


watching = click.option(
    "--monitor",
    "monitors",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="Watch the stream with a monitor as well, such as psi or "
    "'fidi:on=V14+V9,threshold=0.5,triggers=heal'; repeatable; see docs/monitors.md.",
)


ROWS_FILE = click.Path(path_type=Path, dir_okay=False)

# Rows from elsewhere than a file.
elsewhere = group(
    click.option(
        "--sql", metavar="URL", help="Database whose rows --query asks for; see docs/sources.md."
    ),
    click.option("--query", metavar="SELECT|FILE", help="The query, or the file that it is in."),
    click.option("--kafka", metavar="BOOTSTRAP", help="Read rows from the --topic of a broker."),
    click.option("--topic", help="Kafka topic of rows, a JSON object a message."),
    click.option("--label-topic", metavar="TOPIC", help="Kafka topic of labels, joined by --key."),
    click.option("--key", metavar="COLUMN", help="Column that rows and labels are joined by."),
    click.option(
        "--kafka-group", metavar="GROUP",
        help="Consumer group whose offsets are committed. [default: selfheal]",
    ),
    click.option("--kafka-config", type=ROWS_FILE, help="File of librdkafka settings, key=value."),
    click.option(
        "--train", type=ROWS_FILE,
        help="Of a stream: labelled table to train on. [default: its first rows]",
    ),
    click.option(
        "--train-rows", type=int,
        help="Of a stream: first rows, which train the network. [default: 1000]",
    ),
    click.option(
        "--max-wait", metavar="SECONDS", type=float,
        help="Of a stream: after which a batch that is not full is scored. [default: 10]",
    ),
    click.option(
        "--max-rejects", type=int,
        help="Rows that are put aside before the run stops. [default: 100]",
    ),
    click.option(
        "--reject-misfits/--no-reject-misfits", default=None,
        help="Put rows aside that are not what the others are, or stop at the first. "
        "[default: put aside]",
    ),
)  # fmt: skip
