"""Small made-up logs: a run told as events, with whatever a test wants to be different."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfheal_cli.config import Policy, RunConfig
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import (
    AliasMoved,
    BatchScored,
    HealPublished,
    ModelTrained,
    RunFinished,
    RunStarted,
    SnapshotTaken,
    VersionRegistered,
)
from selfheal_cli.records import AliasMove, Phase
from selfheal_cli.report.verdict import ResultsLine, verdict
from selfheal_cli.scores import Scores
from tests.events.examples import example

RUN_ID = "0123456789abcdef"
ROWS = 100


def scores(right: int) -> Scores:
    """Of 100 rows with 40 positives, so many right, misses and false alarms alike."""
    wrong = ROWS - right
    misses = wrong // 2
    return Scores(tp=40 - misses, tn=60 - (wrong - misses), fp=wrong - misses, fn=misses)


def log(
    live: Sequence[int],
    shadow: Sequence[int],
    *,
    heals: bool = True,
    finished: bool = True,
    names: Sequence[str] = ("V14", "V9"),
    model: str = "fraud",
    extra: Sequence[Event] = (),
    **trained: Any,
) -> list[Event]:
    """A run whose batches had so many rows right of a hundred, live and shadow."""
    told = _events(live, shadow, heals, finished, names, model, extra, trained)
    return [
        replace(
            event,
            sequence=place,
            at=f"2026-01-01T00:00:{place % 60:02}.000+00:00",
            digest=f"d{place}",
        )
        for place, event in enumerate(told, start=1)
    ]


def _events(
    live: Sequence[int],
    shadow: Sequence[int],
    heals: bool,
    finished: bool,
    names: Sequence[str],
    model: str,
    extra: Sequence[Event],
    trained: Mapping[str, Any],
) -> Iterator[Event]:
    config = RunConfig(policy=Policy()).model_dump(mode="json")
    yield example(RunStarted, run_id=RUN_ID, model=model, config=config)
    features = [{"name": name, "kind": "numeric"} for name in names]
    watched = {"features": features, "features_in_all": len(names), "sensitive": names[0]}
    yield example(ModelTrained, **watched, **trained)
    yield _snapshot("s0", Phase.BASELINE, 0, scores(90))
    yield VersionRegistered(snapshot="s0", version=1)
    for batch, (right, without) in enumerate(zip(live, shadow, strict=True), start=1):
        if heals:
            yield _heal(batch, right)
            yield _snapshot(f"s{batch}", Phase.POST_HEAL, batch, scores(right))
            yield VersionRegistered(snapshot=f"s{batch}", version=batch + 1)
            yield _move(batch)
        yield _batch(batch, right, without, len(names))
    yield from extra
    if finished:
        yield _end(live, shadow)


def _snapshot(name: str, phase: Phase, batch: int, measured: Scores) -> Event:
    return example(SnapshotTaken, id=name, phase=phase, batch=batch, scores=measured)


def _heal(batch: int, right: int) -> Event:
    before, after = scores(right - 5), scores(right)
    return example(HealPublished, heal_id=f"h{batch}", batch=batch, before=before, after=after)


def _move(batch: int) -> Event:
    at = "2026-01-01T00:00:00.000+00:00"
    reason = f"heal h{batch}"
    move = AliasMove("fraud", "champion", batch, batch + 1, "ann", at, reason, key=str(batch))
    return AliasMoved(move=move)


def _batch(batch: int, right: int, without: int, features: int) -> Event:
    return example(
        BatchScored,
        batch=batch,
        rows=ROWS,
        live=scores(right),
        shadow=scores(without),
        z=0.2 * batch,
        drifting=batch > 5,
        state="DRIFTING" if batch > 5 else "HEALTHY",
        heal_requested=True,
        reason="new labels",
        shifts=[round(-0.1 * batch / (place + 1), 3) for place in range(features)],
    )


def _end(live: Sequence[int], shadow: Sequence[int]) -> Event:
    objective = RunConfig().objective
    healed, unhealed = _pooled(live), _pooled(shadow)
    nothing = Scores(tp=0, tn=60 * len(live), fp=0, fn=40 * len(live))
    stages = [
        ResultsLine("healed", "Live (healing)", healed),
        ResultsLine("unhealed", "Shadow (frozen)", unhealed),
        ResultsLine("nothing", "Flag nothing", nothing),
    ]
    return RunFinished(
        outcome="FINISHED",
        stages=[stage.as_dict(objective) for stage in stages],
        verdict=verdict({stage.key: stage.scores for stage in stages}, objective),
        evaluation="Every row was scored before anything learned from it.",
        notes={"missing values": 7},
        base_unchanged=True,
    )


def _pooled(rights: Sequence[int]) -> Scores:
    total = Scores(0, 0, 0, 0)
    for right in rights:
        total = total.plus(scores(right))
    return total
