"""``selfheal history``."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.champion import Moment
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName, version_number

if TYPE_CHECKING:
    from selfheal_cli.pipeline.offline.history import HistoryEntry

HEAL_ID = re.compile(r"\bheal [0-9a-f]{8}-h0*(\d+)")  # in full by --json
UNPUBLISHED = "heal-learned"
FIELDS = ("at", "kind", "actor", "run", "batch", "before", "after", "reason")


@click.command("history", cls=Command)
@click.option(
    "--run",
    "run_name",
    metavar="RUN",
    help="Show only this run: its id, the beginning of it, or latest.",
)
@click.option(
    "--version", "named", type=VersionName(), help="Show only what concerns this version."
)
@click.option(
    "--segment", metavar="KEY", help="Show only versions that gave this segment another adapter."
)
@click.option("--at", type=Moment(), help="Show only what happened until then.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=200,
    show_default=True,
    help="Latest entries to show.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(
    run_name: str | None,
    named: str | None,
    segment: str | None,
    at: str | None,
    limit: int,
    as_csv: bool,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """List heals, rollbacks, moves of aliases, holds and proposals in order, with their reasons.

    Heals come from the event logs under mlruns/selfheal/, whose chains are checked on the way; who
    moved what comes from the model's journal in the registry. Heals in a row that were not
    published share a line; --wide has each.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    from selfheal_cli.cli import output
    from selfheal_cli.pipeline.offline.history import until

    happenings = _happenings(run_name, model_name, tracking_uri)
    happenings = until(happenings, at) if at else happenings
    if named is not None:
        number = _number(named, model_name, tracking_uri)
        happenings = [one for one in happenings if one.concerns(number)]
    if segment is not None:
        numbers = _of_segment(segment, model_name, tracking_uri)
        happenings = [one for one in happenings if one.made & numbers]
    shown = happenings[-limit:]
    if as_json:
        output.print_json([{**one.data, **asdict(one)} for one in shown])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows([getattr(one, name) for name in FIELDS] for one in shown)
    else:
        rows = [_row(one, many) for one, many in _in_rows(shown, each=output.is_wide())]
        subject = f"Run {run_name}" if run_name else f"Model '{model_name}'"
        if not happenings:
            say(f"{subject}: nothing is recorded.")
            return
        title = f"{subject}: {len(shown)} of {len(happenings)} entries"
        columns = ("+year", "when (UTC)", "what", "+>batch", "change", "+F1", "who", "why")
        output.print_table(title, columns, rows)


def _happenings(run_name: str | None, model: str, tracking_uri: str | None) -> list[HistoryEntry]:
    import tempfile
    from pathlib import Path

    from selfheal_cli.cli.output import log_of
    from selfheal_cli.pipeline.offline.history import model_history, of_run

    if run_name is not None:
        with tempfile.TemporaryDirectory() as folder:
            return of_run(log_of(run_name, tracking_uri, Path(folder)))
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return model_history(model, MlflowRegistry(tracking_uri))


def _number(named: str, model: str, tracking_uri: str | None) -> int:
    if named.isdecimal():
        return int(named)
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return version_number(MlflowRegistry(tracking_uri), model, named)


def _of_segment(segment: str, model: str, tracking_uri: str | None) -> set[int]:
    from selfheal_cli.pipeline.offline.segment_versions import adapters_of
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return {
        one.version.version for one in adapters_of(MlflowRegistry(tracking_uri), model, segment)
    }


def _in_rows(shown: Sequence[HistoryEntry], *, each: bool) -> Iterator[tuple[HistoryEntry, int]]:
    """Entries with how many stand in their row: heals in a row that changed nothing have one, of
    the last of them, unless ``each`` is wanted.
    """
    for (kind, _), same in groupby(shown, key=lambda one: (one.kind, one.run)):
        entries = list(same)
        if kind == UNPUBLISHED and not each:
            yield entries[-1], len(entries)
        else:
            yield from ((one, 1) for one in entries)


def _row(one: HistoryEntry, many: int) -> list[str]:
    when = one.at[5:16].replace("T", " ")
    batch = "" if one.batch is None else str(one.batch)
    why = HEAL_ID.sub(r"heal \1", one.reason)
    change = _change(one) if many == 1 else f"{many} heals"
    why = why if many == 1 else f"the last: {why}"
    return [one.at[:4], when, one.kind, batch, change, _f1(one.data), one.actor, why]


def _change(one: HistoryEntry) -> str:
    named = one.data.get("alias", "champion")
    alias = "" if named == "champion" else f"{named}: "
    if one.before is None and one.after is None:
        return str(one.data.get("heal_id") or one.data.get("rule") or one.data.get("advice") or "")
    before = "nothing" if one.before is None else f"v{one.before}"
    after = "" if one.after is None else f" to v{one.after}"
    return f"{alias}{before}{after}"


def _f1(data: Any) -> str:
    if "after" in data and "before" in data:
        if data["after"] is None:
            return "awaiting labels"
        return f"{data['before']['f1']:.3f} to {data['after']['f1']:.3f}"
    return f"{data['f1']:.3f}" if data.get("f1") is not None else ""
