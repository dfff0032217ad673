"""A whole run, in order, and its end however it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import RegistryUnreachable, SelfhealError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import Clock, EventLog, require_writable
from selfheal_cli.events.state import RunView
from selfheal_cli.events.types import ModelTrained, RunFinished
from selfheal_cli.heal.engine import LiveModel, Serving, Tried
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import OnEpoch, Prepared, most_used_features, prepare
from selfheal_cli.pipeline.prepare.continuing import WarmStart, champion_on
from selfheal_cli.pipeline.prepare.lease import RunLease, require_free
from selfheal_cli.pipeline.prepare.rows import keep_rows
from selfheal_cli.pipeline.prepare.wrapped import wrapped_of
from selfheal_cli.pipeline.record.recorder import RunRecorder, Watcher
from selfheal_cli.pipeline.record.replayed import run_started
from selfheal_cli.pipeline.runs.results import conclude, publish
from selfheal_cli.pipeline.stream.canary import TriedBefore
from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.pipeline.stream.context import SessionContext, serve
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.recorded import Recorded
from selfheal_cli.pipeline.stream.session import Session, never
from selfheal_cli.registry.aliases import OnSettled, untold
from selfheal_cli.registry.base import Lineage, Outcome, Registry
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.report.description import NAME_TAG, run_name
from selfheal_cli.rollback.trust import ByTheLog
from selfheal_cli.sources.base import Source
from selfheal_cli.workspace import WORKSPACE

SCHEMA = "1"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run is given from outside, so that tests can give something else.

    ``watchers`` are shown every event. ``stop`` is asked after each batch; True ends the stream,
    and the run counts as KILLED.
    ``on_results`` is given the figures once the stream has ended, before the registry is waited
    for. ``on_left`` hears then how many writes the registry does not have yet; ``patience`` is how
    many seconds a registry that does not answer is waited for then, None for not at all; once
    ``leave`` says True it is waited for no longer.
    ``follow_seconds`` is how often the champion is looked at; 0 for never. ``on_live`` is given
    what scores, as soon as it does; ``on_publish`` the base's id and what serves whenever that
    has changed, ``on_canary`` what is tried beside it. ``on_settled`` is told of each alias
    that an interrupted writer left and the run put right.
    """

    registry: Registry
    clock: Clock
    actor: str
    on_epoch: OnEpoch = lambda done, total: None
    watchers: Sequence[Watcher] = ()
    on_left: Callable[[int], None] = lambda left: None
    stop: Callable[[], bool] = never
    leave: Callable[[], bool] = never
    on_results: Callable[[RunFinished], None] = lambda end: None
    workspace: Path = WORKSPACE
    patience: float | None = PATIENCE_SECONDS
    follow_seconds: float = ChampionWatcher.seconds
    on_live: Callable[[LiveModel], None] = lambda live: None
    on_publish: Callable[[str, Serving], None] | None = None
    on_canary: Callable[[str, Tried | None], None] | None = None
    on_settled: OnSettled = untold


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended: where it is kept, and what it came to.

    ``left`` counts the writes that the registry does not have yet, and ``away`` says why where it
    did not answer. An ``endless`` stream is ended by being stopped.
    """

    run_id: str
    outcome: Outcome
    folder: Path
    view: RunView
    files: tuple[Path, ...]
    left: int = 0
    away: str = ""
    endless: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run that is to be gone through: from the start, or once more along its record.

    ``known`` is the champion's last move when it began; ``part`` counts its interruptions. One
    that is ``continued`` takes no baseline of its own; ``tried`` is the canary that was running.
    """

    config: RunConfig
    source: Source
    prepared: Prepared
    run_id: str
    log: EventLog
    actor: str
    known: int
    recorded: Iterable[Event] = ()
    left: Sequence[Event] = ()
    part: int = 0
    continued: WarmStart | None = None
    tried: TriedBefore | None = None


