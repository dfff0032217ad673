"""How commands talk: tables on a terminal, one JSON document for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from selfheal_cli.actor import clock
from selfheal_cli.cli.command import WIDE
from selfheal_cli.visible import visible

PIPE_WIDTH = 160
LABEL_WIDTH = 20  # that the first column of text keeps, or its longest cell
WORD = 16  # a longer one, such as a hash, may be broken
APART = 2  # spaces between columns
EMPTY = ("", "-")  # cells
Part = str | tuple[str, str]


def make_console(*, least: int = 0) -> Console:
    """Standard output, at ``least`` so wide; plain in a pipe, and wide there unless COLUMNS says
    how wide.
    """
    wide = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    console = Console(file=sys.stdout, highlight=False, width=wide, soft_wrap=False)
    console.width = max(console.width, least)
    return console


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


@contextmanager
def counting(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar on standard error that is told what was done; in a pipe a line for each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(file=sys.stderr, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)  # ours: a description is markup

        def on_done(done: str) -> None:
            progress.update(task, advance=1)
            if hidden and not quiet:
                click.echo(visible(done), err=True)

        yield on_done


def line(*parts: Part) -> Text:
    """Text for rich: the one way in, past its markup. A part with a style is (text, style)."""
    rich_text = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        rich_text.append(visible(text), style)
    return rich_text


def is_wide() -> bool:
    """Whether the command was asked for ``--wide``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(WIDE, False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Part]]) -> None:
    """A table on standard output: as wide as that is, or with ``--wide`` as wide as it needs."""
    room = sys.maxsize if is_wide() else make_console().width
    shown = make_table(title, columns, rows, room=room)
    make_console(least=shown.width).print(shown)


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Part]], *, room: int | None = None
) -> Titled:
    """A table that fits into ``room`` characters (the terminal's by default) in whole words.

    A name may be marked: ``>NAME`` is a column of figures, aligned to the right and never broken;
    ``+NAME`` and ``+>NAME`` are left to ``--wide``, which has room for everything that holds
    anything. Where it is too narrow even so, columns go from the right, but never the first. Every
    text stands as it is.
    """
    cells = [[line(cell) for cell in row] for row in rows]
    room = make_console().width if room is None else room
    known = [
        (place, name)
        for place, name in enumerate(columns)
        if not name.startswith("+") or any(row[place].plain not in EMPTY for row in cells)
    ]
    shown = [_Column(place, name, cells) for place, name in known
             if room == sys.maxsize or not name.startswith("+")]  # fmt: skip
    left = len(shown)
    while left > 1 and _needed(shown[:left]) > room:
        left -= 1
    widths = _widths(shown[:left], room)
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
                  collapse_padding=True)  # fmt: skip
    for column, width in zip(shown[:left], widths, strict=True):
        side: Literal["left", "right"] = "right" if column.figures else "left"
        table.add_column(line(column.name), justify=side, overflow="fold", width=width)
    for row in cells:
        table.add_row(*(row[column.place] for column in shown[:left]))
    hidden = _hidden([name for _, name in known], shown[:left])
    under = [line((hidden, "dim"))] if hidden else []
    return Titled(line((title, "italic")), table, *under, width=sum(widths) + APART * (left - 1))


class Titled(Group):
    """A table of so many characters with its title, and what is not shown of it."""

    def __init__(self, *parts: RenderableType, width: int) -> None:
        super().__init__(*parts)
        self.width = width


class _Column:
    """How wide a column is, and how narrow it can be."""

    def __init__(self, place: int, name: str, cells: Sequence[Sequence[Text]]) -> None:
        self.place = place
        self.name = visible(name.lstrip("+").removeprefix(">"))
        self.figures = name.lstrip("+").startswith(">")
        texts = [row[place].plain for row in cells]
        words = [word for text in (self.name, *texts) for word in text.split()]
        longest = max(map(cell_len, words), default=1)
        self.widest = max(map(cell_len, (self.name, *texts)), default=1) or 1
        self.narrowest = max(longest, *map(cell_len, texts), 1) if self.figures else longest
        if not self.figures:
            label = LABEL_WIDTH if place == 0 else 0
            self.narrowest = min(self.widest, max(min(longest, WORD), label))


def _hidden(columns: Sequence[str], shown: Sequence[_Column]) -> str:
    there = {column.name for column in shown}
    names = [name.lstrip("+>") for name in columns if name.lstrip("+>") not in there]
    how = "--wide" if any(name.startswith("+") for name in columns) else "a wider terminal"
    return f"With {how} also: {', '.join(names)}" if names else ""


def _needed(columns: Sequence[_Column]) -> int:
    return sum(column.narrowest + APART for column in columns) - APART


def _widths(columns: Sequence[_Column], room: int) -> list[int]:
    """As wide as each is; what is too much is taken from the widest that has something to give."""
    widths = [column.widest for column in columns]
    over = sum(widths) + APART * (len(widths) - 1) - room
    while over > 0:
        spare = [place for place, column in enumerate(columns) if widths[place] > column.narrowest]
        if not spare:
            return [min(width, room) for width in widths]
        widths[max(spare, key=widths.__getitem__)] -= 1
        over -= 1
    return widths


def figure(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things, with the word that goes with it.

    >>> counted(1, "heal"), counted(3, "heal"), counted(1, "entry", "entries")
    ('1 heal', '3 heals', '1 entry')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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
