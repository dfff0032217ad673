"""``selfheal labels``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, clock, now_text
from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.confirming import confirm, require_no_question
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.clean import Tainted
    from selfheal_cli.spool.tellers import Revocation, Teller, Tellers

COLUMNS = ("name", ">labels", ">positive", ">earlier half", ">later half", ">others told too",
           ">otherwise", "+first", "last")  # fmt: skip
NOBODY = "(no token)"


@click.group("labels", cls=Group)
def command() -> None:
    """Show who told the labels of a served model, take some back, erase a person's rows."""


@command.command("list")
@options.model
@options.log
@options.wide
@options.as_json
def list_names(model_name: str, log: str | None, as_json: bool) -> None:
    """List who told labels to this folder's server, beside what others told and its own past.

    A name that tells one class alone, as a feed of chargebacks does, is nothing odd.
    """
    from selfheal_cli.cli import output

    tellers = _tellers(model_name, log)
    names = tellers.all()
    if as_json:
        output.print_json([asdict(one) | {"one_class": one.one_class} for one in names])
        return
    rows = [_row(one) for one in names]
    output.print_table(f"Who told the labels of '{model_name}'", COLUMNS, rows)


@command.command("revoke")
@click.option("--by", "name", metavar="NAME", required=True, help="Whose labels: a token's name.")
@click.option(
    "--since", metavar="TIME", required=True,
    help="Told then or later: 2026-01-31T08:00 (UTC without a zone), or 24h for a time ago.",
)  # fmt: skip
@click.option(
    "--roll-back", is_flag=True,
    help="Make the last version that learned from none of them the champion, too.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@options.yes
@options.reason
@options.policy
@options.model
@options.log
@options.tracking_uri
@options.as_json
def revoke(
    name: str,
    since: str,
    roll_back: bool,
    dry_run: bool,
    yes: bool,
    reason: str,
    policy: str | None,
    model_name: str,
    log: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Take back the labels that a name told: rows have what others told, or no label again.

    The plan names the versions that may have learned from them. Where one of them serves, the last
    version before them waits for 'selfheal approve'. The healer learns anew without them with the
    next answered row: what serves follows through the gate, or is proposed in its place.
    --roll-back waits for nobody.
    """
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.clean import tainted_since

    at, registry, tellers = _moment(since), MlflowRegistry(tracking_uri), _tellers(model_name, log)
    plan = tellers.plan(name, at)
    tainted = tainted_since(registry, model_name, plan.first or at)
    document = _document(name, at, plan, tainted) | {"revoked": 0, "move": None, "proposal": None}
    if not as_json:
        for line in _told(name, plan, tainted):
            say(line)
    if not dry_run and plan.labels:
        confirm(f"Take back {plan.labels} labels of '{name}'?", yes=yes)
        done = tellers.revoke(name, at)
        document["revoked"] = done.labels
        _write_down(registry, model_name, name, since, done, reason)
        if tainted.serves:
            here = standing.policy_here(click.get_current_context(), policy)
            if roll_back:
                document["move"] = _roll_back(registry, tainted, reason, four_eyes=here.four_eyes)
            else:
                document["proposal"] = _propose(registry, tainted, reason, here.proposal_hours)
    if as_json:
        output.print_json(document)
        return
    say(_done(document, dry_run=dry_run))


@command.command("erase")
@click.option("--id", "key", metavar="KEY", help="The row that had KEY in the column of --key.")
@click.option(
    "--column", metavar="NAME",
    help="With --id: also rows with KEY in this column of files that runs kept.",
)  # fmt: skip
@click.option("--request", metavar="ID", help="A request's rows, or with --place one of them.")
@click.option("--place", type=click.IntRange(min=0), help="With --request: from 0.")
@click.option("--dry-run", is_flag=True, help="Say how many rows; erase none.")
@options.yes
@options.reason
@options.model
@options.log
@options.tracking_uri
@options.as_json
def erase(
    key: str | None,
    column: str | None,
    request: str | None,
    place: int | None,
    dry_run: bool,
    yes: bool,
    reason: str,
    model_name: str,
    log: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Erase a person's rows from this folder's spool: values, answers, labels, who told them.

    That rows were there stays, and the chain of logs holds: no log has a row's values. The healer
    learns anew without their labels. With --column also from what runs of this folder kept, here
    and in the registry, by source.record_rows and as rejects; such a run cannot be replayed.
    """
    if (key is None) == (request is None) or (place is not None and request is None):
        raise click.UsageError("give --id KEY, or --request ID and perhaps --place N")
    if column is not None and key is None:
        raise click.UsageError("--column is for --id KEY")
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run)
    from selfheal_cli.cli import output
    from selfheal_cli.registry.journal import EntryKind
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import note_labels

    # a model that nobody served has no spool, and may have kept rows
    tellers = _tellers(model_name, log) if not column or _is_served(model_name, log) else None
    erased = 0
    rows = tellers.rows_of(key, request, place) if tellers else 0
    registry = MlflowRegistry(tracking_uri)
    kept = _kept(registry, model_name, column, key, dry_run=True)
    if not as_json:
        say(f"{rows} rows of '{model_name}' have that id.")
        for file, count in kept.items():
            say(f"{file}: {count} rows have it.")
    if (rows or kept) and not dry_run:
        registry.versions(model_name, limit=1)  # there must be such a model
        confirm(f"Erase {rows + sum(kept.values())} rows for good?", yes=yes)
        if tellers:
            erased = tellers.erase(key, request, place)
        erased += sum(_kept(registry, model_name, column, key).values())
        told = {"rows": erased, "reason": f"{erased} rows erased: {reason}"}
        who = {"actor": actor(), "at": now_text()}
        note_labels(registry, model_name, EntryKind.ERASED, told, **who)
    if as_json:
        output.print_json({"rows": rows, "erased": erased} | ({"kept": kept} if column else {}))
    else:
        say(f"{erased} rows were erased." if erased else "Nothing was erased.")


def _kept(
    registry: MlflowRegistry, model: str, column: str | None, key: str | None, *,
    dry_run: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Rows that runs kept, or rejected, by file."""
    from selfheal_cli.pipeline.offline.erasing import erase_kept

    if column is None or key is None:
        return {}
    return erase_kept(registry, model, column, key, dry_run=dry_run)


def _is_served(model: str, log: str | None) -> bool:
    """Whether a server wrote anything here."""
    from selfheal_cli.spool.places import place_of

    place = place_of(model, log=log)
    return not isinstance(place, Path) or place.exists()


def _tellers(model: str, log: str | None) -> Tellers:
    from selfheal_cli.errors import DataError
    from selfheal_cli.spool.places import place_of
    from selfheal_cli.spool.tellers import Tellers

    place = place_of(model, log=log)
    if isinstance(place, Path) and not place.exists():
        raise DataError(
            f"{place}: no such file; run this in the folder that '{model}' is served in, or give "
            "the --log that its server has"
        )
    return Tellers(place)


def _moment(text: str) -> float:
    """Seconds since 1970 of a time, or of a period ago."""
    from datetime import UTC, datetime

    from selfheal_cli.config_labels import PERIOD, period

    if PERIOD.fullmatch(text.strip()):
        return clock().timestamp() - float(period(text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: a time such as 2026-01-31T08:00, or 24h, is expected", param_hint="--since"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _row(one: Teller) -> list[str]:
    def share(labels: int, positives: int) -> str:
        return f"{positives} of {labels}"

    return [
        one.name or NOBODY, f"{one.labels:,}", share(one.labels, one.positives), share(*one.past),
        share(*one.lately), str(one.compared), str(one.other), _iso(one.first), _iso(one.last),
    ]  # fmt: skip


def _iso(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _document(name: str, since: float, plan: Revocation, tainted: Tainted) -> dict[str, Any]:
    return {
        "by": name,
        "since": _iso(since),
        "labels": plan.labels,
        "replaced": plan.replaced,
        "learned": list(tainted.learned),
        "serving": tainted.serving and tainted.serving.version,
        "serving_learned": tainted.serves,
        "clean": tainted.clean and tainted.clean.version,
    }


def _told(name: str, plan: Revocation, tainted: Tainted) -> list[str]:
    """The plan in lines."""
    if not plan.labels:
        return [f"No label counts by the word of '{name}' since then."]
    learned = ", ".join(f"v{one}" for one in tainted.learned) or "none"
    lines = [
        f"{plan.labels} labels count by the word of '{name}'; of {plan.replaced} rows others told "
        "a label, which counts then, the rest have none.",
        f"Versions that may have learned from them: {learned}.",
    ]
    if tainted.serves and tainted.serving is not None:
        clean = f"v{tainted.clean.version}" if tainted.clean else "none that is still there"
        lines.append(
            f"v{tainted.serving.version} serves: the healer rebuilds it without them, as far back "
            f"as labels.horizon; the last clean version is {clean}, which is proposed until then "
            "(--roll-back: serves at once)."
        )
    return lines


def _write_down(
    registry: MlflowRegistry, model: str, name: str, since: str, done: Revocation, reason: str
) -> None:
    from selfheal_cli.registry.journal import EntryKind
    from selfheal_cli.registry.orders import note_labels

    told = {
        "by": name, "since": since, "labels": done.labels,
        "reason": f"{done.labels} labels of {name} since {since} taken back: {reason}",
    }  # fmt: skip
    note_labels(registry, model, EntryKind.REVOKED, told, actor=actor(), at=now_text())


def _roll_back(
    registry: MlflowRegistry, tainted: Tainted, reason: str, *, four_eyes: bool
) -> dict[str, Any] | None:
    """Through the one door, as any rollback by hand."""
    from selfheal_cli.errors import NoCandidateError
    from selfheal_cli.rollback.plan import By, execute, load_checks, plan_version

    if tainted.clean is None:
        raise NoCandidateError("no version that learned from none of the labels is still there")
    load_checks()
    plan = plan_version(registry, tainted.clean.model, tainted.clean.version)
    by = By(actor(), now_text(), f"labels taken back: {reason}", four_eyes)
    move = execute(registry, plan, by)
    return None if move is None else move.as_dict()


def _propose(registry: MlflowRegistry, tainted: Tainted, reason: str, hours: float) -> int | None:
    """Its number; None where there is none, or another proposal is open, which is said."""
    from selfheal_cli.errors import ConflictError
    from selfheal_cli.rollback.clean import propose_clean

    try:
        made = propose_clean(registry, tainted, hours, actor=actor(), at=now_text(), reason=reason)
    except ConflictError as exc:
        say(f"selfheal: nothing is proposed: {exc}", err=True)
        return None
    return made.sequence if made else None


def _done(document: dict[str, Any], *, dry_run: bool) -> str:
    if dry_run or not document["revoked"]:
        return "Nothing was changed."
    moved = document["move"]
    more = f" The champion is v{moved['target']} again." if moved else ""
    if document["proposal"]:
        more = f" Proposal {document['proposal']}: v{document['clean']}; see 'selfheal proposals'."
    return f"{document['revoked']} labels were taken back; the healer learns anew.{more}"
