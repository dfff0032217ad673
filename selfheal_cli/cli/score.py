"""``selfheal score``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command, section
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName

if TYPE_CHECKING:
    from selfheal_cli.pipeline.offline.part_scorer import RowsIn
    from selfheal_cli.pipeline.offline.scoring import ScoredTable, ScoreRest


@click.command("score", cls=Command)
@click.argument("paths", nargs=-1, metavar="INPUT OUTPUT", type=click.Path(path_type=Path))
@options.model
@click.option(
    "--version",
    "chosen",
    type=VersionName(),
    default="champion",
    show_default=True,
    help="Version to score with; one of an alias stays the same to the end.",
)
@click.option(
    "--keep",
    metavar="COLUMN",
    multiple=True,
    help="Column of INPUT that stands in OUTPUT too; repeatable. [default: all that are no inputs "
    "of the model]",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also what each column gave to the decision: gradient times input.",
)
@click.option(
    "--part-rows",
    type=click.IntRange(1, 100_000_000),
    default=200_000,
    show_default=True,
    help="Rows after which a killed job goes on, and of each file in a folder.",
)
@click.option("--force", is_flag=True, help="Write over an OUTPUT that is there.")
@options.engine(
    "Where it is scored: in this process, or by those of a Ray cluster, with the same "
    "bytes; RAY_ADDRESS names it, else it is this machine."
)
@section(
    options.WRITTEN.replace("DATA", "INPUT"),
    click.option(
        "--separator",
        metavar="CHAR",
        help="Character between the columns of a CSV file. [default: found in its head]",
    ),
    options.spelled,
)
@section(options.ROWS, options.query)
@options.allow_module
@options.device
@options.tracking_uri
@options.quiet
@options.as_json
def command(
    paths: tuple[Path, ...],
    model_name: str,
    chosen: str,
    keep: tuple[str, ...],
    explain: bool,
    part_rows: int,
    force: bool,
    engine: str,
    tracking_uri: str | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Score the rows of INPUT with one version, and write OUTPUT: score, decision, version.

    INPUT is a CSV, Parquet or NDJSON file, a folder of Parquet parts, or with --sql and --query
    left out. OUTPUT ends in .csv, .csv.gz or .parquet, or is a folder of Parquet parts. A row that
    cannot be scored has its reason in the column problem. OUTPUT is there once it is whole: a
    killed job leaves OUTPUT.unfinished, and the same command goes on with it.
    """
    from selfheal_cli.cli.version_name import version_number
    from selfheal_cli.pipeline.offline.scoring import ScoreJob, score_table
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    rows, out = _places(paths, given)
    registry = MlflowRegistry(tracking_uri)
    job = ScoreJob(
        rows=rows,
        output=out,
        model=model_name,
        chosen=chosen,
        version=lambda: version_number(registry, model_name, chosen),
        keep=keep or None,
        explain=explain,
        part_rows=part_rows,
        force=force,
    )
    score_rest = _on(engine)
    with _counting(quiet=quiet or as_json) as told:
        done = score_table(job, registry, told, score_rest)
    _tell(done, model_name, out, as_json=as_json)


def _on(engine: str) -> ScoreRest | None:
    """What scores the rows; None: this process."""
    if engine == "local":
        return None
    from selfheal_cli.engine.cluster import require_ray
    from selfheal_cli.engine.scoring import score_on_cluster

    require_ray()
    return score_on_cluster


def _places(paths: tuple[Path, ...], given: dict[str, Any]) -> tuple[RowsIn, Path]:
    """Where rows come from, and where the answer goes."""
    asked = given["sql"] is not None
    if asked != (given["query"] is not None):
        raise click.UsageError("--sql and --query go together")
    wanted = "OUTPUT" if asked else "INPUT and OUTPUT"
    if len(paths) != (1 if asked else 2):
        raise click.UsageError(f"{wanted} {'is' if asked else 'are'} needed, and nothing else")
    return _rows(None if asked else paths[0], given), paths[-1]


def _rows(path: Path | None, given: dict[str, Any]) -> RowsIn:
    from selfheal_cli.cli.configured import query_text
    from selfheal_cli.config import checked
    from selfheal_cli.config_sources import (
        NDJSON_SUFFIXES,
        FolderSettings,
        NdjsonSettings,
        SqlSettings,
        TableSettings,
    )

    spelled = {name: value for name, value in given.items() if value not in (None, ())}
    values: dict[str, Any] = {**spelled, "target": ""}  # no column is one here
    if path is None:
        values |= {"url": values.pop("sql"), "query": query_text(values["query"])}
        return checked(SqlSettings, values, where="options")
    values["path"] = path
    if path.is_dir():
        return checked(FolderSettings, values, where="options")
    if path.suffix.lower() in NDJSON_SUFFIXES:
        return checked(NdjsonSettings, values, where="options")
    return checked(TableSettings, values, where="options")


@contextmanager
def _counting(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Rows that are written, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("rows", total=None)
        yield lambda rows: progress.update(task, completed=rows)


def _tell(done: ScoredTable, model: str, out: Path, *, as_json: bool) -> None:
    from selfheal_cli.cli import output

    if as_json:
        output.print_json(
            {
                "model": model,
                "version": done.version,
                "output": str(out),
                "rows": done.rows,
                "decisions": done.decisions,
                "unscored": done.unscored,
                "resumed_after": done.resumed_after,
                "notes": done.notes,
            }
        )
        return
    after = f", after the {done.resumed_after:,} of before" if done.resumed_after else ""
    say(f"{out}: {output.counted(done.rows, 'row')} scored with '{model}' v{done.version}{after}")
    shares = (f"{label} {count / done.rows:.1%}" for label, count in done.decisions.items())
    say(f"decisions: {', '.join(shares)}")
    if done.unscored:
        say(f"{output.counted(done.unscored, 'row')} without a score, see the column problem")
    for what, count in done.notes.items():
        say(f"{what}: {count:,}")
