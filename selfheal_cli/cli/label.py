"""``selfheal label``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.ask_labels import document_of, lines_of, rows_of
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("label", cls=Command)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@options.model
@click.option("--run", "run_name", metavar="RUN", help="They are of rows of a run: id or latest.")
@options.log
@options.tracking_uri
@options.as_json
def command(
    path: Path,
    model_name: str,
    run_name: str | None,
    log: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Take the labels that 'selfheal ask-labels' asked for: its CSV with the column label filled.

    A row without a label waits on. Labels of rows that were not asked for are taken, too, and are
    in no figure called sampled. One value that the target has not, and nothing is taken.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.pipeline.offline.asking import result_of, take

    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(model_name, run_name, log, tracking_uri, Path(folder))
        told = take(rows, path, actor(), clock().timestamp())
        result = result_of(rows)
    if as_json:
        output.print_json(asdict(told) | ({} if result is None else document_of(*result)))
        return
    also = {
        "for rows that nobody asked for": told.volunteered,
        "for rows that have a label": told.repeated,
        "another one than that, which does not count": told.other,
        "of rows that nobody knows": told.unknown,
    }
    counts = "".join(f"; {count:,} {what}" for what, count in also.items() if count)
    say(f"{output.counted(told.taken, 'label')} taken{counts}; {told.empty:,} left empty.")
    for line in lines_of(*result) if result is not None else ():
        say(line)
