"""Segments that drifted, as an operator sees them of a served model."""

from __future__ import annotations

from selfheal_cli.events import types as events
from selfheal_cli.serve.healer.status import SEGMENTS, EventFold
from selfheal_cli.serve.operator.status import ModelStatus


def drifted(segment: str, effect: float) -> events.DriftedSegment:
    return {"segment": segment, "column": "amount", "effect": effect, "evidence": 6.0,
            "rows": 120, "since": 4}  # fmt: skip


def fold_of(*batches: list[events.DriftedSegment]) -> EventFold:
    fold = EventFold()
    for segments in batches:
        fold.apply(
            events.SegmentsDrifted(
                batch=4, reason="country DE: amount by 0.40", by="country", segments=segments,
                pairs=40, rate=0.05, threshold=0.1,
            )
        )  # fmt: skip
    return fold


def test_they_are_ranked_over_all_batches_and_told_in_status() -> None:
    fold = fold_of([drifted("DE", 0.4)], [drifted("FR", 0.7), drifted("AT", 0.2)])
    standing = ModelStatus(**fold.facts).as_status()
    assert [one["segment"] for one in standing["segments"]] == ["FR", "DE", "AT"]
    assert standing["segments"][0]["by"] == "country"
    assert standing["happenings"][0]["text"] == "country DE: amount by 0.40"


def test_no_more_are_held_than_are_told() -> None:
    fold = fold_of([drifted(f"s{place}", place / 1_000) for place in range(2 * SEGMENTS)])
    assert len(fold.facts["segments"]) == SEGMENTS
    assert fold.facts["segments"][0].segment == f"s{2 * SEGMENTS - 1}"


def test_without_any_the_document_says_none() -> None:
    assert ModelStatus().as_status()["segments"] == []
