"""``selfheal rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.confirming import confirm, require_no_question
from selfheal_cli.cli.say import say, say_settled
from selfheal_cli.cli.version_name import VersionName, version_number

if TYPE_CHECKING:
    from selfheal_cli.pipeline.offline.rescore import Rescored
    from selfheal_cli.pipeline.offline.segment_versions import SegmentRestore
    from selfheal_cli.records import AliasMove, AnyVersion
    from selfheal_cli.registry.base import Registry
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.plan import By, RollbackPlan
    from selfheal_cli.rollback.trust import Trust


COLUMNS = ("", ">version", "phase", ">F1", "+>95 % sure of", ">rows", "+scored on rows", "+recipe",
           "+stream", ">age")  # fmt: skip


def settle_first(registry: Registry, model: str) -> None:
    """Finish what an interrupted command left of the model's aliases, and say so."""
    from selfheal_cli.registry.aliases import settle

    for left in settle(registry, model):
        say_settled(left)


def show_plan(plan: RollbackPlan, of: str = "Rollback") -> None:
    """The plan ``of`` what is asked for as a table, and what should be known before agreeing."""
    from selfheal_cli.cli import output

    rows = [_row(plan, "serves now", plan.serving), _row(plan, "target", plan.target)]
    title = f"{of} of '{plan.target.model}': {plan.criterion}"
    console = output.make_console()
    output.print_table(title, COLUMNS, rows)
    for note in plan.notes:
        console.print(output.line(("Note:", "yellow"), f" {note}."), soft_wrap=True)


def show_rescored(rescored: list[Rescored]) -> None:
    """Versions on the recent rows, the best first; nothing where there are none."""
    from selfheal_cli.cli import output

    if not rescored:
        return
    rows = [
        [
            f"v{one.version.version}",
            output.figure(one.version.f1),
            str(one.version.eval_rows),
            output.figure(one.scores.f1),
            output.figure(one.scores.accuracy),
            str(one.scores.rows),
            "" if one.new else "it may have learned from them",
        ]
        for one in rescored
    ]
    columns = (">version", ">F1 then", "+>rows then", ">F1 now", "+>accuracy now", ">rows now", "")
    title = "Scored again on the latest labelled rows"
    output.print_table(title, columns, rows)


def plan_document(plan: RollbackPlan) -> dict[str, Any]:
    """The plan as JSON."""
    from selfheal_cli.records import ForeignVersion

    def told(version: AnyVersion) -> dict[str, Any]:
        if isinstance(version, ForeignVersion):
            return {**version.as_dict(), "foreign": True}
        return {**version.as_dict(), "f1_lower_bound": plan.lower_bound(version)}

    return {
        "serving": told(plan.serving) if plan.serving else None,
        "target": told(plan.target),
        "criterion": plan.criterion,
        "notes": list(plan.notes),
    }


def told_move(plan: RollbackPlan, move: AliasMove | None) -> str:
    """What was done; None is no move, since the target serves already."""
    if move is None:
        return f"v{plan.target.version} serves already; nothing was moved."
    source = f"v{move.source}" if move.source else "nothing"
    return f"champion of '{move.model}' moved from {source} to v{move.target}: {move.reason}"


def _row(plan: RollbackPlan, name: str, version: AnyVersion | None) -> list[str]:
    from selfheal_cli.cli import output
    from selfheal_cli.records import ForeignVersion, spelled

    if version is None:
        return [name, *["-"] * (len(COLUMNS) - 1)]
    if isinstance(version, ForeignVersion):
        told = [name, f"v{version.version}", "another tool's"]
        return [*told, *["-"] * (len(COLUMNS) - 1 - len(told)), output.age(version.created_ms)]
    return [
        name,
        f"v{version.version}",
        version.phase.value,
        output.figure(version.f1),
        output.figure(plan.lower_bound(version)),
        str(version.eval_rows),
        spelled(version.tags["selfheal.evaluation"]),
        version.tags["selfheal.recipe"],
        version.regime or "-",
        output.age(version.created_ms),
    ]


UNCHECKED = "target cannot be checked"
FOR_BEST = ("by", "min_rows", "regime", "revalidate")


