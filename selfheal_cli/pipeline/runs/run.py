"""A whole run, in order, and its end however it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from selfheal_cli.config import WORKSPACE, RunConfig
from selfheal_cli.errors import RegistryUnreachable, SelfhealError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import Clock, EventLog, require_writable
from selfheal_cli.events.state import RunView
from selfheal_cli.events.types import Event, Kind
from selfheal_cli.heal.engine import LiveModel, Serving
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.metrics import score
from selfheal_cli.model.network import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import OnEpoch, Prepared, prepare, sensitive_auto
from selfheal_cli.pipeline.prepare.lease import RunLease, require_free
from selfheal_cli.pipeline.prepare.rows import keep_rows
from selfheal_cli.pipeline.prepare.wrapped import wrapped_of
from selfheal_cli.pipeline.record.recorder import RunLedger
from selfheal_cli.pipeline.record.replayed import written_by
from selfheal_cli.pipeline.runs.continuing import Continued, champion_on
from selfheal_cli.pipeline.runs.results import conclude, publish
from selfheal_cli.pipeline.stream.champion import EVERY_SECONDS, ChampionWatcher
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.recorded import Recorded
from selfheal_cli.pipeline.stream.session import Corridor, lay, serve
from selfheal_cli.records import Evaluation
from selfheal_cli.registry.base import Lineage, Outcome, Registry, Result
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.scores import AnyScores
from selfheal_cli.sources.base import Source, Unbounded


def listen(
    source: Source, corridor: Corridor, ledger: RunLedger, log: EventLog, stop: Callable[[], bool]
) -> bool:
    """Every batch until the source ends or is to stop; returns whether it was to.

    The source hears that a batch is done once the log is on disk. While it is quiet the champion
    that others set is served, and what the registry was brought is noted.
    """
    last, stopped = 0, False

    def idle() -> bool:
        nonlocal stopped
        corridor.stream.follow(last + 1)
        ledger.catch_up()
        stopped = stopped or stop()
        return stopped

    if not isinstance(source, Unbounded):
        raise TypeError(f"{type(source).__name__} has an end")
    try:
        source.attend(log.path.parent, idle)
        corridor.stream.rest(0)
        for batch in source.batches():
            last = batch.index
            corridor.stream.step(batch)
            log.sync()
            source.settle()
            corridor.stream.rest(last)
    finally:
        source.close()
    if stopped:
        ledger.stop(last)
    return stopped


SCHEMA = "1"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given from outside, so that tests can give something else.

    ``stop`` is asked after each batch; True ends the stream, and the run counts as KILLED.
    ``on_left`` hears at the end how many writes the registry does not have yet; ``patience`` is
    how many seconds a registry that does not answer is waited for then, None for not at all.
    ``follow_seconds`` is how often the champion is looked at; 0 for never. ``on_live`` is given
    what scores, as soon as it does; ``on_publish`` the base's id and what serves whenever that
    has changed; ``on_laid`` the corridor, before the first batch. ``behind`` says why healing
    should pause for now, if it should.
    """

    registry: Registry
    clock: Clock
    actor: str
    on_epoch: OnEpoch = lambda done, total: None
    on_event: Callable[[Event], None] = lambda event: None
    on_left: Callable[[int], None] = lambda left: None
    stop: Callable[[], bool] = lambda: False
    workspace: Path = WORKSPACE
    patience: float | None = PATIENCE_SECONDS
    follow_seconds: float = EVERY_SECONDS
    on_live: Callable[[LiveModel], None] = lambda live: None
    on_publish: Callable[[str, Serving], None] = lambda base, serving: None
    on_laid: Callable[[Corridor], None] = lambda corridor: None
    behind: Callable[[], str] = lambda: ""


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
class Course:
    """A run that is to be gone through: from the start, or once more along its record.

    ``known`` is the champion's last move when it began; ``part`` counts its interruptions. One
    that is ``continued`` takes no baseline of its own.
    """

    config: RunConfig
    source: Source
    prepared: Prepared
    run_id: str
    log: EventLog
    actor: str
    known: int
    recorded: Iterable[Event] = ()
    left: Sequence[Result] = ()
    part: int = 0
    continued: Continued | None = None


def run(
    config: RunConfig, source: Source, around: Surroundings, *, go_on: bool = False
) -> Finished:
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
    tags = {"selfheal.model": model, "selfheal.actor": around.actor}
    run_id = registry.begin_run(config.experiment, config.parameters(), tags)
    with leased(config, run_id, around) as lease:
        folder = run_folder(run_id, around.workspace)
        with closing(EventLog(folder / LOG_NAME, around.clock)) as log:
            keep_rows(config, source, folder)
            champion = champion_on(registry, model, prepared.base) if go_on else None
            course = Course(
                config, source, prepared, run_id, log, around.actor, lease.known,
                continued=champion,
            )  # fmt: skip
            return go(course, around, lease)


@contextmanager
def leased(config: RunConfig, run_id: str, around: Surroundings) -> Iterator[RunLease]:
    """The lease of a run that has just begun, before anything else is read or written.

    A run that does not get it has failed, and leaves nothing in the folder.
    """
    folder = run_folder(run_id, around.workspace)
    try:
        lease = RunLease(
            around.registry, config.model_name, run_id, folder, around.actor, around.clock,
            four_eyes=config.policy.four_eyes,
        )  # fmt: skip
    except SelfhealError:
        rmtree(folder, ignore_errors=True)
        around.registry.end_run(run_id, "FAILED", {})
        raise
    with lease:
        yield lease


