"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from selfheal_cli.cli.command import (
    COMMON,
    CONFIG,
    MODEL_NAME,
    NO_CONFIG,
    SET,
    UNNAMED,
    WIDE,
    Decorator,
    group,
    hidden,
    section,
)
from selfheal_cli.cli.part_choice import PartOption


def _checked_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        if ctx.resilient_parsing:
            return None
        from selfheal_cli.cli.configured import default_model_name, only_model

        named = default_model_name(ctx)
        if named is None:
            ctx.meta[UNNAMED] = str(param.name), only_model
        return named
    return checked_name(ctx, param, value)


def checked_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A registered model's name, as click hands it in."""
    if not MODEL_NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: letters, digits, space, '.', '_' and '-', at most 128, are allowed"
        )
    return value


def _either(argument: str, option: str, choose: Callable[..., Any], about: str) -> Decorator:
    """What a command is about, as its argument or by the option of the same name elsewhere."""

    def both(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        named = ctx.meta.get(option)
        if named is not None and value is not None:
            raise click.UsageError(f"{str(param.name).upper()} and {option} exclude each other")
        return choose(ctx, param, value if named is None else named)

    return group(
        click.argument(argument, required=False, callback=both),
        click.option(
            option,
            "named",
            metavar="RUN" if option == "--run" else "NAME",
            is_eager=True,
            expose_value=False,
            callback=lambda ctx, param, value: ctx.meta.__setitem__(option, value),
            help=about,
        ),
    )


reason: Decorator = click.option(
    "--reason", default="by hand", show_default=True, help="Why; kept in the history."
)
yes: Decorator = click.option("--yes", is_flag=True, help="Do not ask.")


def run(default: str | None = None) -> Decorator:
    """RUN or ``--run RUN``: an id, its beginning, or latest."""
    shown = "" if default is None else f" [default: {default}]"
    return _either(
        "run", "--run", lambda ctx, param, value: value or default, f"The same as RUN.{shown}"
    )


def _store(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None or ctx.resilient_parsing:
        return value
    from selfheal_cli.cli.configured import default_store

    return default_store(ctx)


def _allow(names: tuple[str, ...]) -> None:
    from selfheal_cli.model.allowed import allow

    allow(names)


# The file that the other options stand over; read by `selfheal_cli.cli.configured`.
config_file: Decorator = section(
    COMMON,
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
# Any key of the file.
settings: Decorator = section(
    COMMON,
    click.option(
        "--set",
        metavar="KEY=VALUE",
        multiple=True,
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(SET, value),
        help="Any key of selfheal.yaml, such as heal.window=10 or policy.cooldown=5; repeatable; "
        "docs/configuration.md has all.",
    ),
)
tracking_uri: Decorator = section(
    COMMON,
    click.option(
        "--tracking-uri",
        metavar="URI",
        callback=_store,
        help="MLflow store. [default: MLFLOW_TRACKING_URI, else selfheal.yaml's, else "
        "sqlite:///mlflow.db]",
    ),
    config_file,
)
log: Decorator = section(
    COMMON,
    click.option(
        "--log",
        metavar="URI",
        envvar="SELFHEAL_LOG",
        help="The log of answers and labels that replicas on any machine share, in PostgreSQL: "
        "postgresql://USER@HOST/DATABASE. [default: SELFHEAL_LOG, else a file of this folder]",
    ),
)
allow_module: Decorator = section(
    COMMON,
    click.option(
        "--allow-module",
        "allow_module",
        multiple=True,
        metavar="NAME",
        expose_value=False,
        callback=lambda ctx, param, value: _allow(value),
        help="Python module whose classes a wrapped model may name, beside those that were "
        "wrapped here; repeatable.",
    ),
)
model: Decorator = click.option(
    "--model",
    "model_name",
    metavar="NAME",
    callback=_checked_name,
    help="Registered model. [default: selfheal.yaml's, else the only one]",
)
served_model: Decorator = _either(
    "name",
    "--model",
    _checked_name,
    "The same as NAME. [default: selfheal.yaml's, else the only one]",
)
policy: Decorator = click.option(
    "--policy",
    metavar="NAME|FILE",
    help="Thresholds; see 'selfheal policy list'. [default: selfheal.yaml's, else default]",
)
quiet: Decorator = section(
    COMMON, click.option("--quiet", is_flag=True, help="Show only the results, no progress.")
)
wide: Decorator = section(
    COMMON,
    click.option(
        "--wide",
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(WIDE, value),
        help="Show every column of a table, however wide that is.",
    ),
)


def engine(about: str) -> Decorator:
    """``--engine``: on which processes a command works."""
    return click.option(
        "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
        help=f"{about} Needs selfheal-cli[ray].",
    )  # fmt: skip


def _use_device(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """This process and those that it starts compute a wrapped model there."""
    if value is not None:
        os.environ["SELFHEAL_DEVICE"] = value


device: Decorator = section(
    COMMON,
    click.option(
        "--device", type=click.Choice(["cpu", "cuda", "mps", "auto"]), expose_value=False,
        callback=_use_device, help="Where a wrapped model computes. [default: cpu]",
    ),
)  # fmt: skip
as_json: Decorator = section(
    COMMON,
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    ),
)


# What people type daily and the article's six; every other key of the file is ``--set KEY=VALUE``.


FILE = click.Path(path_type=Path, dir_okay=False)
ROWS, WATCHED, HEALING = "Rows", "What is watched", "Healing"
WRITTEN = "How DATA is written; 'selfheal init' finds out"
ARTICLE, LENGTH, KEPT = "As in the article", "Length and repetition", "What is kept"

target: Decorator = group(
    click.option(
        "--target", metavar="COLUMN", help="Column of DATA to predict; two or more values."
    ),
    click.option(
        "--positive",
        metavar="VALUE",
        help="The target's positive value. [default: a word for true, else the rarer value]",
    ),
    click.option("--drop", metavar="COLUMN", multiple=True, help="Leave a column out; repeatable."),
)
kinds_of_columns: Decorator = group(
    click.option(
        "--categorical",
        metavar="COLUMN",
        multiple=True,
        help="Take a column of numbers as categories; repeatable.",
    ),
    click.option(
        "--separator",
        metavar="CHAR",
        help="Character between the columns of a CSV file. [default: found in its head]",
    ),
)
# How a table's texts are written.
spelled: Decorator = group(
    click.option(
        "--decimal",
        type=click.Choice([".", ","]),
        help="Read numbers as people write them, such as '€ 1.234,50' or '12 %': the decimal sign.",
    ),
    click.option(
        "--thousands",
        type=click.Choice([",", ".", " ", "'"]),
        help="What separates thousands in them.",
    ),
    click.option("--encoding", metavar="NAME", help="Of a CSV file, such as cp1252."),
    click.option(
        "--date-format",
        metavar="FORMAT",
        multiple=True,
        help="Of dates that are not ISO 8601, such as '%d.%m.%Y %H:%M'; repeatable.",
    ),
    click.option(
        "--missing",
        "missing_values",
        metavar="TEXT",
        multiple=True,
        help="A text that is a missing value, such as '-'; repeatable.",
    ),
)
written: Decorator = group(
    spelled,
    click.option(
        "--sort-by", metavar="COLUMN", help="Put the rows in the order of a column of times."
    ),
)
clocks: Decorator = group(
    click.option("--time", metavar="COLUMN", help="Column with the row's time."),
    click.option(
        "--label-time", metavar="COLUMN", help="Column with the time at which the label came."
    ),
)
# Which columns of a table there are, and which is the target.
columns = group(target, kinds_of_columns)
query: Decorator = group(
    click.option(
        "--sql",
        metavar="URL",
        help="Database whose rows --query asks for; see docs/sources.md.",
    ),
    click.option(
        "--query", metavar="SELECT|FILE", help="The query itself, or a file that holds it."
    ),
)
# What streams, and what is watched in it.
data = group(
    click.argument("data", required=False, type=click.Path(path_type=Path)),
    section(ROWS, target),
    section(WRITTEN, written),
    hidden(kinds_of_columns, click.option("--train-fraction", type=float), clocks),
    section(
        WATCHED,
        click.option(
            "--sensitive",
            metavar="FEATURE",
            help="Numeric feature whose drift is watched; auto for the one that the network's "
            "decisions hang on most (gradient times input). [default: V14, or the first rule's]",
        ),
        click.option(
            "--rule",
            "rules",
            cls=PartOption,
            part="rule",
            metavar="RULE",
            multiple=True,
            help="Domain rule such as 'V14 < -1.5 and V9 > 0 => 1'; repeatable; see "
            "docs/rules.md. [default: the article's, or for DATA the best one-split rule of the "
            "training part]",
        ),
        click.option(
            "--rules",
            "rules_file",
            type=FILE,
            help="YAML file of named rules, before those of --rule; several vote by confidence.",
        ),
    ),
)
negative_after: Decorator = click.option(
    "--negative-after",
    metavar="TIME",
    help="Take a row that nobody complained about for so long, such as 60d, as negative; see "
    "docs/label-regimes.md.",
)
label_only_when: Decorator = click.option(
    "--label-only-when",
    metavar="CONDITION",
    help="Rows that get a label at all, such as 'decision = 0' where what is flagged is declined; "
    "see docs/label-regimes.md.",
)
# When labels come, and what is done with them.
learning = group(
    section(
        HEALING,
        click.option(
            "--labels",
            metavar="full|delayed:K|none",
            help="When labels come: with their batch, K batches later, or never. [default: full]",
        ),
        negative_after,
        label_only_when,
        click.option(
            "--objective",
            metavar="accuracy|f1|cost:FN,FP",
            help="What decisions are for: sets each snapshot's threshold. [default: accuracy]",
        ),
    ),
    hidden(
        click.option(
            "--assume",
            type=click.Choice(["positives-stable", "negatives-stable", "inputs-shifted"]),
        )
    ),
)
# The thresholds of operations, the article's parameters, length and seed.
stream = group(
    section(WATCHED, policy),
    hidden(click.option("--thresholds", type=FILE)),
    section(
        ARTICLE,
        click.option(
            "--drift-strength",
            type=float,
            help="How far the normals' V14 moves down in the synthetic stream. [default: 2.2]",
        ),
        click.option("--heal-steps", type=int, help="Gradient steps in each heal. [default: 5]"),
        click.option("--heal-lr", type=float, help="Learning rate of a heal. [default: 0.003]"),
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
            help="Roll back once the mean F1 fell by this. [default: the policy's, 0.08]",
        ),
    ),
    section(
        LENGTH,
        click.option(
            "--batches", type=int, help="Batches to stream. [default: 25, or all of DATA]"
        ),
        click.option("--batch-size", type=int, help="Rows in each batch. [default: 100]"),
        click.option(
            "--seed", type=int, help="Draw data, network and training from this seed. [default: 42]"
        ),
    ),
    hidden(click.option("--experiment")),
)
watching: Decorator = section(
    WATCHED,
    click.option(
        "--monitor",
        "monitors",
        cls=PartOption,
        part="monitor",
        metavar="NAME[:KEY=VALUE,...]",
        multiple=True,
        help="Watch the stream with a monitor as well, such as psi or "
        "'fidi:on=V14+V9,threshold=0.5,triggers=heal'; repeatable; see docs/monitors.md.",
    ),
)
segmenting: Decorator = section(
    WATCHED,
    click.option(
        "--segment-by",
        metavar="COLUMN",
        help="Watch each value of a column as a segment of its own, such as each country; see "
        "docs/segments.md.",
    ),
)


# Rows from elsewhere than a file.
elsewhere = group(
    section(
        ROWS,
        click.option(
            "--source",
            "own",
            cls=PartOption,
            part="source",
            metavar="NAME[:KEY=VALUE,...]",
            help="Rows that another package gives; see docs/own-parts.md.",
        ),
        query,
        click.option(
            "--kafka", metavar="BOOTSTRAP", help="Read rows from the --topic of a broker."
        ),
        click.option("--topic", help="Kafka topic of rows, a JSON object a message."),
    ),
    hidden(
        click.option("--label-topic"),
        click.option("--key"),
        click.option("--kafka-group"),
        click.option("--kafka-config", type=FILE),
        click.option("--train", type=FILE),
        click.option("--train-rows", type=int),
        click.option("--max-wait", type=float),
        click.option("--max-rejects", type=int),
        click.option("--reject-misfits/--no-reject-misfits", default=None),
    ),
)
