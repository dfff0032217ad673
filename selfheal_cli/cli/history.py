"""``selfheal history``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options

if TYPE_CHECKING:
    from selfheal_cli.history.events import Event


@click.command("history")
@click.option(
    "--run", "run_name", metavar="RUN", help="Only this run: id, its beginning, or latest."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=200,
    show_default=True,
    help="Latest entries to show.",
)
@options.model_name
@options.tracking_uri
@options.as_json
def command(
    run_name: str | None, limit: int, model_name: str, tracking_uri: str | None, as_json: bool
) -> None:
    """List heals, rollbacks and alias moves in order, with their reasons.

    Read from the event logs under mlruns/selfheal/; the chain of each log is checked on the way.
    """
    import tempfile
    from pathlib import Path

    from selfheal_cli.cli import output
    from selfheal_cli.cli.event_logs import log_of
    from selfheal_cli.history.archive import model_history, run_history

    if run_name is None:
        events = model_history(model_name)
        title = f"Model '{model_name}'"
    else:
        with tempfile.TemporaryDirectory() as folder:
            log = log_of(run_name, tracking_uri, Path(folder))
            events = run_history(log)
        title = f"Run {run_name}"
    shown = events[-limit:]
    if as_json:
        output.print_json(
            [{**event.data, "at": event.at, "kind": event.kind.value} for event in shown]
        )
        return
    rows = [[event.at[:19].replace("T", " "), event.kind.value, *_told(event)] for event in shown]
    title = f"{title}: {len(shown)} of {len(events)} entries"
    columns = ("when (UTC)", "what", ">batch", "change", "F1", "why")
    output.make_console().print(output.make_table(title, columns, rows))


def _told(event: Event) -> tuple[str, str, str, str]:
    data: Mapping[str, Any] = event.data
    batch = str(data.get("batch", ""))
    if "alias" in data:
        source = f"v{data['source']}" if data["source"] else "nothing"
        change = f"{data['alias']}: {source} to v{data['target']} by {data['actor']}"
        return batch, change, "", data["reason"]
    if "after" in data:
        f1 = "awaiting labels"
        if data["after"] is not None:
            f1 = f"{data['before']['f1']:.3f} to {data['after']['f1']:.3f}"
        return batch, f"heal {data['heal_id']}", f1, data.get("rejected", data["reason"])
    if "sha256" in data:
        return batch, f"restored v{data['version']}", f"{data['f1']:.3f}", data["reason"]
    change = data.get("heal_id") or data.get("rule") or data.get("advice") or "labels held back"
    why = next(data[key] for key in ("error", "declined", "sentence", "reason") if key in data)
    return batch, change, "", why