def go(course: Course, around: Surroundings, lease: RunLease) -> Finished:
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
    endless = isinstance(course.source, Unbounded)
    folder = course.log.path.parent
    return Finished(course.run_id, outcome, folder, view, files, left, away, endless)


def _record(
    course: Course, around: Surroundings, lineage: Lineage, writer: RegistryWriter
) -> tuple[Outcome, str]:
    """Everything between a run's first and last event; and why writes are left, if any are."""
    config, source, prepared = course.config, course.source, course.prepared
    result: dict[str, Any] = {"outcome": "FAILED"}
    with ExitStack() as stack:
        others = ChampionWatcher(
            around.registry, lineage.model, lineage.run_id, lineage.base, course.known
        )
        ledger = RunLedger(
            course.log, writer, around.on_event, around.clock, around.actor,
            lambda: others.known, course.recorded, course.left,
        )  # fmt: skip
        try:
            ledger.note(Kind.RUN_STARTED, _started(course, lineage))
            ledger.note(Kind.TRAINED, _trained(source, prepared, lineage.base))
            live = serve(prepared, partial(around.on_publish, lineage.base))
            around.on_live(live)
            recipes = Recipes(prepared.network, prepared.anchor, config.heal)
            world = Live(
                config, around.registry, lineage, ledger, others, live, recipes, around.behind
            )
            stack.callback(world.close)
            outside = Recorded(ledger.record, world, others) if ledger.record.expected else world
            corridor = lay(config, source, prepared, live, ledger, lineage, outside)
            _begin(course, corridor)
            around.on_laid(corridor)
            if around.follow_seconds:
                others.start(around.follow_seconds)
                stack.callback(others.close)
            stopped = _walk(course, corridor, ledger, around)
            corridor.healing.finish()
            writer.send_steps()
            away = _flush(writer, around)
            ledger.catch_up()
            result = conclude(config, source, prepared, live, corridor)
            result["outcome"] = "KILLED" if stopped else "FINISHED"
        finally:
            ledger.finish(result)
    outcome: Outcome = result["outcome"]
    return outcome, away


def _begin(course: Course, corridor: Corridor) -> None:
    """What serves first: the network as trained, or the champion that is gone on from."""
    continued = course.continued
    if continued is None:
        corridor.healing.baseline(*baseline_scores(course.source, course.prepared))
        return
    corridor.healing.know_baseline(continued.baseline)
    corridor.restore.begin_from(continued.champion, continued.weights, continued.move)


def _flush(writer: RegistryWriter, around: Surroundings) -> str:
    """Wait for the registry as long as is wanted; returns why it does not have everything."""
    if around.patience is None:
        writer.sync()
        return ""
    try:
        writer.flush(around.patience, around.on_left)
    except RegistryUnreachable as exc:
        return str(exc)
    return ""


def _walk(course: Course, corridor: Corridor, ledger: RunLedger, around: Surroundings) -> bool:
    """Every batch, unless told to stop; returns whether it was."""
    source, stop = course.source, around.stop
    if isinstance(source, Unbounded):
        return listen(source, corridor, ledger, course.log, stop)
    for batch in source.batches():
        corridor.stream.step(batch)
        if stop():
            ledger.stop(batch.index)
            return True
        corridor.stream.rest(batch.index)
    return False


def baseline_scores(source: Source, prepared: Prepared) -> tuple[AnyScores, Evaluation]:
    """On rows held out from training where the source has some, else on training rows."""
    held_out = source.held_out().get("clean")
    rows = held_out if held_out is not None else next(iter(source.training()))
    scores = score(prepared.network.predict(rows.x), rows.y, prepared.thresholds[0])
    return scores, Evaluation.IN_SAMPLE if held_out is None else Evaluation.HELD_OUT


def _started(course: Course, lineage: Lineage) -> dict[str, Any]:
    return {
        **written_by(),
        "run_id": lineage.run_id,
        "model": lineage.model,
        "actor": course.actor,
        "champion_move": course.known,
        "config": course.config.model_dump(mode="json"),
    }


def _trained(source: Source, prepared: Prepared, base_id: str) -> dict[str, Any]:
    network, calibration = prepared.network, prepared.trained.calibration
    return {
        "base": base_id,
        "base_sha256": prepared.base.sha256,
        "parameters": sum(p.numel() for p in network.parameters()),
        "adapter_parameters": sum(p.numel() for p in network.adapter.parameters()),
        "labels": list(source.labels),
        "rules": [str(rule) for rule in prepared.trained.rules.rules],
        "rules_suggested": prepared.trained.suggested,
        "sensitive": calibration.feature,
        "mean": calibration.mean,
        "sd": calibration.sd,
        **({} if calibration.category is None else {"sensitive_category": calibration.category}),
        **sensitive_auto(prepared.trained.used),
        "features": prepared.shifts.told(),
        "features_in_all": len(prepared.shifts.features),
        **_positions(source),
        "batches": source.batch_count,
        "held_out": {
            name: {
                "mean": float(calibration.values(rows.columns).mean(dtype="float64")),
                "rule_share": float(prepared.trained.rules.judge(rows.columns).fired.mean()),
            }
            for name, rows in source.held_out().items()
        },
    }


def _positions(source: Source) -> dict[str, Any]:
    """Where rows that keep coming were read from, so that they can be read again."""
    if not isinstance(source, Unbounded):
        return {}
    return {"positions": {"begin": dict(source.begin), "stream": dict(source.stream)}}
