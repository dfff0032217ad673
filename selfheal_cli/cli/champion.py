"""``selfheal champion``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command

if TYPE_CHECKING:
    from selfheal_cli.records import AliasMove
    from selfheal_cli.registry.base import Registry


class Moment(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 has no parameter
    """A time in ISO 8601; without a zone it is UTC, without an hour the day's end."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """To UTC with milliseconds, as the journal has it."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r}: a time such as 2026-01-31T14:05 is expected", param, ctx)
        if len(value) == len("2026-01-31"):
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_000)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment.isoformat(timespec="milliseconds")


@click.command("champion", cls=Command)
@click.option(
    "--at", type=Moment(), help="The version that served then, such as 2026-01-31T14:05+01:00."
)
@options.model
@options.tracking_uri
@options.as_json
def command(at: str | None, model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show the serving version, since when, by whom and why; and what waits for approval."""
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    document = _then(registry, model_name, at) if at else _now(registry, model_name)
    if as_json:
        output.print_json(document)
        return
    rows = [
        [name.replace("_", " "), _text(value)]
        for name, value in document.items()
        if value not in (None, [])
    ]
    title = f"Champion of '{model_name}'" + (f" at {at}" if at else "")
    output.print_table(title, ("what", "value"), rows)


def _then(registry: Registry, model: str, at: str) -> dict[str, Any]:
    from selfheal_cli.errors import NoCandidateError
    from selfheal_cli.registry.aliases import champion_at

    move = champion_at(registry, model, at)
    if move is None:
        raise NoCandidateError(f"model '{model}': nothing is recorded to have served at {at}")
    return _told(move)


def _now(registry: Registry, model: str) -> dict[str, Any]:
    from dataclasses import asdict

    from selfheal_cli.records import ForeignVersion
    from selfheal_cli.registry.aliases import unsettled
    from selfheal_cli.registry.base import CHAMPION
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.registry.orders import mode_of
    from selfheal_cli.rollback.plan import champion_of

    serving, now = champion_of(registry, model), standing(registry, model)
    move = now.moves.get(CHAMPION)
    facts: dict[str, Any] = {"version": serving.version if serving else None}
    if isinstance(serving, ForeignVersion):
        facts["registered"] = f"by another tool, from {serving.source}"
    elif serving is not None:
        facts |= {"f1": serving.f1, "rows": serving.eval_rows, "phase": serving.phase.value}
    left = unsettled(registry, model, CHAMPION, now)
    if left is not None:
        facts["moved"] = f"{left}; the next command that moves it puts it right"
    elif move is not None and serving is not None and move.target == serving.version:
        facts |= _told(move)
    elif serving is not None:
        facts["moved"] = "by another tool: it is not what the journal's last move set"
    facts["healing"] = f"held by {now.hold.actor}: {now.hold.reason}" if now.hold else "allowed"
    facts["mode"] = mode_of(now)
    facts["lease"] = f"run {now.lease.run} of {now.lease.holder}" if now.lease else None
    facts["people_for_a_move"] = 2 if now.four_eyes else 1
    facts["proposals"] = [asdict(one) for one in now.proposals]
    return facts


def _told(move: AliasMove) -> dict[str, Any]:
    return {
        "version": move.target,
        "since": move.at,
        "by": move.actor,
        "reason": move.reason,
        "before": move.source,
        "run": move.run or None,
        "move": move.sequence,
    }


def _wanted(proposal: dict[str, Any]) -> str:
    return "one person is enough" if proposal["loosens"] else f"v{proposal['target']}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return (
            "; ".join(
                f"{one['sequence']}: {_wanted(one)} by {one['actor']} ({one['reason']})"
                for one in value
            )
            or "-"
        )
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value)
