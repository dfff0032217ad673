"""``selfheal ask-labels``."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.labels.estimate import Interval
    from selfheal_cli.labels.sampled import Sampled
    from selfheal_cli.labels.worth import Worth
    from selfheal_cli.pipeline.offline.asking import Asked
    from selfheal_cli.pipeline.offline.rows_to_ask import RowsToAsk

SPELLED = {
    "log_loss": "log loss",
    "positive_rate": "positive rate",
    "roc_auc": "ROC AUC",
    "f1": "F1",
}


class Share(click.ParamType[float]):
    """``4%`` or ``0.04``."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """A share above 0 and up to 1."""
        from selfheal_cli.config_labels import share as as_share

        try:
            share = float(as_share(value))
        except ValueError:
            share = float("nan")
        if not 0 < share <= 1:
            self.fail(f"{value!r}: a share such as 4% or 0.04, above 0 and up to 100%, is expected")
        return share


@click.command("ask-labels", cls=Command)
@options.served_model
@click.option("--run", "run_name", metavar="RUN", help="Ask for rows of a run: an id, or latest.")
@click.option(
    "--share", type=Share(), default="4%", show_default=True, help="How many of the rows are drawn."
)
@click.option("--limit", type=click.IntRange(min=1), help="List so many rows at most.")
@click.option(
    "--output", "out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="CSV file to write.  [default: standard output]",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Write over a FILE that is there.")
@options.log
@options.tracking_uri
@options.as_json
def command(
    name: str,
    run_name: str | None,
    log: str | None,
    share: float,
    limit: int | None,
    out: Path | None,
    force: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Draw rows by lot whose labels are worth asking for, and say what the answers tell of all.

    The rows that wait for a label come as CSV with ids and features; 'selfheal label FILE' takes
    them back, as /feedback does. Asked twice, the same rows come, without those that were answered.
    Where positives are rare, rows of a high score are drawn more often, and weighed for it.
    Figures called sampled are of asked rows alone, with an interval for all rows.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.errors import OptionError
    from selfheal_cli.pipeline.offline.asking import ask, save_csv, write_csv

    if out is not None and out.exists() and not force:
        raise OptionError(f"{out}: is there, perhaps with labels in it; --force writes over it")
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(name, run_name, log, tracking_uri, Path(folder))
        asked = ask(rows, share, limit)
    if out is not None:
        save_csv(asked, rows.names, out)
    if as_json:
        output.print_json(_document(rows, asked))
        return
    if out is None:
        write_csv(asked, rows.names, sys.stdout)
    for line in _told(rows, asked, out):
        say(line, err=out is None)


def rows_of(
    name: str, run_name: str | None, log: str | None, tracking_uri: str | None, into: Path
) -> RowsToAsk:
    """What was asked about: a served model's rows, or a run's."""
    from selfheal_cli.cli.output import require_log
    from selfheal_cli.pipeline.offline.rows_to_ask import RunRows, ServedRows
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    if run_name is None:
        return ServedRows(registry, name, log)
    return RunRows(registry, require_log(run_name), into)


def lines_of(result: Sampled, worth: Worth | None) -> list[str]:
    """The sampled figures, as people read them."""
    lines = [
        f"sampled {SPELLED.get(name, name).replace('_', ' ')} {_interval(one)}"
        for name, one in result.figures.items()
    ]
    return [*lines, *filter(None, (result.lacks, "" if worth is None else str(worth)))]


def document_of(result: Sampled, worth: Worth | None) -> dict[str, Any]:
    """The same for programs."""
    figures = {
        name: {"value": one.value, "low": one.low, "high": one.high}
        for name, one in result.figures.items()
    }
    return {
        "rows": result.rows, "asked": result.asked, "answered": result.answered,
        "unanswered": result.unanswered, "positives": result.positives, "sampled": figures,
        "lacks": result.lacks, "worth": None if worth is None else asdict(worth),
    }  # fmt: skip


def _interval(one: Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _document(rows: RowsToAsk, asked: Asked) -> dict[str, Any]:
    from selfheal_cli.pipeline.offline.asking import ID, KEY

    plan = asked.plan
    waiting = [
        {ID: one.id, KEY: one.key, "chance": one.chance, "values": one.values, asked.label: None}
        for one in asked.rows
    ]
    drawn = {"share": plan.share, "key": plan.key, "edges": plan.edges, "chances": plan.chances}
    return {"of": rows.where, **drawn, **document_of(asked.result, asked.worth), "waiting": waiting}


def _told(rows: RowsToAsk, asked: Asked, out: Path | None) -> list[str]:
    result, plan = asked.result, asked.plan
    by_score = "" if not plan.edges else ", more of high scores, since positives are rare"
    written = f" {len(asked.rows):,} of them are in {out}." if out is not None else ""
    return [
        f"{result.asked:,} of the {result.rows:,} rows of {rows.where} were drawn{by_score}; "
        f"{result.answered:,} are answered, {result.unanswered:,} wait for a label.{written}",
        *lines_of(result, asked.worth),
    ]
