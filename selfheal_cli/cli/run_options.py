"""Options that make a run's configuration: shared by ``run`` and ``compare``."""

from __future__ import annotations

from pathlib import Path

import click

from selfheal_cli.cli import options

FILE = click.Path(path_type=Path, dir_okay=False)
# Which columns of a table there are, and which is the target.
columns = options.group(
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
data = options.group(
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
learning = options.group(
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
stream = options.group(
    click.option(
        "--drift-strength",
        type=float,
        help="Of the synthetic stream: how far the normals' V14 moves down. [default: 2.2]",
    ),
    click.option("--batches", type=int, help="Batches to stream. [default: 25, or all of DATA]"),
    click.option("--batch-size", type=int, help="Rows a batch. [default: 100]"),
    click.option("--seed", type=int, help="Of data, initialisation and training. [default: 42]"),
    options.policy,
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
