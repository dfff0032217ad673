"""``selfheal events``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.serve.notify.store import NoticeStore


@click.group("events", cls=Group)
def command() -> None:
    """List what webhooks and commands are told of a served model, and send it again."""


@command.command("list")
@options.served_model
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="So many, the newest.",
)
@options.wide
@options.as_json
def list_events(name: str, limit: int, as_json: bool) -> None:
    """List the latest events of this folder's server, and how far each target was told."""
    from selfheal_cli.cli import output

    with closing(_store(name)) as store:
        events = store.latest(limit)
    if as_json:
        output.print_json(events)
        return
    rows = [
        [
            str(one["sequence"]), one["at"], one["kind"], one["text"],
            ", ".join(_told(target) for target in one["targets"]) or "-",
        ]
        for one in events
    ]  # fmt: skip
    output.print_table(f"Events of '{name}'", (">event", "+at", "kind", "what", "told"), rows)


@command.command("resend")
@options.served_model
@click.option("--target", metavar="NAME", help="Only to this one. [default: to all]")
@options.as_json
def resend(name: str, target: str | None, as_json: bool) -> None:
    """Send again what was set aside, since its target did not take it in three days.

    The server does it, as soon as it runs. The delivery id and the body are the same as before.
    """
    from selfheal_cli.cli import output

    with closing(_store(name)) as store:
        count = store.resend(target)
    if as_json:
        output.print_json({"resent": count})
    else:
        say(f"{count} deliveries are sent again by the server of '{name}'.")


def _store(name: str) -> NoticeStore:
    from selfheal_cli.errors import DataError
    from selfheal_cli.serve.notify.store import NAME, NoticeStore
    from selfheal_cli.spool.file import spool_path

    if not spool_path(name).with_name(NAME).exists():
        raise DataError(f"'{name}' was not served in this folder: nobody was to be told anything")
    return NoticeStore(name)


def _told(target: dict[str, str]) -> str:
    error = f" ({target['error']})" if target["error"] else ""
    return f"{target['target']}: {target['state']}{error}"
