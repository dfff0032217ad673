"""Carries one job from the outbox to the registry; each may be carried twice and counts once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from selfheal_cli.errors import ConflictError, RegistryError, RegistryRestored
from selfheal_cli.events.run_record import Account
from selfheal_cli.events.types import SnapshotTaken
from selfheal_cli.model.checkpoint import assemble, probe_decisions, unpack
from selfheal_cli.records import Evaluation, Phase, Snapshot
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, NOTHING, Lineage, Registry, StepMetrics
from selfheal_cli.registry.journal import LEARNED_MORE, Hold, Proposal, standing
from selfheal_cli.registry.orders import (
    pause,
    propose,
    proposed_before,
    reject,
    supersedes,
)
from selfheal_cli.registry.outbox import Job, Outbox
from selfheal_cli.scores import AnyScores, scores_from


def version_job(snapshot: Snapshot, adapter: bytes) -> Job:
    """Register a snapshot."""
    data = asdict(snapshot) | {"scores": snapshot.scores.as_dict() if snapshot.scores else None}
    return Job(f"version:{snapshot.id}", "version", data, adapter)


def move_job(wanted: Move, snapshot: str, along: Sequence[str] = ()) -> Job:
    """Move an alias to a snapshot's version, or take it away without one, and then others
    ``along``; ``wanted.target`` is not known yet.
    """
    data = asdict(replace(wanted, snapshot=snapshot)) | ({"along": list(along)} if along else {})
    return Job(f"move:{wanted.key}", "move", data)


def proposal_job(wanted: Proposal) -> Job:
    """Propose a snapshot's version; ``wanted.target`` is not known yet."""
    return Job(f"proposal:{wanted.snapshot}", "proposal", asdict(wanted))


def hold_job(wanted: Hold) -> Job:
    """Hold the healing of the model."""
    return Job(f"hold:{wanted.run}:{wanted.at}", "hold", asdict(wanted))


def score_job(snapshot: str, batch: int, metrics: Mapping[str, float], scores: AnyScores) -> Job:
    """Give a version the figures that came late."""
    data = {"snapshot": snapshot, "batch": batch, "metrics": dict(metrics)}
    data["scores"] = scores.as_dict()
    return Job(f"score:{snapshot}", "score", data)


def account_of(outbox: Outbox, snapshot: str, lineage: Lineage, base_sha256: str) -> Account | None:
    """What a run wrote down of a snapshot, from the jobs that it handed over."""
    taken, late = outbox.kept(f"version:{snapshot}"), outbox.kept(f"score:{snapshot}")
    if taken is None or "log_head" not in taken.data:
        return None
    data, result = taken.data, outbox.result(taken.key) or {}
    before = outbox.result(f"version:{data['parent']}") if data["parent"] else None
    return Account(
        lineage.run_id,
        lineage.base,
        base_sha256,
        SnapshotTaken.from_dict(data),
        data["log_head"],
        scores_from(late.data["scores"]) if late else None,
        before["version"] if before else None,
        result.get("version"),
        result.get("manifest", ""),
    )


def metrics_job(steps: list[StepMetrics]) -> Job:
    """Figures of some batches, known by which: a run that was stopped sends fewer at once than when
    it goes through the same batches again.
    """
    key = f"metrics:{steps[0].batch}-{steps[-1].batch}:{len(steps)}"
    return Job(key, "metrics", {"steps": [asdict(step) for step in steps]})


def file_job(key: str, path: Path, folder: str | None, size: int) -> Job:
    """Keep the first ``size`` bytes of a file with the run."""
    data = {"name": path.name, "folder": folder}
    return Job(f"file:{key}", "file", data, file=path, size=size)


def end_job(key: str, outcome: str, tags: Mapping[str, str]) -> Job:
    """Close the run."""
    return Job(f"end:{key}", "end", {"outcome": outcome, "tags": dict(tags)})


def deliver(
    registry: Registry, lineage: Lineage, outbox: Outbox, job: Job, *, again: bool
) -> dict[str, Any]:
    """Do a job; returns what came of it. ``again`` where an earlier try may have come through."""
    if job.kind == "version":
        return _version(registry, lineage, outbox, job, again=again)
    if job.kind == "move":
        return _move(registry, lineage, outbox, job.data)
    if job.kind == "proposal":
        return _proposal(registry, lineage, outbox, job.data, again=again)
    if job.kind == "hold":
        return {"held": pause(registry, lineage.model, Hold(**job.data), again=again)}
    if job.kind == "score":
        data = job.data
        number = _number(outbox, data["snapshot"])
        scores = scores_from(data["scores"])
        registry.score_version(lineage, number, data["batch"], data["metrics"], scores)
    elif job.kind == "metrics":
        steps = [StepMetrics(**step) for step in job.data["steps"]]
        registry.log_metrics(lineage.run_id, steps)
    elif job.kind == "file":
        _file(registry, lineage, outbox, job)
    elif job.kind == "end":
        registry.end_run(lineage.run_id, job.data["outcome"], job.data["tags"])
    else:
        raise RegistryError(f"{outbox.path}: a job of unknown kind '{job.kind}'")
    return {}


