"""Segments that drifted, as an operator sees them of a served model."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from selfheal_cli.cli.status import rendered
from selfheal_cli.events import types as events
from selfheal_cli.serve.healer.status import SEGMENTS, EventFold
from selfheal_cli.serve.operator.page import _environment, _view
from selfheal_cli.serve.operator.status import ModelStatus, ServerInfo, StatusSnapshot
from selfheal_cli.serve.operator.verdict import status


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


def test_page_and_command_show_the_furthest_and_nothing_without_any() -> None:
    fold = fold_of([drifted(f"s<{place}>", 0.2 + place / 100) for place in range(30)])
    said = {}
    for name, standing in (("some", ModelStatus(**fold.facts)), ("none", ModelStatus())):
        seen = StatusSnapshot(server=ServerInfo(model="m"), standing=standing, age=1.0, at=10.0)
        console = Console(width=400, record=True, file=StringIO())
        console.print(rendered(status(seen).model_dump(mode="json")))
        page = _environment().get_template("live.html.j2").render(**_view(seen))
        said[name] = page, console.export_text()
    page, command = said["some"]
    assert '<th scope="row">s&lt;29&gt;</th><td data-name="column">amount</td>' in page
    assert "s&lt;9&gt;" not in page  # the twentieth is the last
    assert "Segments that drifted: country s<29> in amount by 0.49, country s<28>" in command
    assert "by 0.45 and 25 more" in command
    assert not any("Segments that drifted" in one for one in said["none"])
    assert ModelStatus().as_status()["segments"] == []