@click.command("rollback", cls=Command)
@click.option(
    "--to-best", is_flag=True,
    help="To the version that would have lost less than what served, on the latest labelled rows; "
    "of recipe article, to the highest F1.",
)  # fmt: skip
@click.option("--to", "named", type=VersionName(), help="To a version: 3, v3 or an alias.")
@click.option("--to-previous", is_flag=True, help="To the version that served before.")
@click.option(
    "--segment", metavar="KEY",
    help="With --to or --to-previous: only this segment's adapter, in a new version that is the "
    "champion otherwise; --to-previous is to the one that it had before.",
)  # fmt: skip
@click.option(
    "--by",
    type=click.Choice(["f1", "f1_lcb"]),
    help="To the post-heal version that had the highest F1 on the rows of its own time, or whose "
    "F1 is highest with 95 % certainty.",
)
@click.option(
    "--min-rows", type=click.IntRange(min=0), help="With --by: only versions scored on so many."
)
@click.option(
    "--regime",
    type=click.Choice(["same"]),
    help="With --by: only versions made when the stream drifted, or not, as now.",
)
@click.option(
    "--revalidate",
    type=click.IntRange(1, 100),
    metavar="K",
    help="With --by: score the first K again on the latest labelled rows of this folder's run; the "
    "highest F1 of those that learned from none of them wins.",
)
@click.option(
    "--unverified", is_flag=True,
    help="Take figures, tags and files as the registry has them, whatever the run wrote down.",
)  # fmt: skip
@click.option("--propose", is_flag=True, help="Record the plan for another person to approve.")
@click.option("--dry-run", is_flag=True, help="Show and check the plan; move nothing.")
@options.yes
@options.reason
@options.policy
@options.allow_module
@options.model
@options.tracking_uri
@options.wide
@options.as_json
def command(
    to_best: bool,
    named: str | None,
    to_previous: bool,
    unverified: bool,
    propose: bool,
    dry_run: bool,
    yes: bool,
    reason: str,
    policy: str | None,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
    **choice: Any,
) -> None:
    """Move the alias champion to a better version, once everything about it is checked.

    The plan is shown first. Nothing moves if the champion has moved since then. Each move is
    recorded with who, when, from, to and why.
    """
    segment = _check_usage(to_best, named, to_previous, choice)
    require_no_question(as_json=as_json, yes=yes, dry_run=dry_run, propose=propose)
    from selfheal_cli.records import VersionRecord
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.plan import By, load_checks, make_proposal
    from selfheal_cli.rollback.trust import ByTheLog, Unverified

    load_checks()
    registry = MlflowRegistry(tracking_uri)
    if not dry_run:
        settle_first(registry, model_name)
    trust = Unverified() if unverified else ByTheLog(registry)
    if segment:
        restore = _planned_segment(registry, model_name, segment, named)
        if dry_run:
            _tell_segment(segment, restore, as_json=as_json)
            return
        confirm(f"Register a version with {_words(segment, restore)}?", yes=yes)
        named = _registered(registry, restore)
    plan, rescored = _plan(registry, model_name, named, to_previous, choice, trust)
    if not as_json:
        show_rescored(rescored)
        show_plan(plan)
    four_eyes = standing.policy_here(click.get_current_context(), policy).four_eyes
    by = By(actor(), now_text(), reason, four_eyes)
    document = plan_document(plan) | {
        "move": None, "proposal": None, "verified": isinstance(plan.target, VersionRecord),
    }  # fmt: skip
    if propose and not (dry_run or plan.serves_already):
        number = document["proposal"] = make_proposal(registry, plan, by).sequence
        done = f"Proposal {number}: somebody else runs 'selfheal approve {number}'."
    else:
        document["move"], done = carry_out(registry, plan, by, dry_run=dry_run, yes=yes)
    tell(document, done, as_json=as_json)


def carry_out(
    registry: MlflowRegistry, plan: RollbackPlan, by: By, *, dry_run: bool, yes: bool
) -> tuple[dict[str, Any] | None, str]:
    """Ask, and move the champion as planned; or see that it could be. The move as a document, None
    where there was none, and what to say.
    """
    from selfheal_cli.records import VersionRecord
    from selfheal_cli.rollback.plan import check_target, execute

    if dry_run or plan.serves_already:
        check_target(registry, plan)
        verified = isinstance(plan.target, VersionRecord)
        holds = "target's file, hashes and decisions hold" if verified else UNCHECKED
        return None, f"Dry run: the {holds}; nothing was moved." if dry_run else told_move(
            plan, None
        )
    confirm(f"Make v{plan.target.version} the champion?", yes=yes)
    move = execute(registry, plan, by)
    return None if move is None else move.as_dict(), told_move(plan, move)


def tell(document: dict[str, Any], done: str, *, as_json: bool) -> None:
    """What was done, in words or as the document."""
    from selfheal_cli.cli import output

    if as_json:
        output.print_json(document)
    else:
        say(done)


def _planned_segment(
    registry: MlflowRegistry, model: str, segment: str, named: str | None
) -> SegmentRestore:
    """The champion with a segment's adapter of another version."""
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.offline.segment_versions import plan_segment

    use_one_thread()
    number = None if named is None else version_number(registry, model, named)
    return plan_segment(registry, model, segment, number)


