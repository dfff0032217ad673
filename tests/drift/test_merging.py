"""Monitors over partitions of the rows, added up, say what one over all rows says."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from selfheal_cli.drift.kinds import KINDS, build, parse_monitor
from selfheal_cli.drift.merging import SummingMonitor
from selfheal_cli.drift.monitor import BatchView, Monitor, MonitorState, Reading
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.moments import Moments
from tests.conftest import DEPTH
from tests.drift.streams import batch, sample

MERGE = (
    *("fidi", "fidi:weights=equal", "fidi:on=b,window=2", "psi", "psi:on=scores"),
    *("two-sample", "two-sample:on=kind", "category", "prediction-rate", "missing", "conflicts"),
)
IN_ORDER = ("adwin", "kswin:on=scores", "page-hinkley", "page-hinkley:on=errors")
SAMPLE = sample()
Places = NDArray[Any]


def monitor_of(text: str) -> Monitor:
    return build(parse_monitor(text), SAMPLE)


def part_of(view: BatchView, places: Places, *, conflicts: int) -> BatchView:
    """Some rows of a batch."""
    columns = {name: values[places] for name, values in view.columns.items()}
    return replace(view, columns=columns, scores=view.scores[places],
                   classes=view.classes[places], conflicts=conflicts)  # fmt: skip


def views(seed: int, batches: int = 4) -> list[BatchView]:
    """Batches that are numbered with gaps, and drift from the second on."""
    return [
        replace(batch(seed + number, 40, a=1.5 * (number > 1), missing=0.3 * (number > 1),
                      new=0.2 * (number > 1), conflicts=9), batch=2 * number)
        for number in range(1, batches + 1)
    ]  # fmt: skip


def partitioned(
    text: str, stream: list[BatchView], cuts: list[int], parts: int
) -> list[list[MonitorState]]:
    """After each batch, the state of each partition that has had rows; ``cuts`` say whose a row
    is."""
    monitors = [monitor_of(text) for _ in range(parts)]
    seen: set[int] = set()
    told = []
    for view in stream:
        owner = np.resize(np.array(cuts), len(view.classes))
        for place, monitor in enumerate(monitors):
            rows = np.flatnonzero(owner == place)
            if len(rows):
                conflicts = view.conflicts if place == owner[0] else 0
                monitor.update(part_of(view, rows, conflicts=conflicts))
                seen.add(place)
        told.append([monitors[place].state() for place in sorted(seen)])
    return told


def same(one: Reading, other: Reading) -> bool:
    return (
        one.level is other.level
        and one.features == other.features
        and [a.feature for a in one.alarming] == [a.feature for a in other.alarming]
        and abs(one.value - other.value) <= 1e-12
        and abs(one.p - other.p) <= 1e-12
    )


@pytest.mark.parametrize("text", MERGE)
@settings(max_examples=8 * DEPTH, deadline=None)
@given(seed=st.integers(0, 50), cuts=st.lists(st.integers(0, 2), min_size=1, max_size=7))
def test_partitions_in_any_order_say_after_each_batch_what_the_whole_says(
    text: str, seed: int, cuts: list[int]
) -> None:
    stream, whole = views(seed), monitor_of(text)
    for view, states in zip(stream, partitioned(text, stream, cuts, 3), strict=True):
        expected = whole.update(view)
        for order in permutations(states):
            merged = monitor_of(text)
            assert same(merged.merge(order), expected)
            told, known = merged.state(), whole.state()
            assert told.numbers.tolist() == known.numbers.tolist()
            if told.sums.dtype == np.int64:
                assert told.sums.tolist() == known.sums.tolist()
            else:
                assert np.abs(told.sums - known.sums).max() <= 1e-12 * max(
                    1.0, float(np.abs(known.sums).max())
                )


@pytest.mark.parametrize("text", ["fidi", "psi", "missing"])
def test_merging_one_after_another_is_merging_all(text: str) -> None:
    states = partitioned(text, views(3), [0, 1, 2, 2], 3)[-1]
    at_once, steps = monitor_of(text), monitor_of(text)
    reading = at_once.merge(states)
    for state in reversed(states):
        stepwise = steps.merge([state])
    assert same(stepwise, reading)


def test_a_partition_that_lacked_rows_in_some_batches_ends_with_the_others_window() -> None:
    often, seldom = monitor_of("psi:window=2"), monitor_of("psi:window=2")
    for number, view in enumerate(views(1), start=1):
        often.update(replace(view, batch=number))
        if number < 3:
            seldom.update(replace(view, batch=number))
    merged = monitor_of("psi:window=2")
    merged.merge([seldom.state(), often.state()])
    assert merged.state().numbers.tolist() == [3, 4]
    assert merged.state().sums.tolist() == often.state().sums.tolist()


def test_the_mean_of_partitions_readings_is_another_figure() -> None:
    """What is merged are sums: a partition of a few rows does not weigh as one of many."""
    view = batch(1, 900)
    wild = part_of(view, np.argsort(view.columns["a"])[-10:], conflicts=0)
    rest = part_of(view, np.argsort(view.columns["a"])[:-10], conflicts=0)
    monitors = [monitor_of("fidi:on=a"), monitor_of("fidi:on=a")]
    alone = [one.update(part) for one, part in zip(monitors, (wild, rest), strict=True)]
    merged = monitor_of("fidi:on=a").merge([one.state() for one in monitors])
    assert merged.value == pytest.approx(monitor_of("fidi:on=a").update(view).value, abs=1e-12)
    assert abs(np.mean([one.value for one in alone]) - merged.value) > 0.5


@pytest.mark.parametrize("text", IN_ORDER)
def test_one_that_hangs_on_the_order_refuses_in_words(text: str) -> None:
    pytest.importorskip("river")
    monitor = monitor_of(text)
    monitor.update(batch(1))
    with pytest.raises(ConfigurationError, match=f"monitor '{text}' goes from value to value.*ord"):
        monitor.state()
    with pytest.raises(ConfigurationError, match="cannot be merged"):
        monitor.merge([])


def test_every_kind_merges_or_refuses() -> None:
    told = {text.partition(":")[0] for text in (*MERGE, *IN_ORDER)}
    assert told == set(KINDS)
    assert all(isinstance(monitor_of(text), SummingMonitor) for text in MERGE)


def test_states_that_do_not_count_the_same_are_refused() -> None:
    psi, other = monitor_of("psi"), monitor_of("psi:on=a")
    elsewhere = build(parse_monitor("psi"), sample(400))
    for monitor in (psi, other, elsewhere):
        monitor.update(batch(1))
    for state in (other.state(), elsewhere.state()):
        with pytest.raises(ConfigurationError, match="merge monitors of the same settings"):
            psi.merge([state])
    with pytest.raises(ConfigurationError, match="no state was given"):
        monitor_of("psi").merge([])
    with pytest.raises(ConfigurationError, match="has seen no batch yet"):
        monitor_of("psi").state()


VALUES = st.lists(st.floats(-1e3, 1e3), max_size=20)


@given(parts=st.lists(VALUES, min_size=1, max_size=4), turned=st.booleans())
def test_moments_of_partitions_are_those_of_the_whole(
    parts: list[list[float]], turned: bool
) -> None:
    whole, merged = Moments(), Moments()
    whole.add(np.concatenate([np.array(part, dtype=float) for part in parts]))
    for part in reversed(parts) if turned else parts:
        moments = Moments()
        moments.add(np.array(part, dtype=float))
        merged.merge(moments.state())
    assert merged.count == whole.count
    assert merged.mean == pytest.approx(whole.mean, abs=1e-9)
    assert merged.sd == pytest.approx(whole.sd, abs=1e-6)