def _version(
    registry: Registry, lineage: Lineage, outbox: Outbox, job: Job, *, again: bool
) -> dict[str, Any]:
    data = dict(job.data)
    scores = scores_from(data["scores"]) if data["scores"] else None
    data |= {"scores": scores, "phase": Phase(data["phase"])}
    snapshot = Snapshot(**data | {"evaluation": Evaluation(data["evaluation"])})
    parent = None
    if snapshot.parent:
        known = outbox.result(f"version:{snapshot.parent}")
        parent = known["version"] if known else None
    adapter = job.blob or b""
    weights = unpack(adapter, sha256=snapshot.sha256, where=snapshot.id)
    base = registry.base(lineage.base)
    network = assemble(base, weights, where=snapshot.id)
    probe = probe_decisions(base, network, snapshot.threshold, where=snapshot.id)
    snapshot = replace(snapshot, probe=probe)
    before = outbox.last_version()
    added = registry.add_version(lineage, snapshot, adapter, parent, again=again)
    if before is not None and added.version <= before["version"] and not again:
        raise RegistryRestored(
            f"'{lineage.model}' gave snapshot {snapshot.id} the number {added.version}, and "
            f"{before['snapshot']} had {before['version']} before it: the registry was restored "
            "from an earlier state; begin a new run"
        )
    return {"snapshot": snapshot.id, **added._asdict()}


def _move(
    registry: Registry, lineage: Lineage, outbox: Outbox, data: Mapping[str, Any]
) -> dict[str, Any]:
    target = _number(outbox, data["snapshot"]) if data["snapshot"] else NOTHING
    asked = {name: value for name, value in data.items() if name != "along"}
    wanted = replace(Move(**asked), target=target, lease=lineage.lease)
    try:
        moved = move_alias(registry, wanted).as_dict()
        for alias in data.get("along", ()):
            move_alias(
                registry, replace(wanted, alias=alias, key=f"{wanted.key}:{alias}", after=None)
            )
        return moved
    except ConflictError as exc:
        # a person moved it meanwhile, and a person's word counts for more than a heal's
        return {"key": data["key"], "alias": data["alias"], "refused": str(exc)}


def _proposal(
    registry: Registry, lineage: Lineage, outbox: Outbox, data: Mapping[str, Any], *, again: bool
) -> dict[str, Any]:
    """A proposal that has no use any more is dropped: its version stays."""
    snapshot = data["snapshot"]
    taken = outbox.kept(f"version:{snapshot}")  # without data where another run registered it
    sha256 = taken.data.get("sha256") if taken else None
    wanted = replace(
        Proposal(**data),
        target=_number(outbox, snapshot),
        sha256=sha256 or registry.version(lineage.model, _number(outbox, snapshot)).sha256,
        after=_last_move(registry, lineage, data["after"]),
    )
    try:
        made = proposed_before(registry, lineage.model, snapshot) if again else None
        made = made or _proposed(registry, lineage.model, wanted)
    except ConflictError as exc:
        return {"refused": str(exc)}
    return {
        "proposal": made.sequence, "snapshot": snapshot, "version": made.target,
        "sha256": made.sha256, "expires": made.expires, "reason": made.reason,
    }  # fmt: skip


def _proposed(registry: Registry, model: str, wanted: Proposal) -> Proposal:
    """Propose it, in the place of what it supersedes."""
    made = propose(registry, model, wanted)
    for waiting in standing(registry, model).proposals:
        if supersedes(made, waiting):
            why = f"proposal {made.sequence} {LEARNED_MORE}"
            reject(registry, model, waiting.sequence, actor=made.actor, at=made.at, reason=why)
    return made


def _last_move(registry: Registry, lineage: Lineage, known: int) -> int:
    """The champion's last move that the run knew of: its own, or the ``known`` one of others."""
    last = standing(registry, lineage.model).moves.get(CHAMPION)
    if last is not None and last.run == lineage.run_id:
        return last.sequence
    return known


def _number(outbox: Outbox, snapshot: str) -> int:
    answer = outbox.result(f"version:{snapshot}")
    if answer is None:
        raise RegistryError(f"{outbox.path}: snapshot {snapshot} is no version yet")
    return int(answer["version"])


def _file(registry: Registry, lineage: Lineage, outbox: Outbox, job: Job) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, job.data["name"])
        outbox.write_file(job, path)
        registry.log_files(lineage.run_id, [path], job.data["folder"])
