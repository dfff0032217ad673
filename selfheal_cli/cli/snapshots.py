"""``selfheal snapshots``."""

from __future__ import annotations

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.scores import title_of

FIGURES = ("f1", "accuracy", "roc_auc")
SORTS = ("version", "f1", "accuracy", "precision", "recall", "roc_auc", "pr_auc", "lift_f1")

MANY = 1_000  # versions that are counted, which one query tells; beyond it takes minutes


@click.command("snapshots", cls=Command)
@click.option(
    "--phase",
    type=click.Choice(["baseline", "pre-heal", "post-heal", "rejected"]),
    help="List only versions of this phase.",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="version",
    show_default=True,
    help="Sort by this, highest first.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Rows to list.",
)
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(
    phase: str | None,
    sort: str,
    limit: int,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List a model's snapshots: version, phase, batch, figures with the rows behind them, aliases.

    A pre-heal snapshot that is the version before it is listed under that one's number.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.records import Phase, spelled
    from selfheal_cli.registry.base import snapshots
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    wanted = Phase(phase) if phase else None
    versions = snapshots(registry, model_name, phase=wanted, sort=sort, limit=limit)
    if as_json:
        output.print_json([version.as_dict() for version in versions])
        return
    figures = FIGURES if sort in ("version", *FIGURES) else (*FIGURES, sort)
    rows = [
        [
            f"v{version.version}",
            version.phase.value,
            str(version.batch),
            *(output.figure(version.metrics.get(name)) for name in figures),
            f"{version.eval_rows:,}",
            spelled(version.tags["selfheal.evaluation"]),
            ", ".join(version.aliases),
        ]
        for version in versions
    ]
    numbers = len({version.version for version in versions})
    listed = output.counted(numbers, "version")
    if len(versions) == limit:
        there = len(registry.numbers(model_name, enough=MANY))
        listed = f"{numbers:,} of {there:,} {'versions or more' if there == MANY else 'versions'}"
    first = "f1" if sort == "version" else sort
    titles = (f"{'' if name == first else '+'}>{title_of(name)}" for name in figures)
    columns = (">version", "phase", ">batch", *titles, ">rows", "+scored on rows", "alias")
    order = "newest first" if sort == "version" else f"highest {title_of(sort)} first"
    title = f"Model '{model_name}': {listed}, {order}"
    output.print_table(title, columns, rows)
