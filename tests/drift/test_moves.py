"""What moved, since when and by how much, in words, on streams that have one change each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from selfheal_cli.drift.kinds import build, parse_monitor
from selfheal_cli.drift.moves import LoudMonitor, Moves
from selfheal_cli.drift.sentences import changes_of, moved_by_now, sentence_of
from selfheal_cli.drift.units import unit_of
from selfheal_cli.events.types import ColumnMoved
from selfheal_cli.settings.own_data import MONITORS
from tests.drift.streams import batch, sample

BEGIN = 21  # the first batch that differs


def moves(*batches: Any) -> list[ColumnMoved]:
    """What the monitors of own data say of batches, the first of which is number 1."""
    settings = [parse_monitor(text) for text in MONITORS]
    monitors = [build(one, sample(), exact=True) for one in settings]
    follower = Moves(sample())

    def told() -> Iterator[ColumnMoved]:
        for number, view in enumerate(batches, start=1):
            follower.observe(number, 1.7e9 + number, view, np.arange(len(view.classes)))
            readings = [monitor.update(view) for monitor in monitors]
            yield from follower.told([
                LoudMonitor(one.key, monitor.limits.threshold, reading)
                for one, monitor, reading in zip(settings, monitors, readings, strict=True)
            ])  # fmt: skip

    return list(told())


def stream(calm: int, drifted: int, **shift: float) -> list[Any]:
    before = [batch(seed) for seed in range(1, calm + 1)]
    return [*before, *(batch(1000 + seed, **shift) for seed in range(drifted))]


KINDS = {
    "a": ({"a": 1.5}, "a rose: median -0.0"),
    "missing": ({"missing": 0.2}, "b is missing in "),
    "texts": ({"new": 0.3}, "of rows are new categories ('kiosk')"),
    "decisions": ({"flagged": 0.4}, "decisions 'yes' went from 10.4% to "),
    "errors": ({"wrong": 0.5}, "errors went from "),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_told_within_ten_batches_with_its_begin_and_figures(kind: str) -> None:
    shift, words = KINDS[kind]
    first = moves(*stream(BEGIN - 1, 10, **shift))[0]
    assert first.batch < BEGIN + 10
    assert abs(first.since - BEGIN) <= 1
    assert words in first.reason
    assert f"from about batch {first.since} (2023-11-14 22:13) on" in first.reason


def test_without_a_change_nothing_is_told() -> None:
    assert moves(*stream(60, 0)) == []


def test_errors_that_are_rare_are_not_more_for_a_few_of_them() -> None:
    draw = np.random.default_rng(5)
    streams = [[batch(s, wrong=0.003) for s in draw.integers(0, 10**6, 60)] for _ in range(8)]
    assert [moves(*one) for one in streams] == [[]] * 8


def test_what_is_over_is_told_and_a_change_that_goes_on_is_one() -> None:
    calm = [batch(seed) for seed in range(500, 530)]
    growing = [batch(2000 + step, a=0.1 * step) for step in range(25)]
    sentences = [one.reason for one in changes_of(moves(*stream(20, 0), *growing, *calm))]
    assert len(sentences) == 2
    assert sentences[0].startswith("a rose: median ")
    assert sentences[1].startswith("a is as in training again, from about batch ")


def test_what_moves_again_long_after_it_left_is_said_to_have_left_then() -> None:
    first = replace(moved("a"), since=50, batch=56)
    again = replace(moved("a"), since=101, batch=105, time=None)
    told = [one.reason for one in changes_of([replace(first, time=None), again])]
    assert told[1] == f"{sentence_of(again)}, after a first change from about batch 50 on"
    assert moved_by_now([first, again])[0].startswith(sentence_of(again))
    over = replace(again, back=True, since=120, batch=130)
    later = replace(again, since=200, batch=204)
    assert changes_of([first, over, later])[-1].reason == later.reason


def test_errors_that_stay_high_are_not_over_when_their_detector_is_quiet() -> None:
    told = moves(*stream(BEGIN - 1, 40, wrong=0.4))
    assert [move.aspect for move in told] == ["errors"]
    over = moves(*stream(BEGIN - 1, 15, wrong=0.4), *(batch(3000 + seed) for seed in range(30)))
    assert over[-1].reason.startswith("errors are as at first again, from about batch ")


@pytest.mark.parametrize(
    ("factor", "offset"), [(1.8, 32.0), (100.0, 0.0), (0.453592, 0.0), (1.0, 273.15), (4.4, 0.0)]
)
def test_a_number_in_another_unit_is_called_that(factor: float, offset: float) -> None:
    draw = np.random.default_rng(3)
    old, new = draw.normal(20, 6, 4000), draw.normal(20, 6, 300) * factor + offset
    unit = unit_of([old, old[:2000], old[2000:]], [new, new[:250], new[250:]])
    assert unit is not None
    assert unit["factor"] == pytest.approx(factor, rel=0.01 if factor != 4.4 else 0.15)
    assert unit["offset"] == pytest.approx(offset, abs=4)


@pytest.mark.parametrize(
    "moved", ["further", "further and narrower", "one class alone", "another shape", "few rows"]
)
def test_what_is_no_other_unit_is_not_called_that(moved: str) -> None:
    draw = np.random.default_rng(4)
    old, new = draw.normal(20, 6, 4000), draw.normal(20, 6, 400)
    if moved == "further":
        new = new + 6
    elif moved == "further and narrower":  # by less than five sd, which its intercept is not
        new = 0.94 * new + 28
    elif moved == "one class alone":
        new[:300] = 1.8 * new[:300] + 32
    elif moved == "another shape":
        new = np.exp(new / 6)
    else:
        new = 1.8 * new[:150] + 32
    assert unit_of([old, old[:3000], old[3000:]], [new, new[:300], new[300:]]) is None


def test_a_column_in_another_unit_is_told_with_its_map() -> None:
    drifted = stream(BEGIN - 1, 10)
    for view in drifted[BEGIN - 1 :]:
        view.columns["b"][:] = 1.8 * view.columns["b"] + 32
    told = [one.reason for one in changes_of(moves(*drifted))]
    assert [sentence.partition(": ")[0] for sentence in told] == ["b rose"]
    assert told[0].endswith("; it looks like another unit: x 1.8 + 32")


def quantiles(*values: float) -> dict[str, float]:
    return dict(zip(("q05", "q25", "q50", "q75", "q95"), values, strict=True))


def test_at_the_end_only_what_is_still_away_is_named_the_furthest_first() -> None:
    near = moved("a", effect=0.2)
    far, gone, back = moved("b", effect=0.9), moved("c"), replace(moved("c"), back=True)
    assert [text.split()[0] for text in moved_by_now([near, gone, far, back])] == ["b", "a"]


def test_a_column_that_never_varied_and_now_does_has_spread_out() -> None:
    was, now = quantiles(-1, -1, -1, -1, -1), quantiles(-1, -1, -1, -1, 176)
    assert "spread out" in sentence_of(replace(moved("pdays"), before=was, now=now))


def moved(column: str, effect: float = 0.5) -> ColumnMoved:
    move = ColumnMoved(
        batch=9, reason="", monitor="two-sample", column=column, aspect="values", since=8, rows=100,
        before=quantiles(0, 1, 2, 3, 4), now=quantiles(5, 6, 7, 8, 9), effect=effect, p=1e-6,
        threshold=0.1,
    )  # fmt: skip
    return replace(move, reason=sentence_of(move))
