"""``selfheal handover``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from selfheal_cli.actor import clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("handover", cls=Command)
@options.served_model
@click.option("--reason", default="by hand", show_default=True, help="Say why; it goes along.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=100_000, show_default=True,
    help="How many of the latest answered rows are looked through.",
)  # fmt: skip
@options.log
@options.tracking_uri
@options.as_json
def command(
    name: str, reason: str, rows: int, log: str | None, tracking_uri: str | None, as_json: bool
) -> None:
    """Write a served model's labelled rows as Parquet, for whoever retrains it, and tell of it.

    Beside the rows: their schema, the reason, and the versions that it concerns. It is done by
    itself, too, once a run finds that healing cannot help any more. The retrained model comes back
    by 'selfheal wrap --as NAME --promote'.
    """
    from selfheal_cli.cli import output
    from selfheal_cli.pipeline.offline.handover import hand_over
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.serve.notify.notice import of_handover
    from selfheal_cli.serve.notify.store import NoticeStore
    from selfheal_cli.spool.places import place_of
    from selfheal_cli.spool.store import Spool

    registry, place = MlflowRegistry(tracking_uri), place_of(name, log=log)
    if isinstance(place, Path) and not place.exists():
        raise _unserved(name)
    with closing(Spool(place)) as spool:
        done = hand_over(registry, spool, name, reason, clock(), rows=rows)
    with closing(NoticeStore(name)) as store:
        store.put([of_handover(name, done.folder, done.rows, reason)])
    if as_json:
        output.print_json({"folder": str(done.folder), "rows": done.rows})
    else:
        say(f"{done.rows:,} labelled rows, their schema and the reason are in {done.folder}")


def _unserved(name: str) -> Exception:
    from selfheal_cli.errors import DataError

    return DataError(f"'{name}' was not served in this folder: there are no rows to hand over")