def run(config: RunConfig, source: Source, around: RunContext, *, go_on: bool = False) -> Finished:
    """Train, stream, heal, register, export.

    With ``go_on`` a champion that stands on the same base serves from the start and is healed
    further, and there is no other baseline. Raises `SelfhealError` kinds; what was measured until
    then is exported all the same.
    """
    use_one_thread()
    registry, model = around.registry, config.model_name
    require_writable(around.workspace, config.export_dir)
    require_free(registry, model, around.workspace, around.clock)
    prepared = prepare(config, source, around.on_epoch, wrapped_of(config, around.registry))
    tags = {"selfheal.model": model, "selfheal.actor": around.actor,
            NAME_TAG: run_name(config, around.clock())}  # fmt: skip
    run_id = registry.begin_run(config.experiment, config.parameters(), tags)
    with leased(config, run_id, around) as lease:
        folder = run_folder(run_id, around.workspace)
        with closing(EventLog(folder / LOG_NAME, around.clock)) as log:
            keep_rows(config, source, folder)
            champion = champion_on(registry, model, prepared.base) if go_on else None
            course = RunSpec(
                config, source, prepared, run_id, log, around.actor, lease.known,
                continued=champion,
            )  # fmt: skip
            return go(course, around, lease)


@contextmanager
def leased(config: RunConfig, run_id: str, around: RunContext) -> Iterator[RunLease]:
    """The lease of a run that has just begun, before anything else is read or written.

    A run that does not get it has failed, and leaves nothing in the folder.
    """
    folder = run_folder(run_id, around.workspace)
    try:
        lease = RunLease(
            around.registry, config.model_name, run_id, folder, around.actor, around.clock,
            four_eyes=config.policy.four_eyes, on_settled=around.on_settled,
        )  # fmt: skip
    except SelfhealError:
        rmtree(folder, ignore_errors=True)
        around.registry.end_run(run_id, "FAILED", {})
        raise
    with lease:
        yield lease


def go(course: RunSpec, around: RunContext, lease: RunLease) -> Finished:
    """A run from its first event to its last, under the model's lease."""
    config, registry = course.config, around.registry
    base_id = registry.store_base(course.run_id, course.prepared.base)
    lineage = Lineage(
        config.model_name,
        course.run_id,
        base_id,
        config.heal.recipe,
        str(config.labels),
        SCHEMA,
        config.policy.fidi_threshold,
    )
    outbox = Outbox(course.log.path.with_name(OUTBOX_NAME))
    writer = RegistryWriter(registry, lineage, outbox, before_commit=course.log.sync, lease=lease)
    with ExitStack() as stack:
        stack.callback(writer.close)
        try:
            outcome, away = _record(course, around, lineage, writer)
        except BaseException:
            with suppress(SelfhealError, OSError):  # the first error is the one to tell
                publish(config, course.log, course.part, "FAILED", writer)
                writer.flush(patience=0.0)
            raise
        view, files = publish(config, course.log, course.part, outcome, writer)
        away = away or _flush(writer, around)
        left = writer.pending
    folder, endless = course.log.path.parent, course.source.endless
    return Finished(course.run_id, outcome, folder, view, files, left, away, endless)


