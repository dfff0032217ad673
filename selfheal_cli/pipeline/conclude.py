"""After the stream: what it came to, on rows that the table can be honest about."""

from __future__ import annotations

from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.model.network import Classifier
from selfheal_cli.monitor.prequential import constant, score
from selfheal_cli.pipeline.prepare import Prepared
from selfheal_cli.pipeline.stream import Stream
from selfheal_cli.records import Rows, Scores
from selfheal_cli.report.summary import Stage, limit_line, verdict
from selfheal_cli.snapshot import digest, pack
from selfheal_cli.source.base import Source

IN_SAMPLE = (
    "The healed model learned from batches drawn from these very rows, as in the article: "
    "its figures are optimistic."
)
PREQUENTIAL = "Every row was scored by the network as it was before anything learned from the row."


def conclude(
    config: RunConfig, source: Source, prepared: Prepared, live: LiveModel, stream: Stream
) -> dict[str, Any]:
    """The results table, the verdict, and the check that the frozen part did not move."""
    held_out = source.held_out()
    if held_out:
        stages = _held_out(config, prepared, live, held_out["clean"], held_out["drifted"])
    else:
        stages = _prequential(stream)
    by_key = {stage.key: stage.scores for stage in stages}
    lines = [stage.as_dict() for stage in stages]
    limit = source.limit()
    if limit is not None:
        lines.append(limit_line(limit))
    frozen = digest(pack(live.serving.network.base_weights()))
    return {
        "stages": lines,
        "evaluation": IN_SAMPLE if held_out else PREQUENTIAL,
        "verdict": verdict(by_key["unhealed"], by_key["healed"], by_key["nothing"]),
        "base_unchanged": frozen == digest(prepared.base.weights),
        "serving_sha256": digest(pack(live.serving.adapter.weights)),
        "notes": dict(source.notes()),
    }


def _held_out(
    config: RunConfig, prepared: Prepared, live: LiveModel, clean: Rows, drifted: Rows
) -> list[Stage]:
    def scored(network: Classifier, rows: Rows) -> Scores:
        return score(network.predict(rows.x), rows.y, config.threshold)

    unhealed = scored(prepared.shadow, drifted)
    return [
        Stage("clean", "Clean rows, self-healing network", scored(prepared.network, clean)),
        Stage("clean_plain", "Clean rows, plain baseline", scored(prepared.shadow, clean)),
        Stage("unhealed", "Under drift, no healing", unhealed),
        Stage("shadow", "Under drift, shadow (frozen)", unhealed),
        Stage("healed", "Under drift, self-healed", scored(live.serving.network, drifted)),
        Stage("nothing", "Flag nothing", constant(unhealed, flag=False)),
        Stage("everything", "Flag everything", constant(unhealed, flag=True)),
    ]


def _prequential(stream: Stream) -> list[Stage]:
    shadow = stream.shadow_scores.scores()
    return [
        Stage("healed", "Live (healing)", stream.live_scores.scores()),
        Stage("unhealed", "Shadow (frozen)", shadow),
        Stage("nothing", "Flag nothing", constant(shadow, flag=False)),
        Stage("everything", "Flag everything", constant(shadow, flag=True)),
    ]
