"""After the stream: what it came to, on rows that the table can be honest about."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from selfheal_cli.config import RunConfig
from selfheal_cli.events.log import EventLog, read, written
from selfheal_cli.events.state import RunView
from selfheal_cli.events.types import RunFinished
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.metrics import RunningScores, commonest, constant, score
from selfheal_cli.model.checkpoint import estimator_tensors, make_base, pack
from selfheal_cli.model.network import Classifier
from selfheal_cli.pipeline.prepare.baseline import Prepared, survey
from selfheal_cli.pipeline.prepare.rows import kept_rows
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.pipeline.stream.session import Session, each
from selfheal_cli.records import Batch, Rows, digest
from selfheal_cli.registry.base import Outcome
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.report.description import NOTE_TAG, note
from selfheal_cli.report.export import export, keep_apart
from selfheal_cli.report.page import PAGE, write_page
from selfheal_cli.report.summary import RunSummary, tell
from selfheal_cli.report.verdict import ResultsLine, limit_line, verdict
from selfheal_cli.scores import AnyScores, Scores
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.rejects import REJECTS

IN_SAMPLE = (
    "The healed model learned from batches drawn from these very rows, as in the article: "
    "its figures are optimistic."
)
HELD_OUT = "The rows of this table were drawn beside the stream: nothing learned from them."
PREQUENTIAL = "Every row was scored by the network as it was before anything learned from the row."
BY_CLASS = (
    " Precision, recall and F1 are the means over the classes, rare ones as much as common ones."
)
LATE = " Labels that had not come by the end are used for this table and for nothing else."
GROWN = " Rows younger than labels.negative_after are in no figure."
RATIOS = tuple(10 ** (exponent / 8) for exponent in range(-8, 33))  # 0.1 to 10,000


def conclude(session: Session, outcome: Outcome) -> RunFinished:
    """The results table, the verdict, and the check that the frozen part did not move."""
    run = session.run
    config, source, prepared, live = run.config, run.source, run.prepared, run.live
    held_out = source.held_out()
    session.count_waiting()
    if "drifted" in held_out and session.live_scores.scores().rows:
        evaluation = IN_SAMPLE
        if _never_seen(config):
            evaluation = HELD_OUT
        stages = _held_out(prepared, live, held_out["clean"], held_out["drifted"])
        if config.heal.recipe == "article":
            walked = islice(source.batches(), run.state.batch)  # of a stopped stream no more
            stages[5:5] = [_alternative(config, source, walked, prepared, held_out["drifted"])]
    else:
        evaluation = PREQUENTIAL + _selected(config)
        stages = [*_baseline(session), *_prequential(session)]
    if config.labels.regime != "full":
        evaluation += LATE if config.labels.negative_after is None else GROWN
    if len(source.labels) > 2:
        evaluation += BY_CLASS
    lines = [stage.as_dict(config.objective) for stage in stages]
    limit = source.limit()
    if limit is not None:
        lines.append(limit_line(limit))
    stretches, batches = session.stretches, session.run.state.batch
    gains = stretches.gains(config.objective, batches) if stretches is not None else []
    document = prepared.base.describe()
    document.pop("network")
    tensors = {**prepared.anchor.tensors(), **estimator_tensors(source.encoding.model_bytes)}
    frozen = make_base(live.serving.network, tensors, document, prepared.probe)
    return RunFinished(
        outcome=outcome,
        stages=lines,
        evaluation=evaluation,
        verdict=verdict({stage.key: stage.scores for stage in stages}, config.objective, gains),
        costs=_costs(session),
        base_unchanged=frozen.sha256 == prepared.base.sha256,
        serving_sha256=digest(pack(live.serving.adapter.weights)),
        notes=dict(source.notes()) | _held_back(session),
        departures={name: dict(counts) for name, counts in source.departures().items()},
        compared=tuple(one.as_dict() for one in gains),
    )


def _never_seen(config: RunConfig) -> bool:
    """Whether the rows that were held out are not those that the stream is drawn from."""
    return config.source.kind == "synthetic" and bool(config.source.fresh or config.source.phases)


def _alternative(
    config: RunConfig, source: Source, walked: Iterable[Batch], prepared: Prepared, drifted: Rows
) -> ResultsLine:
    """What the recipe for users' own data gives on the same batches."""
    heal = config.heal.model_copy(update={"recipe": "anchored", "mode": "sync"})
    own = config.model_copy(update={"heal": heal})
    replay = Replay(own, source, survey(own, source, prepared.trained))
    each(walked, replay.step)
    serving = replay.live.serving
    scores = score(serving.network.predict(drifted.x), drifted.y, serving.threshold)
    return ResultsLine("anchored", "Under drift, recipe anchored", scores)


def _selected(config: RunConfig) -> str:
    """Which rows have labels, where not all may."""
    if config.labels.ask is not None:
        return (
            f" Figures called sampled are of rows alone whose labels were asked for by lot, "
            f"{config.labels.ask:.2%} of all."
        )
    if config.labels.only_when is None:
        return ""
    lot = f" or by lot (one of {round(1 / share)})" if (share := config.policy.explore) else ""
    counted = ", which stand for all of them in the verdict and at the gate" if share else ""
    return f" Only rows let through have labels: {config.labels.only_when}{lot}{counted}."


