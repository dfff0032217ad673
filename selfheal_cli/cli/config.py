"""``selfheal config``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import run
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.settings.layers import Origin
    from selfheal_cli.settings.resolve import ResolvedSettings

NO_SETTING = ("resume", "no_wait", "quiet")  # options of a run that decide nothing of its result


@click.group("config", cls=Group)
def command() -> None:
    """Show, check and describe what a run is told; see docs/configuration.md."""


class Show(standing.ConfiguredCommand):
    """Takes every option of ``selfheal run`` that sets something."""

    def __init__(self, *arguments: Any, **given: Any) -> None:
        shown = [param for param in run.command.params if param.name not in NO_SETTING]
        super().__init__(*arguments, **{**given, "params": shown})


@command.command("show", cls=Show, old={"--export-dir": "--output"})
@click.pass_context
def show(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Show each value that 'selfheal run' with these options would have, and who says so.

    An option stands over a SELFHEAL_* variable, that over selfheal.yaml, that over the default.
    """
    from selfheal_cli.cli import output

    settled = standing.settle_here(ctx)
    path = standing.config_path(ctx)
    rows = list(_rows(settled))
    if as_json:
        values = {key: {"value": value, "from": str(origin), "kind": origin.kind}
                  for key, value, origin in rows}  # fmt: skip
        output.print_json({"file": str(path) if path else None, "values": values})
        return
    lines = [[key, _text(value), str(origin)] for key, value, origin in rows]
    title = f"What 'selfheal run' is told, with {path or 'no file'}"
    output.print_table(title, ("key", "value", "from"), lines)


@command.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Check FILE, or selfheal.yaml; exit 3 with file, line and key where it is wrong."""
    from selfheal_cli.settings.resolve import resolve
    from selfheal_cli.settings.sources import read_file
    from selfheal_cli.settings.variables import NAME

    path = file or NAME
    config = resolve([read_file(path)]).config
    say(f"{path}: a valid configuration of model '{config.model_name}'")


@command.command("schema", old={"--out": "--output"})
@click.option(
    "--output", "out", type=click.Path(path_type=Path, dir_okay=False), help="File to write it to."
)
def schema(out: Path | None) -> None:
    """Print the JSON schema of selfheal.yaml, which editors complete and check by."""
    from selfheal_cli.errors import StorageError
    from selfheal_cli.settings.schema import schema_text

    text = schema_text()
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise StorageError(f"{out}: cannot be written ({exc.strerror})") from exc


def _rows(settled: ResolvedSettings) -> list[tuple[str, Any, Origin]]:
    """Each effective value by key; passwords are left out."""
    from selfheal_cli.settings.layers import DEFAULT, Origin, dotted, leaves

    values = settled.config.model_dump(mode="json")
    values.setdefault("monitors", [])
    rows = [(dotted(key), _safe(value), settled.origin(key)) for key, value in leaves(values)]
    for key in (("policy", "base"), ("policy", "thresholds"), ("rules_file",)):
        if key in settled.given.origins:
            rows.append((dotted(key), _safe(settled.given.get(*key)), settled.given.origin(key)))
    store, origin = settled.tracking_uri, settled.origin(("tracking_uri",))
    if origin.kind in ("file", "default") and os.environ.get(standing.STORE):
        store, origin = os.environ[standing.STORE], Origin("env", standing.STORE)
    elif store is None:
        store, origin = None, DEFAULT
    return [*rows, ("tracking_uri", _safe(store), origin)]


def _safe(value: Any) -> Any:
    from selfheal_cli.masking import masked_value

    if isinstance(value, list):
        return [_safe(one) for one in value]
    if isinstance(value, dict):
        return {key: _safe(one) for key, one in value.items()}
    if isinstance(value, str | Path):
        return masked_value(str(value))
    return value


def _text(value: Any) -> str:
    """As it would stand in a file."""
    from selfheal_cli.settings.reference import flow

    return flow(value)