def _tell_segment(segment: str, restore: SegmentRestore, *, as_json: bool) -> None:
    """What would be, by a dry run."""
    document = {
        "segment": segment, "adapter_of": restore.source.version,
        "champion": restore.champion.version, "move": None,
    }  # fmt: skip
    would = f"a new version would have {_words(segment, restore)}"
    tell(document, f"Dry run: {would}; nothing was registered.", as_json=as_json)


def _words(segment: str, restore: SegmentRestore) -> str:
    return (
        f"segment '{segment}' as in v{restore.source.version}, all else as in "
        f"v{restore.champion.version}, which serves"
    )


def _registered(registry: MlflowRegistry, restore: SegmentRestore) -> str:
    """Its number."""
    from selfheal_cli.actor import clock
    from selfheal_cli.pipeline.offline.segment_versions import add_restored
    from selfheal_cli.pipeline.runs.run import RunContext

    return str(add_restored(restore, RunContext(registry, clock, actor(), on_settled=say_settled)))


def _check_usage(
    to_best: bool, named: str | None, to_previous: bool, choice: dict[str, Any]
) -> str | None:
    """Takes the segment, if any, out of what is for --to-best."""
    segment: str | None = choice.pop("segment")
    to_best = to_best or (choice["by"] is not None and named is None and not to_previous)
    if to_best + to_previous + (named is not None) != 1:
        raise click.UsageError("give one of --to-best, --to VERSION and --to-previous")
    if segment is not None and to_best:
        raise click.UsageError("--segment is for --to VERSION and --to-previous")
    for name in FOR_BEST:
        if choice[name] is not None and not to_best:
            raise click.UsageError(f"--{name.replace('_', '-')} is for --to-best")
    return segment


def _plan(
    registry: MlflowRegistry,
    model: str,
    named: str | None,
    to_previous: bool,
    choice: dict[str, Any],
    trust: Trust,
) -> tuple[RollbackPlan, list[Rescored]]:
    """The plan, and with ``--revalidate`` the versions that it was chosen from."""
    from selfheal_cli.rollback.plan import plan_previous, plan_version

    if named is not None:
        number = version_number(registry, model, named)
        return plan_version(registry, model, number, trust), []
    if to_previous:
        return plan_previous(registry, model, trust), []
    return _plan_best(registry, model, choice, trust)


def _plan_best(
    registry: MlflowRegistry, model: str, choice: dict[str, Any], trust: Trust
) -> tuple[RollbackPlan, list[Rescored]]:
    from dataclasses import replace

    from selfheal_cli.errors import NoCandidateError
    from selfheal_cli.rollback.paired import plan_better
    from selfheal_cli.rollback.plan import VersionCriteria, make_plan, plan_best, present_regime

    if all(value is None for value in choice.values()):
        return plan_better(registry, model, trust), []
    regime = present_regime(registry, model) if choice["regime"] else ""
    wanted = VersionCriteria(choice["by"] or "f1", choice["min_rows"] or 0, regime)
    plan = plan_best(registry, model, wanted, trust)
    count = choice["revalidate"]
    if count is None:
        return plan, []
    rescored = _rescore(registry, plan, wanted, count, trust)
    best = next((one for one in rescored if one.new), None)
    if best is None:
        raise NoCandidateError(
            f"model '{model}': every version that fits may have learned from the latest labelled "
            "rows; choose without --revalidate"
        )
    asked = sum(one.new for one in rescored)
    text = (
        f"best F1 ({best.scores.f1:.3f}) of the {asked} that learned from none of the latest "
        f"{best.scores.rows} rows"
    )
    chosen = make_plan(registry, plan.serving, best.version, text, trust)
    return replace(chosen, after=plan.after), rescored


def _rescore(
    registry: MlflowRegistry, plan: RollbackPlan, wanted: Any, count: int, trust: Trust
) -> list[Rescored]:
    import tempfile
    from itertools import islice

    from selfheal_cli.cli.output import log_of
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.offline.rescore import recent_rows, rescore
    from selfheal_cli.records import VersionRecord
    from selfheal_cli.rollback.plan import Candidates

    use_one_thread()
    own = [one for one in (plan.serving, plan.target) if isinstance(one, VersionRecord)]
    run_id, base = own[0].run_id, own[-1].base
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(run_id, registry.uri, Path(folder))
        recent = recent_rows(log, registry, Path(folder))
    fitting = Candidates(registry, plan.target.model, base, trust, wanted)
    chosen = list(islice(filter(recent.are_new_to, fitting), count))
    if own[0] is plan.serving:
        chosen.append(own[0])  # to compare with
    return rescore(registry, {one.version: one for one in chosen}.values(), recent)
