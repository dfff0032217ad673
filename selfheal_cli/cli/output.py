"""How commands talk: tables on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfheal_cli.actor import clock
from selfheal_cli.visible import visible

PIPE_WIDTH = 160
Part = str | tuple[str, str]


def make_console() -> Console:
    """Standard output; plain and wide in a pipe."""
    wide = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, highlight=False, width=wide, soft_wrap=False)


def print_json(document: Any) -> None:
    """The one document of ``--json``."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_json_with(document: dict[str, Any], name: str, values: Iterable[Any]) -> None:
    """The same, with a list in place of the empty one under ``name``, that is never whole in
    memory.
    """
    from selfheal_cli.report.export import json_list

    text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
    before, empty, after = text.partition(f'\n  "{name}": []')
    click.echo(before + empty.removesuffix("[]"), nl=False)
    for part in json_list(values, indent="  "):
        click.echo(part, nl=False)
    click.echo(after)


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal that is told how much is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = make_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=0)  # ours: a description is markup

        def on_left(left: int) -> None:
            total = max(left, int(progress.tasks[task].total or 0))
            progress.update(task, total=total, completed=total - left)

        yield on_left


def line(*parts: Part) -> Text:
    """Text for rich: the one way in, past its markup. A part with a style is (text, style)."""
    rich_text = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        rich_text.append(visible(text), style)
    return rich_text


def make_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Part]]) -> Table:
    """A table whose columns of numbers (marked ``>NAME``) are aligned to the right.

    Every text in it stands as it is.
    """
    table = Table(title=line(title), title_justify="left", header_style="bold")
    for name in columns:
        right = name.startswith(">")
        header = line(name.removeprefix(">"))
        table.add_column(header, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(line, row))
    return table


def figure(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def age(then_ms: int) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, clock().timestamp() - then_ms / 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def require_log(run_name: str) -> Path:
    """The log of a run in this folder; raises `EventLogError` where it is not here."""
    from selfheal_cli.errors import EventLogError
    from selfheal_cli.events.archive import find_run

    log = find_run(run_name)
    if log is None:
        raise EventLogError(
            f"no run '{run_name}' in mlruns/selfheal/runs of this folder: stand in the folder in "
            "which it was begun"
        )
    return log


def log_of(run_name: str, tracking_uri: str | None, into: Path) -> Path:
    """The log of a run; fetched into ``into`` where it is not in this folder.

    Raises `RegistryError` where the registry does not have it either.
    """
    from selfheal_cli.errors import EventLogError
    from selfheal_cli.events.archive import LATEST, LOG_NAME, find_run

    log = find_run(run_name)
    if log is not None:
        return log
    if run_name == LATEST:
        raise EventLogError("no run was made in this folder: mlruns/selfheal/runs is empty")
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return MlflowRegistry(tracking_uri).run_file(run_name, LOG_NAME, into)
