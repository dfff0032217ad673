"""Options that make a run's configuration: shared by ``run`` and ``compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options, row_options
from selfheal_cli.cli.row_options import Decorator, group, known

if TYPE_CHECKING:
    from selfheal_cli.config import LabelSettings, MonitorSettings, Policy, RunConfig

POLICY_OPTIONS = ("fidi_threshold", "rollback_f1_drop", "conflict_min")
FILE = click.Path(path_type=Path, dir_okay=False)
# what `run` has beside the options here; each recipe is put in its place later
UNASKED: dict[str, Any] = {
    "recipe": "article",
    "heal_mode": None,
    "model_name": None,
    "export_dir": None,
    "no_plots": True,
    "monitors": (),
    "record_rows": None,
    "model": None,
    **dict.fromkeys(row_options.ELSEWHERE),
}


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


watching: Decorator = click.option(
    "--monitor",
    "monitors",
    metavar="NAME[:KEY=VALUE,...]",
    multiple=True,
    help="Watch the stream with a monitor as well, such as psi or "
    "'fidi:on=V14+V9,threshold=0.5,triggers=heal'; repeatable; see docs/monitors.md.",
)


def build_config(given: Mapping[str, Any]) -> RunConfig:
    """Options to configuration; raises `ConfigurationError` or click's usage error."""
    from selfheal_cli.config import HealSettings, NetworkSettings, RunConfig, checked
    from selfheal_cli.decide.objective import parse_objective

    data = row_options.named(given)
    row_options.refuse_ignored(given, data)
    recipe = given["recipe"] or ("anchored" if data else "article")
    rules = (*_rules_of(given["rules_file"]), *given["rules"])
    heal = {"recipe": recipe, "mode": given["heal_mode"], "steps": given["heal_steps"],
            "learning_rate": given["heal_lr"], "assume": given["assume"]}  # fmt: skip
    _refuse_gradient_options(given, recipe)
    named = ("sensitive", "batches", "batch_size", "seed", "model_name", "experiment", "export_dir")
    values: dict[str, Any] = {name: given[name] for name in named}
    values["model_name"] = given["model_name"] or (row_options.model_name(data) if data else None)
    values |= {
        "source": row_options.source_settings(given, data),
        "network": NetworkSettings(shadow="frozen" if data else "plain"),
        "heal": checked(HealSettings, known(heal), where="options"),
        "labels": _labels(given),
        "objective": parse_objective(given["objective"] or "accuracy"),
        "policy": _policy(given),
        "rules": rules or None,
        "monitors": _monitors(given["monitors"]),
        "plots": not given["no_plots"],
    }
    if data is None and not rules:
        from selfheal_cli.source.article import RULE

        values["rules"] = (RULE,)
    return checked(RunConfig, known(values), where="options")


def parse_labels(text: str | None, *, timed: bool) -> LabelSettings:
    """``full``, ``delayed:K`` or ``none``; raises `ConfigurationError` or click's usage error."""
    from selfheal_cli.config import LabelSettings, checked

    if timed:
        if text is not None:
            raise click.UsageError("--labels and --label-time exclude each other")
        return LabelSettings(regime="timed")
    regime, _, delay = ("full" if text is None else text).partition(":")
    if regime == "delayed" and delay:
        where = f"--labels {text}"
        found = checked(LabelSettings, {"regime": "delayed", "delay": delay}, where=where)
        return found if found.delay else LabelSettings()
    if delay or regime not in ("full", "none"):
        raise click.UsageError(
            f"--labels {text!r}: full, delayed:K or none is allowed, K in batches"
        )
    return checked(LabelSettings, {"regime": regime}, where="--labels")


def _monitors(texts: Sequence[str]) -> tuple[MonitorSettings, ...] | None:
    if not texts:
        return None
    from selfheal_cli.monitor.monitors.parse import parse_monitor

    return tuple(map(parse_monitor, texts))


def _labels(given: Mapping[str, Any]) -> LabelSettings:
    if given["label_topic"] is not None:
        from selfheal_cli.config import LabelSettings

        if given["labels"] is not None:
            raise click.UsageError("--labels and --label-topic exclude each other")
        return LabelSettings(regime="arriving")
    return parse_labels(given["labels"], timed=given["label_time"] is not None)


def _refuse_gradient_options(given: Mapping[str, Any], recipe: str) -> None:
    for name in ("heal_steps", "heal_lr"):
        if given[name] is not None and recipe == "anchored":
            raise click.UsageError(
                f"--{name.replace('_', '-')} is for --recipe article or gradient: an anchored heal "
                "has no steps and no learning rate"
            )


def _rules_of(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    from selfheal_cli.monitor.rule_file import read_rules

    return tuple(str(named.rule) for named in read_rules(file))


def _policy(given: Mapping[str, Any]) -> Policy:
    from selfheal_cli.config import Policy, checked
    from selfheal_cli.decide import policy_file

    policy = policy_file.load(given["policy"])
    if given["thresholds"] is not None:
        policy = policy_file.read_thresholds(given["thresholds"], policy)
    changed = known({name: given[name] for name in POLICY_OPTIONS})
    return checked(Policy, policy.model_dump() | changed, where="options")
