"""The rollback to a better version: by what the model's last run wrote down of each candidate."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from selfheal_cli.errors import (
    NoCandidateError,
    RegistryError,
    RegistryUnreachable,
    VersionNotFound,
)
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.evidence import Evidence, PairedGain
from selfheal_cli.events.log import LONGEST_END, read_only
from selfheal_cli.events.run_record import OF_VERSIONS, RunRecord
from selfheal_cli.events.types import AliasMoved, CandidatesCompared, ChampionFollowed
from selfheal_cli.records import AnyVersion, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind
from selfheal_cli.report.recommendation import stay, was_better
from selfheal_cli.rollback.plan import (
    RollbackPlan,
    champion_of,
    make_plan,
    plan_best,
)
from selfheal_cli.rollback.trust import ByTheLog, Trust, summed_up
from selfheal_cli.workspace import WORKSPACE

KINDS = (*OF_VERSIONS, CandidatesCompared, AliasMoved, ChampionFollowed)


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the model's last run wrote down; ``why_not`` says why it answers nothing."""

    record: RunRecord
    why_not: str = ""

    @property
    def by_f1(self) -> bool:
        """The run held no versions against what served, as the article's recipe does not."""
        return bool(self.record.config.get("heal", {}).get("better_by", "f1") == "f1")


def plan_better(
    registry: Registry, model: str, trust: Trust | None = None, workspace: Path = WORKSPACE
) -> RollbackPlan:
    """A rollback to the version that is better than the serving one beyond chance.

    By the highest F1 where the last run held no versions against what served, and, with a note that
    says so, where the comparison cannot be made. Raises `NoCandidateError` where no version is
    better: then it names the one of the highest F1 too.
    """
    trust = trust or ByTheLog(registry, workspace)
    serving = champion_of(registry, model)
    if isinstance(serving, VersionRecord) and serving.tags.get("selfheal.recipe") == "article":
        return plan_best(registry, model, trust=trust)
    last = _last_run(registry, model, workspace)
    if last is None or (last.by_f1 and not last.why_not):
        return plan_best(registry, model, trust=trust)
    why_not = last.why_not or _why_not(last.record, serving)
    if why_not or not isinstance(serving, VersionRecord):
        plan = plan_best(registry, model, trust=trust)
        note = f"versions cannot be compared row by row ({why_not}): this is the highest F1"
        return replace(plan, notes=(note, *plan.notes))
    gains = last.record.evidence.gains(serving.tags["selfheal.snapshot"])
    better = _plan(registry, serving, last.record, gains, trust)
    if better is None:
        raise _none(registry, model, last.record.evidence, next(iter(gains), None), trust)
    return better


def _plan(
    registry: Registry,
    serving: VersionRecord,
    record: RunRecord,
    gains: Sequence[PairedGain],
    trust: Trust,
) -> RollbackPlan | None:
    """To the surest of the better versions that is there and trusted."""
    passed_over = []
    for gain in gains:
        account = record.account(gain.snapshot)
        number = account.version if account else record.evidence.versions.get(gain.snapshot)
        if not gain.certain or number is None:
            continue
        try:
            target = registry.version(serving.model, number)
        except VersionNotFound:
            passed_over.append(f"v{number} was passed over: it was removed")
            continue
        doubts = trust.judge(target).doubts
        if doubts:
            passed_over.append(f"v{number} was passed over: {summed_up(doubts)}")
            continue
        plan = make_plan(registry, serving, target, "better row by row than what served", trust)
        return replace(plan, notes=(f"v{number} {was_better(gain)}", *plan.notes, *passed_over))
    return None


def _none(
    registry: Registry, model: str, evidence: Evidence, best: PairedGain | None, trust: Trust
) -> NoCandidateError:
    """Why what serves stays; and the one command that goes by F1."""
    why, named = stay(evidence, best), ""
    with suppress(NoCandidateError):
        highest = plan_best(registry, model, trust=trust).target
        if isinstance(highest, VersionRecord):
            named = (
                f" The registry's highest F1 after a heal is {highest.f1:.3f} of "
                f"v{highest.version}, on the {highest.eval_rows} rows of its own time; "
                "'selfheal rollback --by f1' restores it."
            )
    return NoCandidateError(f"model '{model}': {why[0].lower()}{why[1:]}{named}")


def _why_not(record: RunRecord, serving: AnyVersion | None) -> str:
    """Why the run's comparison does not speak of what serves, or nothing."""
    if serving is None:
        return "no version serves"
    if not isinstance(serving, VersionRecord):
        return f"{serving} is another tool's"
    evidence = record.evidence
    if not evidence.window():
        return f"run {record.run_id[:8]} has too few labelled rows"
    snapshot = serving.tags.get("selfheal.snapshot", "")
    left = bool(record.moves) and record.moves[-1].target == serving.version
    asked = all(snapshot in one.losses for one in evidence.window())
    if not (left or asked or snapshot == evidence.serving):
        return f"v{serving.version} did not serve in run {record.run_id[:8]}, the model's last"
    return ""


def _last_run(registry: Registry, model: str, workspace: Path) -> LastRun | None:
    """Of the model's last run, by its journal; None where it had none."""
    run_id, heads = "", list[str]()
    for entry in registry.entries(model):
        if entry.kind is EntryKind.LEASED:
            run_id, heads = str(entry.data.get("run", "")), []
        elif entry.kind is EntryKind.RELEASED and entry.data.get("log_head"):
            heads.append(str(entry.data["log_head"]))
    if not run_id:
        return None
    path = run_folder(run_id, workspace) / LOG_NAME
    with tempfile.TemporaryDirectory() as into:
        if not path.exists():
            try:
                path = registry.run_file(run_id, LOG_NAME, Path(into))
            except RegistryUnreachable:
                raise
            except RegistryError:
                return LastRun(RunRecord(), f"the log of run {run_id[:8]} is not at hand")
        record = RunRecord.of(read_only(path, KINDS))
        if heads and not _is_closed_by(heads[-1], path):
            return LastRun(record, f"the log of run {run_id[:8]} is not what its journal closed")
    return LastRun(record)


def _is_closed_by(head: str, log: Path) -> bool:
    """Whether a log has the event of this digest, and no comparison after it."""
    closed, comparison = False, f'"kind":"{CandidatesCompared.kind}"'.encode()
    with log.open("rb") as stream:
        for line in stream:
            end = line[-LONGEST_END:]
            if closed and comparison in end:
                return False
            closed = closed or f'"digest":"{head}"'.encode() in end
    return closed
