"""One segment's adapters over the versions of a model; and a version in which it has one of these
again, while all others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from selfheal_cli.errors import NoCandidateError
from selfheal_cli.events.archive import ALIVE_LOCK
from selfheal_cli.events.types import SegmentRestored
from selfheal_cli.model.checkpoint import unpack
from selfheal_cli.model.composite import Parts, composed, split
from selfheal_cli.pipeline.prepare.continuing import recorded_config
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.runs.one_version import OneVersion, begin_log, register
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.records import Evaluation, Phase, VersionRecord, digest
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.rollback.plan import champion_of
from selfheal_cli.segment_keys import code_of

if TYPE_CHECKING:
    from selfheal_cli.pipeline.runs.run import RunContext

LOOKED_AT = 1_000  # versions, the latest


@dataclass(frozen=True, slots=True)
class SegmentVersion:
    """A version that gave a segment another adapter; ``sha256`` is empty where it has none."""

    version: VersionRecord
    sha256: str


@dataclass(frozen=True, slots=True)
class SegmentRestore:
    """The champion, the version whose adapter a segment gets, and what comes of it, in bytes."""

    segment: str
    champion: VersionRecord
    source: VersionRecord
    adapter: bytes


def adapters_of(registry: Registry, model: str, segment: str) -> Iterator[SegmentVersion]:
    """The versions on the champion's base in which a segment has another adapter than in the one
    before, the latest first. Raises `NoCandidateError` where its model has no segments.
    """
    champion = _champion(registry, model)
    versions = registry.versions(model, limit=LOOKED_AT)
    ours = [one for one in versions if one.base == champion.base and not one.stale]
    later: SegmentVersion | None = None
    for version in ours:
        sha256 = _hash_in(registry, version, segment)
        if later is not None and later.sha256 != sha256:
            yield later
        later = SegmentVersion(version, sha256)
    if later is not None and later.sha256:
        yield later


def plan_segment(
    registry: Registry, model: str, segment: str, number: int | None
) -> SegmentRestore:
    """The champion with a segment's adapter of version ``number``, None for the one before.

    Raises `NoCandidateError` where there is none, or it is the one that serves.
    """
    champion = _champion(registry, model)
    now = _parts(registry, champion)
    if number is None:
        source = _previous(registry, champion, segment)
    else:
        source = registry.version(model, number)
    if source.base != champion.base:
        raise NoCandidateError(
            f"{model} v{source.version} is on another base than v{champion.version}, which serves: "
            "its adapters do not fit; choose another version"
        )
    code = code_of(segment)
    then = _parts(registry, source).segments.get(code)
    if then == now.segments.get(code):
        has = "the same adapter" if then else "no adapter of its own"
        raise NoCandidateError(
            f"segment '{segment}' has {has} in {model} v{source.version} and in v"
            f"{champion.version}, which serves; see 'selfheal history --segment {segment}'"
        )
    segments = {one: data for one, data in now.segments.items() if one != code}
    segments |= {} if then is None else {code: then}
    return SegmentRestore(segment, champion, source, composed(Parts(now.whole, segments)))


def add_restored(restore: SegmentRestore, around: RunContext) -> int:
    """Register what comes of it, in a run of its own; returns the version's number.

    It is nobody's heal and takes no lease: a run that heals the model goes on, and follows once
    the champion is moved.
    """
    registry, champion = around.registry, restore.champion
    model, source = champion.model, restore.source
    tags = {"selfheal.model": model, "selfheal.actor": around.actor, "selfheal.kind": "segment"}
    config = recorded_config(
        registry, champion, around.workspace
    )  # it is served, and healed, by it
    told = {"segment": restore.segment, "from": f"v{source.version}"}
    run_id = registry.begin_run(config.experiment, told, tags)
    born, base = champion.tags, registry.base(champion.base)
    lineage = Lineage(
        model, run_id, champion.base, born["selfheal.recipe"], born["selfheal.labels"],
        born["selfheal.schema"],
    )  # fmt: skip
    happened = SegmentRestored(
        base=champion.base, base_sha256=base.sha256, segment=restore.segment,
        code=code_of(restore.segment), version=champion.version, source=source.version,
    )  # fmt: skip

    def take(recorder: RunRecorder) -> str:
        recorder.restored(born["selfheal.snapshot"], champion.version)
        reason = f"segment {restore.segment} as in v{source.version}"
        weights = unpack(restore.adapter, sha256=digest(restore.adapter), where=reason)
        return Snapshots(recorder, run_id).take(
            weights, phase=Phase.POST_HEAL, batch=0, scores=None, evaluation=Evaluation.AWAITING,
            reason=reason, threshold=champion.threshold, parent=born["selfheal.snapshot"],
        )  # fmt: skip

    made = OneVersion(config, base.describe()["network"]["adapter"], happened, take)
    with (
        closing(begin_log(run_id, around)) as log,
        FileLock(log.path.with_name(ALIVE_LOCK)),  # else a healer that begins would end this run
    ):
        return register(made, lineage, log, around)


def _champion(registry: Registry, model: str) -> VersionRecord:
    champion = champion_of(registry, model)
    if not isinstance(champion, VersionRecord):
        raise NoCandidateError(f"'{model}' is served by another tool's version: it has no segments")
    _parts(registry, champion)
    return champion


def _parts(registry: Registry, version: VersionRecord) -> Parts:
    parts = split(registry.adapter(version))
    if parts is None:
        raise NoCandidateError(
            f"{version.model} v{version.version} has no adapters of segments: segments.heal gives "
            "them to a run"
        )
    return parts


def _hash_in(registry: Registry, version: VersionRecord, segment: str) -> str:
    data = _parts(registry, version).segments.get(code_of(segment))
    return "" if data is None else digest(data)


def _previous(registry: Registry, champion: VersionRecord, segment: str) -> VersionRecord:
    """The latest version before the champion in which the segment has another adapter."""
    now = _hash_in(registry, champion, segment)
    for version in registry.versions(champion.model, limit=LOOKED_AT):
        earlier = version.version < champion.version and version.base == champion.base
        if earlier and not version.stale and _hash_in(registry, version, segment) != now:
            return version
    raise NoCandidateError(
        f"segment '{segment}' has the same adapter in every version before v{champion.version}, "
        "which serves"
    )