def _held_back(session: Session) -> dict[str, int]:
    rows = session.flow.quarantined_rows
    held = {"rows with implausible labels, held back from healing and figures": rows}
    return (held if rows else {}) | dict(session.left_out)


def _held_out(prepared: Prepared, live: LiveModel, clean: Rows, drifted: Rows) -> list[ResultsLine]:
    own, shadow_threshold = prepared.thresholds
    serving = live.serving

    def scored(network: Classifier, rows: Rows, threshold: float) -> AnyScores:
        return score(network.predict(rows.x), rows.y, threshold)

    unhealed = scored(prepared.shadow, drifted, shadow_threshold)
    on_clean = scored(prepared.network, clean, own)
    plain = scored(prepared.shadow, clean, shadow_threshold)
    healed = scored(serving.network, drifted, serving.threshold)
    return [
        ResultsLine("clean", "Clean rows, self-healing network", on_clean),
        ResultsLine("clean_plain", "Clean rows, plain baseline", plain),
        ResultsLine("unhealed", "Under drift, no healing", unhealed),
        ResultsLine("shadow", "Under drift, shadow (frozen)", unhealed),
        ResultsLine("healed", "Under drift, self-healed", healed),
        *_constants(unhealed),
    ]


def _baseline(session: Session) -> list[ResultsLine]:
    """The network as trained, on rows of the training part that were held out from it."""
    prepared = session.run.prepared
    if prepared.trained.held_out is None:
        return []
    x, y = prepared.trained.held_out
    running = RunningScores(len(session.run.source.labels))
    running.add(prepared.network.predict(x), prepared.thresholds[0], y)
    return [_line("baseline", "As trained, held-out rows", running, session)]


def _prequential(session: Session) -> list[ResultsLine]:
    shadow = session.shadow_scores
    return [
        _line("healed", "Live (healing)", session.live_scores, session),
        _line("unhealed", "Shadow (frozen)", shadow, session),
        *_constants(shadow.scores()),
    ]


def _line(key: str, title: str, running: RunningScores, session: Session) -> ResultsLine:
    """With the recall at few false positives, unless the run is gone through as 0.1.0 told it."""
    told = session.run.config.network.validation
    if session.run.config.labels.only_when is not None and key != "baseline":
        title = f"{title}, among those let through"
    if session.run.config.labels.ask is not None and key != "baseline":
        title = f"{title}, sampled"
    return ResultsLine(key, title, running.scores(), running.recall_at() if told else None)


def _constants(scores: AnyScores) -> list[ResultsLine]:
    """What flagging all or nothing, or with K classes always the commonest, would have given."""
    if isinstance(scores, Scores):
        return [
            ResultsLine("nothing", "Flag nothing", constant(scores, flag=False)),
            ResultsLine("everything", "Flag everything", constant(scores, flag=True)),
        ]
    return [ResultsLine("nothing", "Always the commonest class", commonest(scores))]


def _costs(session: Session) -> dict[str, list[float]]:
    """Expected cost per 100 rows by the ratio of a miss to a false alarm, live and shadow."""
    live, shadow = session.live_scores, session.shadow_scores
    scores = live.scores()
    if not isinstance(scores, Scores) or not scores.rows:
        return {}
    share = (scores.tp + scores.fn) / scores.rows
    return {
        "ratio": list(RATIOS),
        "healed": live.curve(RATIOS),
        "unhealed": shadow.curve(RATIOS),
        "nothing": [100 * share * ratio for ratio in RATIOS],
        "everything": [100 * (1 - share)] * len(RATIOS),
    }


CONFIG_NAME = "config.json"


def publish(
    config: RunConfig, log: EventLog, part: int, outcome: Outcome, writer: RegistryWriter
) -> tuple[RunView, tuple[Path, ...]]:
    """Files and pictures from the log, to be kept with the run; then the run is closed."""
    story = tell(read(log.path))
    view = story.view
    settings = log.path.with_name(CONFIG_NAME)
    with written(config.export_dir):
        files = [*export(view, config.export_dir), write_page(story, config.export_dir / PAGE)]
        settings.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        plots = _draw(config, story)
        keep_apart([*files, *plots], config.export_dir, view.run_id)
    kept: list[tuple[Path, str | None]] = [(log.path, None), (settings, None)]
    rows = kept_rows(config, log.path.parent)
    rejects = log.path.with_name(REJECTS)
    kept += [(path, None) for path in (rows, rejects) if path is not None and path.exists()]
    kept += [(path, "monitoring_export") for path in files]
    kept += [(path, "plots") for path in plots]
    tags = {"selfheal.log_head": log.head}
    if told := note(view, log.path.parent.name):
        tags[NOTE_TAG] = told
    writer.finish(str(part), kept, outcome, tags)
    return view, (*files, *plots)


def _draw(config: RunConfig, story: RunSummary) -> list[Path]:
    if not (config.plots and story.view.rows):
        return []
    from selfheal_cli.report.plots import draw_all

    return draw_all(story, config.export_dir / "plots")
