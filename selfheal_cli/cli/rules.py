"""``selfheal rules``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray
    from selfheal_cli.rules.check import Check, Checked, Counts
    from selfheal_cli.rules.search import Suggestion
    from selfheal_cli.sources.table import WholeTable

COLUMNS = ("rule", "=>", ">fires on", "+>coverage", ">precision", ">base rate", "+>recall",
           "+>of labels", "+>network against", "stale")  # fmt: skip
MOST_SHOWN = 20
DATA = click.Path(path_type=Path)


@click.group("rules", cls=Group)
def command() -> None:
    """Check a file of domain rules against data, or learn some; see docs/rules.md."""


@command.command("check")
@click.argument("file", type=DATA)
@click.argument("data", type=DATA)
@run_options.columns
@click.option("--model", metavar="NAME", help="Hold the rules against this model's champion.")
@click.option(
    "--latest",
    type=click.FloatRange(0.01, 0.9),
    default=0.2,
    show_default=True,
    help="Last share of the rows, in which a rule may turn out stale.",
)
@options.policy
@options.tracking_uri
@options.wide
@options.as_json
def check(
    file: Path,
    data: Path,
    model: str | None,
    latest: float,
    policy: str | None,
    tracking_uri: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Hold the rules of FILE against the rows of DATA, which are in time order.

    For each rule: on how many rows it fires, its precision and recall where --target has labels,
    rows whose label the network of --model finds improbable, rows where two rules contradict each
    other, and whether it has become stale. The policy says what is improbable and stale.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.rules.check import check_rules
    from selfheal_cli.rules.ruleset import check_features, read_rules

    rules = read_rules(file)
    thresholds = standing.policy_here(click.get_current_context(), policy)
    table = _read(data, given)
    check_features([named.rule for named in rules], table.numeric, table.text)
    labels, probabilities = _asked(model, tracking_uri, table)
    checked = check_rules(
        rules,
        table.columns,
        table.y,
        classes=len(labels) or max(2, *(named.rule.label + 1 for named in rules)),
        probabilities=probabilities,
        least=thresholds.conflict_probability,
        z=thresholds.rule_rate_z,
        latest=latest,
    )
    if as_json:
        output.print_json(_document(checked, labels))
    else:
        _show(checked, labels, f"{file} on {data}, {len(table):,} rows")


@command.command("suggest", old={"--max-rules": "--limit"})
@click.argument("data", type=DATA)
@run_options.columns
@click.option(
    "--limit",
    "max_rules",
    type=click.IntRange(1, 50),
    default=5,
    show_default=True,
    help="Rules to print at most.",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 6),
    default=3,
    show_default=True,
    help="Splits of the tree, one above the other: the questions of a rule.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0.05, 0.9),
    default=0.3,
    show_default=True,
    help="Last share of the rows; a rule must hold on it too.",
)
@options.as_json
def suggest(
    data: Path, max_rules: int, depth: int, held_out: float, as_json: bool, **given: Any
) -> None:
    """Learn short rules from the labelled rows of DATA, which are in time order.

    Paths of decision trees, without the questions that gain nothing, and only those that hold on
    later rows. What is printed is a file of rules; each note has the figures.
    """
    if given["target"] is None:
        raise click.UsageError(f"--target COLUMN is needed with {data}")
    from selfheal_cli.cli import output
    from selfheal_cli.rules.search import suggest_rules

    table = _read(data, given)
    suggestions = suggest_rules(
        table.columns,
        table.numeric,
        table.text,
        table.y,
        max_rules=max_rules,
        depth=depth,
        held_out=held_out,
    )
    if as_json:
        output.print_json(
            {"labels": list(table.labels), "rules": [_told(one) for one in suggestions]}
        )
        return
    _print_file(suggestions, table, held_out)


def _read(data: Path, given: dict[str, Any]) -> WholeTable:
    from selfheal_cli.sources.table import read_whole

    return read_whole(data, **given)


def _asked(
    model: str | None, tracking_uri: str | None, table: WholeTable
) -> tuple[tuple[str, ...], FloatArray | None]:
    """Labels, and the champion's probabilities where a model is named."""
    if model is None:
        return table.labels, None
    from selfheal_cli.pipeline.offline.rescore import served_probabilities
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return served_probabilities(MlflowRegistry(tracking_uri), model, table)


def _print_file(suggestions: tuple[Suggestion, ...], table: WholeTable, held_out: float) -> None:
    """A file of rules; what is not a rule is a comment."""
    from selfheal_cli.rules.ruleset import NamedRule, write_rules

    labels = ", ".join(f"{place} is {label!r}" for place, label in enumerate(table.labels))
    head = f"# {table.path.name}, {len(table):,} rows, the last {held_out:.0%} held out; {labels}"
    say(head)
    if not suggestions:
        click.echo("# No rule holds on the rows held out.\n[]")
        return
    named = [
        NamedRule(f"suggested-{place}", one.rule, note=_note(one))
        for place, one in enumerate(suggestions, 1)
    ]
    click.echo(write_rules(named), nl=False)


def _note(one: Suggestion) -> str:
    return f"held out: {_figures(one.held_out)}; learned from: {_figures(one.learned)}"


def _figures(counts: Counts) -> str:
    return (
        f"right on {_share(counts.precision)} of {counts.judged:,} rows (base rate "
        f"{_share(counts.base_rate)}), coverage {_share(counts.coverage)}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _show(checked: Check, labels: tuple[str, ...], title: str) -> None:
    from selfheal_cli.cli import output

    rows = [_row(one, labels) for one in checked.rules]
    output.print_table(title, COLUMNS, rows)
    shown = checked.contradictions[:MOST_SHOWN]
    if shown:
        pairs = [[one.first, one.second, f"{one.both:,}"] for one in shown]
        output.print_table("Contradictions", ("rule", "and rule", ">rows"), pairs)
    right = ""
    if checked.judged:
        share = _share(checked.right / checked.judged)
        right = f"; right on {share} of {checked.judged:,} labelled ones"
    say(
        f"The vote labels {checked.voted:,} rows{right}. It is a tie on "
        f"{checked.tied:,}, and no rule fires on {checked.silent:,}."
    )


def _row(one: Checked, labels: tuple[str, ...]) -> list[str]:
    counts, label = one.counts, one.named.rule.label
    return [
        one.named.name,
        labels[label] if labels else str(label),
        f"{counts.fired:,}",
        _share(counts.coverage),
        _share(counts.precision),
        _share(counts.base_rate),
        _share(counts.recall),
        f"{counts.judged:,}",
        "-" if one.disagreed is None else f"{one.disagreed:,}",
        one.stale or "-",
    ]


def _document(checked: Check, labels: tuple[str, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    whole = asdict(checked)
    whole["rules"] = [
        {
            "name": one.named.name,
            "owner": one.named.owner,
            "note": one.named.note,
            "rule": str(one.named.rule),
            **_counted(one.counts),
            "disagreed": one.disagreed,
            "stale": one.stale,
        }
        for one in checked.rules
    ]
    return {"labels": list(labels), **whole}


def _told(one: Suggestion) -> dict[str, Any]:
    return {
        "rule": str(one.rule),
        "learned": _counted(one.learned),
        "held_out": _counted(one.held_out),
    }


def _counted(counts: Counts) -> dict[str, Any]:
    from dataclasses import asdict

    names = ("coverage", "precision", "recall", "base_rate")
    return asdict(counts) | {name: getattr(counts, name) for name in names}