def _record(
    course: RunSpec, around: RunContext, lineage: Lineage, writer: RegistryWriter
) -> tuple[Outcome, str]:
    """Everything between a run's first and last event; and why writes are left, if any are."""
    end = RunFinished(outcome="FAILED")
    others = ChampionWatcher(
        around.registry, lineage.model, lineage.run_id, lineage.base, course.known,
        around.on_settled,
    )  # fmt: skip
    recorder = RunRecorder(
        course.log, writer, around.clock, around.actor, around.watchers,
        partial(getattr, others, "known"), course.recorded, course.left,
    )  # fmt: skip
    with ExitStack() as stack:
        try:
            adapter = course.prepared.network.architecture.adapter
            started = run_started(
                lineage.run_id, lineage.model, course.actor, course.known, course.config, adapter
            )
            recorder.note(started)
            recorder.note(trained_event(course.source, course.prepared, lineage.base))
            context = _context(course, around, lineage, writer, recorder, others, stack)
            session = Session(context)
            session.begin(course.continued, course.tried)
            if around.follow_seconds:
                others.seconds = around.follow_seconds
                others.start()
                stack.callback(others.stop)
            stopped = session.go_through(course.log.path.parent, around.stop, lambda: writer.holds)
            session.finish()
            writer.send_steps()
            outcome: Outcome = "KILLED" if stopped else "FINISHED"
            results = conclude(session, outcome)
            around.on_results(results)
            away = _flush(writer, around)
            recorder.catch_up()
            end = results
        finally:
            # before the last event: who is killed between the two would leave a run without figures
            writer.send_steps()
            with suppress(SelfhealError, OSError):
                writer.sync()
            recorder.finish(end)
    return outcome, away


def _context(
    course: RunSpec,
    around: RunContext,
    lineage: Lineage,
    writer: RegistryWriter,
    recorder: RunRecorder,
    others: ChampionWatcher,
    stack: ExitStack,
) -> SessionContext:
    """A session's context in the world as it is, or along its record first."""
    config, source, prepared = course.config, course.source, course.prepared
    on_publish = partial(around.on_publish, lineage.base) if around.on_publish else None
    on_canary = partial(around.on_canary, lineage.base) if around.on_canary else None
    live = serve(prepared, on_publish, on_canary)
    around.on_live(live)
    folder = course.log.path.parent
    world = Live(
        config, around.registry, lineage, writer, others, live,
        Recipes(prepared.network, prepared.anchor, config.heal),
        trust=lambda: ByTheLog(around.registry, folder.parent.parent, folder.name, writer.account),
        behind=source.behind,
    )  # fmt: skip
    stack.callback(world.close)
    outside = Recorded(recorder.record, world, others) if recorder.record.expected else world
    return SessionContext(config, source, prepared, live, lineage, recorder, outside)


def _flush(writer: RegistryWriter, around: RunContext) -> str:
    """Wait for the registry as long as is wanted; returns why it does not have everything."""

    def on_left(left: int) -> None:
        if around.leave():
            raise _Left
        around.on_left(left)

    try:
        if around.patience is not None:
            writer.flush(around.patience, on_left)
            return ""
    except RegistryUnreachable as exc:
        return str(exc)
    except _Left:
        pass  # what the registry does not have is on disk
    writer.sync()
    return ""


class _Left(Exception):
    """The registry is waited for no longer."""


def trained_event(source: Source, prepared: Prepared, base_id: str) -> ModelTrained:
    """What a run says of the network that it begins with."""
    network, calibration = prepared.network, prepared.trained.calibration
    return ModelTrained(
        base=base_id,
        base_sha256=prepared.base.sha256,
        parameters=sum(p.numel() for p in network.parameters()),
        adapter_parameters=sum(p.numel() for p in network.adapter.parameters()),
        labels=list(source.labels),
        rules=[str(rule) for rule in prepared.trained.rules.rules],
        rules_suggested=prepared.trained.suggested,
        sensitive=calibration.feature,
        mean=calibration.mean,
        sd=calibration.sd,
        sensitive_category=calibration.category,
        sensitive_auto=most_used_features(prepared.trained.used),
        features=prepared.shifts.described(),
        features_in_all=len(prepared.shifts.features),
        positions=source.positions() or None,
        training=prepared.trained.how,
        batches=source.batch_count,
        held_out={
            name: {
                "mean": float(calibration.values(rows.columns).mean(dtype="float64")),
                "rule_share": float(prepared.trained.rules.judge(rows.columns).fired.mean()),
            }
            for name, rows in source.held_out().items()
        },
    )
