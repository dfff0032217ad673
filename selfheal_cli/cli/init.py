"""``selfheal init``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.command import Command, section
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.settings.scaffold import Scaffold

SCHEMA = "selfheal.schema.json"  # beside the file, for editors


@click.command("init", cls=Command, old={"--out": "--output"})
@click.argument("data", required=False, type=click.Path(path_type=Path))
@run_options.columns
@run_options.clocks
@section(run_options.WRITTEN, run_options.written)
@click.option(
    "--output",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("selfheal.yaml"),
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option(
    "--schema", is_flag=True, help=f"Also write {SCHEMA} beside it, which editors check it by."
)
@options.as_json
def command(
    data: Path | None, out: Path, force: bool, schema: bool, as_json: bool, **columns: Any
) -> None:
    """Write a commented selfheal.yaml, filled from what is seen in DATA: CSV, Parquet or NDJSON.

    Its columns with their kinds, the likely target, ids and leaks, a rule, when labels come: look
    through it, then 'selfheal run' in its folder. Without DATA: for the article's stream.
    """
    given = [name for name, value in columns.items() if value]
    if data is None and given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} needs a DATA file")
    from selfheal_cli.cli import output
    from selfheal_cli.errors import ConfigurationError
    from selfheal_cli.settings.schema import schema_text

    if out.exists() and not force:
        raise ConfigurationError(
            f"{out}: is there already; --force writes over it, --output beside"
        )
    beside = out.parent / SCHEMA
    draft = _draft(data, out, columns, SCHEMA if schema or beside.exists() else None)
    if schema:
        _write(beside, schema_text())
    _write(out, draft.text)
    if as_json:
        output.print_json({"file": str(out), "notes": draft.notes,
                           "schema": str(beside) if schema else None})  # fmt: skip
        return
    for note in draft.notes:
        say(f"- {note}")
    there = "" if out == Path("selfheal.yaml") else f" --config {out}"
    say(f"Written {out}: look through it, then 'selfheal run{there}'.")


def _draft(data: Path | None, out: Path, columns: dict[str, Any], schema: str | None) -> Scaffold:
    """The text, which is read back as a run will read it."""
    from selfheal_cli.settings.findings import ScaffoldOptions
    from selfheal_cli.settings.resolve import resolve
    from selfheal_cli.settings.scaffold import draft_synthetic, draft_table
    from selfheal_cli.settings.sources import parse_document

    if data is None:
        draft = draft_synthetic(schema)
    else:
        named = data if data.is_absolute() else Path(os.path.relpath(data, out.parent))
        draft = draft_table(data, named.as_posix(), ScaffoldOptions(**columns), schema)
    resolve([parse_document(draft.text, str(out))])
    return draft


def _write(path: Path, text: str) -> None:
    from selfheal_cli.errors import StorageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written ({exc.strerror})") from exc
