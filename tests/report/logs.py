"""Small made-up logs: a run told as events, with whatever a test wants to be different."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfheal_cli.config import Policy, RunConfig
from selfheal_cli.events.types import Event, Kind
from selfheal_cli.report.verdict import Stage, verdict
from selfheal_cli.scores import Scores

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
    extra: Sequence[tuple[Kind, Mapping[str, Any]]] = (),
    trained: Mapping[str, Any] | None = None,
) -> list[Event]:
    """A run whose batches had so many rows right of a hundred, live and shadow."""
    told = _events(live, shadow, heals, finished, names, model, extra, trained or {})
    return [
        Event(place, f"2026-01-01T00:00:{place % 60:02}.000+00:00", kind, data, "", f"d{place}")
        for place, (kind, data) in enumerate(told, start=1)
    ]


def _events(
    live: Sequence[int],
    shadow: Sequence[int],
    heals: bool,
    finished: bool,
    names: Sequence[str],
    model: str,
    extra: Sequence[tuple[Kind, Mapping[str, Any]]],
    trained: Mapping[str, Any],
) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
    config = RunConfig(policy=Policy()).model_dump(mode="json")
    begun = {"run_id": RUN_ID, "model": model, "actor": "ann", "config": config}
    yield Kind.RUN_STARTED, begun | {"versions": {"selfheal": "0.1.0"}}
    features = [{"name": name, "kind": "numeric"} for name in names]
    watched = {"features": features, "features_in_all": len(names), "sensitive": names[0]}
    yield Kind.TRAINED, {"labels": ["no", "yes"], "rules": ["V14 < 0 => 1"]} | watched | trained
    yield Kind.SNAPSHOT, _snapshot("s0", "baseline", 0, scores(90))
    yield Kind.REGISTERED, {"snapshot": "s0", "version": 1}
    for batch, (right, without) in enumerate(zip(live, shadow, strict=True), start=1):
        if heals:
            yield Kind.HEAL, _heal(batch, right)
            yield Kind.SNAPSHOT, _snapshot(f"s{batch}", "post-heal", batch, scores(right))
            yield Kind.REGISTERED, {"snapshot": f"s{batch}", "version": batch + 1}
            yield Kind.ALIAS_MOVED, _move(batch)
        yield Kind.BATCH, _batch(batch, right, without, len(names))
    yield from extra
    if finished:
        yield Kind.RUN_FINISHED, _end(live, shadow)


def _snapshot(name: str, phase: str, batch: int, counts: Scores) -> dict[str, Any]:
    told = {"id": name, "phase": phase, "batch": batch, "scores": counts.as_dict()}
    return told | {"evaluation": "held-out", "threshold": 0.5, "reason": "new labels"}


def _heal(batch: int, right: int) -> dict[str, Any]:
    before, after = scores(right - 5).as_dict(), scores(right).as_dict()
    told = {"heal_id": f"h{batch}", "batch": batch, "reason": "new labels", "recipe": "anchored"}
    return told | {"before": before, "after": after, "evaluation": "held-out"}


def _move(batch: int) -> dict[str, Any]:
    told = {"alias": "champion", "source": batch, "target": batch + 1, "actor": "ann"}
    return told | {"at": "2026-01-01T00:00:00.000+00:00", "reason": f"heal h{batch}", "key": batch}


def _batch(batch: int, right: int, without: int, features: int) -> dict[str, Any]:
    return {
        "batch": batch,
        "rows": ROWS,
        "live": scores(right).as_dict(),
        "shadow": scores(without).as_dict(),
        "estimates": {},
        "z": 0.2 * batch,
        "drifting": batch > 5,
        "conflicts": 3,
        "positive_share": 0.5,
        "state": "DRIFTING" if batch > 5 else "HEALTHY",
        "heal_requested": True,
        "reason": "new labels",
        "shifts": [round(-0.1 * batch / (place + 1), 3) for place in range(features)],
    }


def _end(live: Sequence[int], shadow: Sequence[int]) -> dict[str, Any]:
    objective = RunConfig().objective
    healed, unhealed = _pooled(live), _pooled(shadow)
    nothing = Scores(tp=0, tn=60 * len(live), fp=0, fn=40 * len(live))
    stages = [
        Stage("healed", "Live (healing)", healed),
        Stage("unhealed", "Shadow (frozen)", unhealed),
        Stage("nothing", "Flag nothing", nothing),
    ]
    return {
        "outcome": "FINISHED",
        "stages": [stage.as_dict(objective) for stage in stages],
        "verdict": verdict({stage.key: stage.scores for stage in stages}, objective),
        "evaluation": "Every row was scored before anything learned from it.",
        "notes": {"missing values": 7},
        "base_unchanged": True,
    }


def _pooled(rights: Sequence[int]) -> Scores:
    total = Scores(0, 0, 0, 0)
    for right in rights:
        total = total.plus(scores(right))
    return total
