"""What the status page draws of a run's course; no script takes part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfheal_cli.report.charts import Chart, Frame, Shape, Spot, Tick, frame_of
from selfheal_cli.serve.operator.status import ModelStatus, Stretch


@dataclass(frozen=True, slots=True)
class CourseChart:
    """A picture, and the moments (ISO 8601) below it, each at so many per cent from the left."""

    chart: Chart
    times: tuple[Tick, ...]


def course(standing: ModelStatus) -> tuple[CourseChart, ...]:
    """Accuracy, drift, labels and, where one was tried, a canary's share over time; nothing before
    there are two stretches.
    """
    known = standing.history
    if len(known) < 2:
        return ()
    charts = [_drift(known, standing), _labels(known)]
    if any(one.labels for one in known):
        charts.insert(0, _accuracy(known))
    if any(one.canary for one in known):
        charts.append(_canary(known))
    times = _times(known)
    return tuple(CourseChart(chart, times) for chart in charts)


def _accuracy(known: Sequence[Stretch]) -> Chart:
    lines = {"live": [one.live for one in known], "shadow": [one.shadow for one in known]}
    values = [value for line in lines.values() for value in line if value is not None]
    frame = _frame(known, min(values), max(values))
    shapes = (
        Shape(frame.line(_points(known, lambda one: one.shadow)), "shadow dashed", "shadow"),
        Shape(frame.line(_points(known, lambda one: one.live)), "live line", "live"),
    )
    live, shadow = ([value for value in line if value is not None] for line in lines.values())
    said = (
        f"Live {live[0]:.3f} at first and {live[-1]:.3f} at last, the shadow {shadow[0]:.3f} and "
        f"{shadow[-1]:.3f}, of the rows whose labels have come."
    )
    return _chart("Accuracy", said, frame, shapes, known, "live", lambda one: one.live)


def _drift(known: Sequence[Stretch], standing: ModelStatus) -> Chart:
    readings = [one.z for one in known if one.z is not None]
    drift = standing.drift
    limit = drift.threshold if drift else 0.0
    frame = _frame(known, 0.0, max(*readings, limit))
    shapes = (
        Shape(frame.line(_points(known, lambda one: one.z)), "live line", "distance"),
        Shape(frame.across(limit), "alarm dashed", f"threshold {limit:g}"),
    )
    over = sum(value > limit for value in readings)
    said = (
        f"{readings[0]:.2f} training standard deviations at first, {readings[-1]:.2f} at last, "
        f"{max(readings):.2f} at most; above the threshold in {over} of {len(readings)} stretches."
    )
    name = drift.feature if drift else ""
    title = f"Drift of {name}" if name else "Drift"
    return _chart(title, said, frame, shapes, known, "distance", lambda one: one.z)


def _labels(known: Sequence[Stretch]) -> Chart:
    counts = [one.labels for one in known]
    frame = _frame(known, 0.0, float(max(*counts, 1)))
    shapes = (Shape(frame.bars(_points(known, lambda one: one.labels), above=True), "good fill"),)
    said = (
        f"{sum(counts):,} labels came, for {sum(map(bool, counts))} of {len(known)} stretches; "
        "those of the latest rows may still come."
    )
    return _chart("Labels", said, frame, shapes, known, "labels", lambda one: one.labels)


def _canary(known: Sequence[Stretch]) -> Chart:
    shares = [one.canary for one in known]
    frame = _frame(known, 0.0, max(shares))
    shapes = (Shape(frame.bars(_points(known, lambda one: one.canary), above=True), "good fill"),)
    said = (
        f"A canary was to answer {max(shares):.0%} of requests at most, {shares[-1]:.0%} at last; "
        f"one was tried in {sum(map(bool, shares))} of {len(known)} stretches."
    )
    title = "Canary's share of requests"
    return _chart(title, said, frame, shapes, known, "share", lambda one: one.canary)


def _chart(
    title: str,
    said: str,
    frame: Frame,
    shapes: tuple[Shape, ...],
    known: Sequence[Stretch],
    name: str,
    value: Callable[[Stretch], float | None],
) -> Chart:
    wide = 1000.0 / len(known)
    spots = tuple(
        Spot(round(place * wide, 1), round(wide, 1), f"{_batches(one)}: {name} {told:g}")
        for place, one in enumerate(known)
        if (told := value(one)) is not None
    )
    return Chart(title, said, shapes, (), frame.y_ticks(), spots=spots)


def _frame(known: Sequence[Stretch], low: float, high: float) -> Frame:
    step = known[0].batches
    last = known[-1].batch + step - 1
    return replace(frame_of((known[0].batch, last), low, high), step=step)


def _points(
    known: Sequence[Stretch], value: Callable[[Stretch], float | None]
) -> list[tuple[int, float | None]]:
    return [(one.batch, value(one)) for one in known]


def _batches(one: Stretch) -> str:
    if one.batches == 1:
        return f"batch {one.batch}"
    return f"batches {one.batch} to {one.batch + one.batches - 1}"


def _times(known: Sequence[Stretch]) -> tuple[Tick, ...]:
    """The first and the last; more would not fit on a phone."""
    return Tick(0.0, known[0].at), Tick(100.0, known[-1].at)
