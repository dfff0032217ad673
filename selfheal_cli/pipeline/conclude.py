"""After the stream: what it came to, on rows that the table can be honest about."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.model.network import Classifier
from selfheal_cli.model.packing import pack
from selfheal_cli.monitor.prequential import commonest, constant, score
from selfheal_cli.pipeline.corridor import Corridor
from selfheal_cli.pipeline.prepare import Prepared, survey
from selfheal_cli.pipeline.replay import Replay
from selfheal_cli.records import Batch, Rows, digest
from selfheal_cli.report.summary import Stage, limit_line, verdict
from selfheal_cli.scores import AnyScores, Scores
from selfheal_cli.snapshot import make_base
from selfheal_cli.source.base import Source

IN_SAMPLE = (
    "The healed model learned from batches drawn from these very rows, as in the article: "
    "its figures are optimistic."
)
HELD_OUT = "The rows of this table were drawn beside the stream: nothing learned from them."
PREQUENTIAL = "Every row was scored by the network as it was before anything learned from the row."
LATE = " Labels that had not come by the end are used for this table and for nothing else."
RATIOS = tuple(10 ** (exponent / 8) for exponent in range(-8, 33))  # 0.1 to 10,000


def conclude(
    config: RunConfig, source: Source, prepared: Prepared, live: LiveModel, corridor: Corridor
) -> dict[str, Any]:
    """The results table, the verdict, and the check that the frozen part did not move."""
    held_out, stream = source.held_out(), corridor.stream
    stream.finish()
    if "drifted" in held_out and stream.live_scores.scores().rows:
        evaluation = IN_SAMPLE
        if _never_seen(config):
            evaluation = HELD_OUT
        stages = _held_out(prepared, live, held_out["clean"], held_out["drifted"])
        if config.heal.recipe == "article":
            walked = islice(source.batches(), stream.last)  # of a stream that was stopped, no more
            stages[5:5] = [_alternative(config, source, walked, prepared, held_out["drifted"])]
    else:
        evaluation = PREQUENTIAL
        stages = _prequential(corridor)
    if config.labels.regime != "full":
        evaluation += LATE
    lines = [stage.as_dict(config.objective) for stage in stages]
    limit = source.limit()
    if limit is not None:
        lines.append(limit_line(limit))
    document = prepared.base.describe()
    document.pop("network")
    frozen = make_base(live.serving.network, prepared.anchor.tensors(), document, prepared.probe)
    return {
        "stages": lines,
        "evaluation": evaluation,
        "verdict": verdict({stage.key: stage.scores for stage in stages}, config.objective),
        "costs": _costs(corridor),
        "base_unchanged": frozen.sha256 == prepared.base.sha256,
        "serving_sha256": digest(pack(live.serving.adapter.weights)),
        "notes": dict(source.notes()) | _held_back(corridor),
        "departures": {name: dict(counts) for name, counts in source.departures().items()},
    }


def _never_seen(config: RunConfig) -> bool:
    """Whether the rows that were held out are not those that the stream is drawn from."""
    return config.source.kind == "synthetic" and bool(config.source.fresh or config.source.phases)


def _alternative(
    config: RunConfig, source: Source, walked: Iterable[Batch], prepared: Prepared, drifted: Rows
) -> Stage:
    """What the recipe for users' own data gives on the same batches."""
    heal = config.heal.model_copy(update={"recipe": "anchored", "mode": "sync"})
    own = config.model_copy(update={"heal": heal})
    replay = Replay(own, source, survey(own, source, prepared.trained))
    for batch in walked:
        replay.step(batch)
    serving = replay.live.serving
    scores = score(serving.network.predict(drifted.x), drifted.y, serving.threshold)
    return Stage("anchored", "Under drift, recipe anchored", scores)


def _held_back(corridor: Corridor) -> dict[str, int]:
    rows = corridor.flow.quarantined_rows
    held = {"rows with implausible labels, held back from healing and figures": rows}
    return (held if rows else {}) | dict(corridor.stream.left_out)


def _held_out(prepared: Prepared, live: LiveModel, clean: Rows, drifted: Rows) -> list[Stage]:
    own, shadow_threshold = prepared.thresholds
    serving = live.serving

    def scored(network: Classifier, rows: Rows, threshold: float) -> AnyScores:
        return score(network.predict(rows.x), rows.y, threshold)

    unhealed = scored(prepared.shadow, drifted, shadow_threshold)
    on_clean = scored(prepared.network, clean, own)
    plain = scored(prepared.shadow, clean, shadow_threshold)
    healed = scored(serving.network, drifted, serving.threshold)
    return [
        Stage("clean", "Clean rows, self-healing network", on_clean),
        Stage("clean_plain", "Clean rows, plain baseline", plain),
        Stage("unhealed", "Under drift, no healing", unhealed),
        Stage("shadow", "Under drift, shadow (frozen)", unhealed),
        Stage("healed", "Under drift, self-healed", healed),
        *_constants(unhealed),
    ]


def _prequential(corridor: Corridor) -> list[Stage]:
    shadow = corridor.stream.shadow_scores.scores()
    return [
        Stage("healed", "Live (healing)", corridor.stream.live_scores.scores()),
        Stage("unhealed", "Shadow (frozen)", shadow),
        *_constants(shadow),
    ]


def _constants(scores: AnyScores) -> list[Stage]:
    """What flagging all or nothing, or with K classes always the commonest, would have given."""
    if isinstance(scores, Scores):
        return [
            Stage("nothing", "Flag nothing", constant(scores, flag=False)),
            Stage("everything", "Flag everything", constant(scores, flag=True)),
        ]
    return [Stage("nothing", "Always the commonest class", commonest(scores))]


def _costs(corridor: Corridor) -> dict[str, list[float]]:
    """Expected cost per 100 rows by the ratio of a miss to a false alarm, live and shadow."""
    live, shadow = corridor.stream.live_scores, corridor.stream.shadow_scores
    found = live.scores()
    if not isinstance(found, Scores) or not found.rows:
        return {}
    share = (found.tp + found.fn) / found.rows
    return {
        "ratio": list(RATIOS),
        "healed": live.curve(RATIOS),
        "unhealed": shadow.curve(RATIOS),
        "nothing": [100 * share * ratio for ratio in RATIOS],
        "everything": [100 * (1 - share)] * len(RATIOS),
    }
