"""A whole run, in order, and its end however it comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfheal_cli import __version__
from selfheal_cli.config import WORKSPACE, RunConfig
from selfheal_cli.errors import RegistryError
from selfheal_cli.heal.engine import HealEngine, InlineEngine
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.history.archive import LOG_NAME, run_folder
from selfheal_cli.history.event_log import Clock, EventLog, read
from selfheal_cli.history.events import Event, Kind
from selfheal_cli.model.network import use_one_thread
from selfheal_cli.monitor.prequential import score
from selfheal_cli.pipeline.conclude import conclude
from selfheal_cli.pipeline.corridor import lay, serve
from selfheal_cli.pipeline.ledger import RunLedger
from selfheal_cli.pipeline.prepare import OnEpoch, Prepared, prepare
from selfheal_cli.pipeline.stream import Stream
from selfheal_cli.records import Evaluation
from selfheal_cli.registry.base import Lineage, Outcome, Registry
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.report.export import export
from selfheal_cli.report.fold import RunView, fold
from selfheal_cli.scores import AnyScores
from selfheal_cli.source.base import Source

SCHEMA = "1"
CONFIG_NAME = "config.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run is given from outside, so that tests can give something else.

    ``stop`` is asked after each batch; True ends the stream, and the run counts as KILLED.
    """

    registry: Registry
    clock: Clock
    actor: str
    on_epoch: OnEpoch = lambda done, total: None
    on_event: Callable[[Event], None] = lambda event: None
    stop: Callable[[], bool] = lambda: False
    workspace: Path = WORKSPACE


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended: where it is kept, and what it came to."""

    run_id: str
    outcome: Outcome
    folder: Path
    view: RunView
    files: tuple[Path, ...]


def run(config: RunConfig, source: Source, around: Surroundings) -> Finished:
    """Train, stream, heal, register, export.

    Raises `SelfhealError` kinds; what was measured until then is exported all the same.
    """
    use_one_thread()
    prepared = prepare(config, source, around.on_epoch)
    tags = {"selfheal.model": config.model_name, "selfheal.actor": around.actor}
    run_id = around.registry.begin_run(config.experiment, config.parameters(), tags)
    folder = run_folder(run_id, around.workspace)
    log = EventLog(folder / LOG_NAME, around.clock)
    try:
        outcome = _record(config, source, prepared, around, run_id, log)
    except BaseException:
        log.close()
        with suppress(RegistryError):  # the first error is the one to tell
            _publish(config, around.registry, run_id, "FAILED", log)
        raise
    log.close()
    view, files = _publish(config, around.registry, run_id, outcome, log)
    return Finished(run_id, outcome, folder, view, files)


def _record(
    config: RunConfig,
    source: Source,
    prepared: Prepared,
    around: Surroundings,
    run_id: str,
    log: EventLog,
) -> Outcome:
    """Everything between a run's first and last event."""
    registry = around.registry
    base_id = registry.store_base(run_id, prepared.base)
    lineage = Lineage(
        config.model_name, run_id, base_id, config.heal.recipe, str(config.labels), SCHEMA
    )
    result: dict[str, Any] = {"outcome": "FAILED"}
    with ExitStack() as stack:
        writer = RegistryWriter(registry, lineage, log.path.parent / "outbox")
        stack.callback(writer.close)
        ledger = RunLedger(log, writer, around.on_event, around.clock, around.actor)
        try:
            ledger.note(Kind.RUN_STARTED, _started(config, lineage, around.actor))
            ledger.note(Kind.TRAINED, _trained(source, prepared, base_id))
            live = serve(prepared)
            engine = _engine(config, prepared, live)
            stack.callback(engine.close)
            corridor = lay(config, source, prepared, live, engine, ledger, registry, lineage)
            corridor.healing.baseline(*_baseline_scores(source, prepared))
            stopped = _walk(source, corridor.stream, around.stop)
            corridor.healing.settle(wait=True)
            ledger.catch_up(wait=True)
            result = conclude(config, source, prepared, live, corridor)
            result["outcome"] = "KILLED" if stopped else "FINISHED"
        finally:
            ledger.note(Kind.RUN_FINISHED, result)
    outcome: Outcome = result["outcome"]
    return outcome


def _walk(source: Source, stream: Stream, stop: Callable[[], bool]) -> bool:
    """Every batch, unless told to stop; returns whether it was."""
    for batch in source.batches():
        stream.step(batch)
        if stop():
            return True
    return False


def _publish(
    config: RunConfig, registry: Registry, run_id: str, outcome: Outcome, log: EventLog
) -> tuple[RunView, tuple[Path, ...]]:
    """Files and pictures from the log, kept with the run; then the run is closed."""
    view = fold(read(log.path))
    files = export(view, config.export_dir)
    settings = log.path.with_name(CONFIG_NAME)
    settings.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    plots: list[Path] = []
    if config.plots and view.rows:
        from selfheal_cli.report.plots import draw_all

        plots = draw_all(view, config.export_dir / "plots")
    registry.log_files(run_id, [log.path, settings])
    registry.log_files(run_id, files, "monitoring_export")
    registry.log_files(run_id, plots, "plots")
    registry.end_run(run_id, outcome, {"selfheal.log_head": log.head})
    return view, (*files, *plots)


def _engine(config: RunConfig, prepared: Prepared, live: LiveModel) -> HealEngine:
    recipes = Recipes(prepared.network, prepared.anchor, config.heal)
    if config.heal.mode == "sync":
        return InlineEngine(live, recipes)
    from selfheal_cli.heal.worker_engine import WorkerEngine

    return WorkerEngine(live, recipes)


def _baseline_scores(source: Source, prepared: Prepared) -> tuple[AnyScores, Evaluation]:
    """On rows held out from training where the source has some, else on training rows."""
    held_out = source.held_out().get("clean")
    rows = held_out if held_out is not None else next(iter(source.training()))
    scores = score(prepared.network.predict(rows.x), rows.y, prepared.thresholds[0])
    return scores, Evaluation.IN_SAMPLE if held_out is None else Evaluation.HELD_OUT


def _started(config: RunConfig, lineage: Lineage, actor: str) -> dict[str, Any]:
    return {
        "run_id": lineage.run_id,
        "model": lineage.model,
        "actor": actor,
        "config": config.model_dump(mode="json"),
        "versions": {
            "selfheal": __version__,
            "mlflow": version("mlflow"),
            "torch": version("torch"),
        },
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
        "batches": source.batch_count,
        "held_out": {
            name: {
                "mean": float(rows.columns[calibration.feature].mean(dtype="float64")),
                "rule_share": float(prepared.trained.rules.judge(rows.columns).fired.mean()),
            }
            for name, rows in source.held_out().items()
        },
    }
