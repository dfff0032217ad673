"""``selfheal report``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("report", cls=Command, old={"--out": "--output"})
@options.run("latest")
@click.option(
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write. [default: report-RUN.html in this folder]",
)
@options.tracking_uri
@options.as_json
def command(run: str, out: Path | None, tracking_uri: str | None, as_json: bool) -> None:
    """Write the report of RUN: one HTML page that needs nothing else, from its event log alone.

    Verdict, what drifted, what was done, what it gave, versions and rollbacks, what to do next.
    RUN is an id, the beginning of one, or latest. A run that is not in this folder is fetched
    from the registry by its whole id.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.cli.output import log_of
    from selfheal_cli.errors import EventLogError
    from selfheal_cli.events.log import read
    from selfheal_cli.report.page import write_page
    from selfheal_cli.report.summary import tell

    with tempfile.TemporaryDirectory() as folder:
        log = log_of(run, tracking_uri, Path(folder))
        story = tell(read(log))
    if story.view.started is None:
        raise EventLogError(f"{log}: no run was begun in it, there is nothing to report")
    run_id = story.view.run_id
    path = write_page(story, out or Path(f"report-{run_id[:8]}.html"))
    if as_json:
        output.print_json({"run_id": run_id, "report": str(path)})
    else:
        say(f"Report of run {run_id} in {path}")
