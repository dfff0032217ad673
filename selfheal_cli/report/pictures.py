"""The pictures of a run's page, from its folded log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil, fsum, sqrt

from selfheal_cli.events.state import Pair, Row
from selfheal_cli.events.types import ColumnMoved
from selfheal_cli.records import ESTIMATED
from selfheal_cli.report.charts import (
    HEIGHT,
    WIDTH,
    Chart,
    Frame,
    Points,
    Shape,
    Tick,
    frame_of,
)
from selfheal_cli.report.summary import DriftSeries, RunSummary

MOST_DOTS = 1_000  # versions; beyond, one of a few
MOST_DRIFTS = 12  # pictures; all features are in the table below them
CHANCE = 1.96  # standard errors that a mean stays within, 19 times in 20
STATES = ("HEALTHY", "DRIFTING", "HEALING", "ROLLED_BACK")


@dataclass(frozen=True, slots=True)
class DriftPicture:
    """A feature's small picture and what it comes to. ``watched`` is the sensitive one."""

    drift: DriftSeries
    chart: Chart
    watched: bool


def accuracy(story: RunSummary) -> Chart:
    """Accuracy by batch, live and shadow."""
    return _against(story, "Accuracy by batch", "accuracy", lambda scores: scores.accuracy, True)


def f1(story: RunSummary) -> Chart:
    """F1 by batch, live and shadow."""
    return _against(story, "F1 by batch", "F1", lambda scores: scores.f1, False)


def lift(story: RunSummary) -> Chart:
    """Live minus shadow accuracy by batch, in percentage points."""

    def lifts() -> Iterator[tuple[int, float]]:
        for batch, (live, shadow) in _labelled(story):
            yield batch, 100 * (live.accuracy - shadow.accuracy)

    low = min((value for _, value in lifts()), default=0.0)
    high = max((value for _, value in lifts()), default=0.0)
    frame = frame_of(story.view.rows, min(0.0, low), max(0.0, high))
    up = sum(value > 0 for _, value in lifts())
    down = sum(value < 0 for _, value in lifts())
    mean = fsum(value for _, value in lifts()) / max(sum(1 for _ in lifts()), 1)
    shapes = [
        Shape(frame.bars(lifts(), above=True), "good fill", "healing better"),
        Shape(frame.bars(lifts(), above=False), "alarm fill", "healing worse"),
        Shape(frame.across(0.0), "axis"),
    ]
    text = f"Healing was ahead in {up} batches and behind in {down}; mean {mean:+.1f} points."
    text += _pooled(frame, "Bars")
    chart = _chart(frame, "What healing gained in accuracy", text, shapes, "percentage points")
    return replace(chart, spots=frame.spots({"gained": lifts()}, 1))


def watched(story: RunSummary) -> Chart:
    """Distance of the sensitive feature's mean, with the threshold, over the states."""
    limit = float(story.view.config["policy"]["fidi_threshold"])
    most = max((row.z_score for row in _rows(story)), default=0.0)
    frame = frame_of(story.view.rows, 0.0, max(most, limit))
    shapes = _states(story, frame)
    values = ((row.batch_idx, row.z_score) for row in _rows(story))
    shapes += [
        Shape(frame.line(values), "live line", "distance"),
        Shape(frame.across(limit), "alarm dashed", f"threshold {limit:g}"),
    ]
    name = story.view.trained.sensitive if story.view.trained else "the sensitive feature"
    text = f"Furthest {most:.2f} training standard deviations; {_crossed(story, limit)}."
    text += _pooled(frame, "Points")
    title = f"{name}: how far from training, and the state"
    distances = ((row.batch_idx, row.z_score) for row in _rows(story))
    return replace(_chart(frame, title, text, shapes, "|z|"),
                   spots=frame.spots({"distance": distances}, 2))  # fmt: skip


def _states(story: RunSummary, frame: Frame) -> list[Shape]:
    """Areas by state; of several batches in one point, the state of most."""
    by_state: dict[str, list[int]] = {state: [] for state in STATES}
    for start, rows in groupby(_rows(story), key=lambda row: frame.start(row.batch_idx)):
        ((state, _),) = Counter(row.state for row in rows).most_common(1)
        by_state[state].append(start)
    shapes = []
    for state, starts in by_state.items():
        if starts:
            name = state.lower().replace("_", " ")
            shapes.append(Shape(frame.stretches(starts), f"state {name.replace(' ', '-')}", name))
    return shapes


def _crossed(story: RunSummary, limit: float) -> str:
    """When the threshold was crossed, in words."""
    over = first = last = 0
    for row in _rows(story):
        last = row.batch_idx
        if row.z_score > limit:
            over, first = over + 1, first or row.batch_idx
    if not over:
        return "never above the threshold"
    if over < last - first + 1:
        batches = len(story.view.rows)
        return f"above the threshold in {over} of {batches} batches, first in {first}"
    return f"above the threshold from batch {first} on"


def drifts(story: RunSummary, moved: Sequence[DriftSeries]) -> list[DriftPicture]:
    """The features that moved furthest; the sensitive one first. All numbers share one scale."""
    name = story.view.trained.sensitive if story.view.trained else None
    ranked = sorted(moved, key=lambda one: one.name != name)
    shown = [one for one in ranked if one.shifts][:MOST_DRIFTS]
    spans = [one.span for one in shown if one.numeric]
    low = min(-1.0, *(low for low, _ in spans), -1.0)
    high = max(1.0, *(high for _, high in spans), 1.0)
    rows = _median_rows(story)
    chance = CHANCE / sqrt(max(rows, 1)) if rows is not None else 0.0
    return [_drift(one, low, high, chance, watched=one.name == name) for one in shown]


def _median_rows(story: RunSummary) -> float | None:
    """Rows of a batch, half of the batches have no more."""
    sizes = Counter(row.rows for row in _rows(story))
    half = sizes.total() / 2
    if not half:
        return None
    below, lower = 0, None
    for size in sorted(sizes):
        below += sizes[size]
        if lower is None and below >= half:
            lower = size
        if lower is not None and below > half:
            return (lower + size) / 2
    return lower


def distribution(move: ColumnMoved) -> Chart | None:
    """Training and now, of a number that moved; None of what is no number."""
    edges, shares = move.edges, (move.shares_before, move.shares_now)
    if not edges or not all(shares):
        return None
    most = max(max(part) for part in shares)
    before, now = (_outline([share / most for share in part]) for part in shares)
    shapes = (Shape(f"{before}V{HEIGHT:.0f}H0z", "shadow fill faint", "training"),
              Shape(now, "live", "now"))  # fmt: skip
    ends = Tick(0.0, f"{edges[0]:,.4g}"), Tick(100.0, f"{edges[-1]:,.4g}")
    return Chart(move.column, f"{move.rows:,} rows from batch {move.since} on, against training",
                 shapes, ends, (Tick(0.0, f"{most:.0%}"), Tick(100.0, "0")))  # fmt: skip


def _outline(heights: Sequence[float]) -> str:
    """The upper edge of bars side by side, of heights from 0 to 1."""
    wide = WIDTH / len(heights)
    tops = [f"{HEIGHT * (1 - height):.1f}" for height in heights]
    parts = [f"V{top}H{wide * place:.1f}" for place, top in enumerate(tops, start=1)]
    return f"M0 {HEIGHT:.0f}{''.join(parts)}"


def versions(story: RunSummary) -> Chart | None:
    """F1 of each version, by phase; None where the registry gave fewer than three."""

    def known() -> Iterator[tuple[int, float, str]]:
        for one in story.view.snapshots.values():
            if one.version and one.f1 is not None:
                yield one.version, one.f1, one.phase

    count = sum(1 for _ in known())
    if count < 3:
        return None
    frame = frame_of((number for number, _, _ in known()), 0.0, max(f1 for _, f1, _ in known()))
    frame = Frame(frame.first, frame.last, frame.low, frame.high)  # dots are never pooled
    every = ceil(count / MOST_DOTS)
    dots: dict[str, str] = {}
    for place, (number, f1, phase) in enumerate(known()):
        if place % every == 0:
            dot = f"M{frame.x(number):.1f} {frame.y(f1):.1f}h0"
            dots[phase] = dots.get(phase, "") + dot
    shapes = [
        Shape(dots[phase], f"{style} dots", phase)
        for phase, style in (("baseline", "shadow"), ("pre-heal", "note"), ("post-heal", "live"),
                             ("rejected", "alarm"))
        if phase in dots
    ]  # fmt: skip
    best = story.view.best()
    text = f"{len({number for number, _, _ in known()})} versions with figures"
    text += f", one of {every} of them drawn" if every > 1 else ""
    if best is not None and best.version and best.f1 is not None:
        shapes.append(Shape(frame.marks([best.version]), "good dashed", f"best: v{best.version}"))
        text += f"; the highest F1 after a heal is v{best.version}'s, {best.f1:.3f}"
    return _chart(
        frame, "F1 of the versions, when snapshotted", f"{text}.", shapes, "F1", "version"
    )


def _against(
    story: RunSummary,
    title: str,
    what: str,
    figure: Callable[..., float],
    whole: bool,
) -> Chart:
    def figures(which: int) -> Points:
        return ((batch, figure(pair[which])) for batch, pair in _labelled(story))

    def guessed() -> Points:
        scores = story.scores
        for row in _rows(story):
            pair = scores.get(row.batch_idx)
            if pair is None or not pair[0].rows:
                yield row.batch_idx, row.est_accuracy if whole else row.est_f1

    parts = (figures(0), figures(1), guessed())
    low = min((v for part in parts for _, v in part if v is not None), default=0.0)
    # from 0 on where that does not flatten the lines: differences are what is looked at
    frame = frame_of(story.view.rows, low if low > 0.5 else 0.0, 1.0)
    back = dict.fromkeys(frame.start(row.batch_idx) for row in _rows(story) if row.rolled_back)
    shapes = [
        Shape(frame.line(figures(1)), "shadow dashed", "doing nothing (shadow)"),
        Shape(frame.line(figures(0)), "live line", "with healing"),
        Shape(frame.line(guessed()), "note line", ESTIMATED),
        Shape(frame.marks(list(back)), "alarm line", "rollback"),
    ]
    ahead = sum(figure(live) > figure(shadow) for _, (live, shadow) in _labelled(story))
    labelled = sum(1 for _ in _labelled(story))
    text = f"No label came: {ESTIMATED}."
    if labelled:
        text = f"{what[0].upper()}{what[1:]} with healing was higher in {ahead} of {labelled} "
        text += "labelled batches."
    text += _pooled(frame, "Points")
    chart = _chart(frame, title, text, [shape for shape in shapes if shape.path], what)
    lines = {"with healing": figures(0), "doing nothing": figures(1), ESTIMATED: guessed()}
    return replace(chart, spots=frame.spots(lines))


def _pooled(frame: Frame, what: str) -> str:
    """Says that a picture shows fewer points than there are batches."""
    return f" {what} are means of {frame.step} batches." if frame.step > 1 else ""


def _drift(
    one: DriftSeries, low: float, high: float, chance: float, *, watched: bool
) -> DriftPicture:
    first, last = one.batches
    frame = frame_of(one.batches, low, high) if one.numeric else frame_of(one.batches, 0.0, 1.0)
    shapes = []
    if one.numeric:
        shapes.append(Shape(frame.band(-chance, chance), "band"))
    shapes += [Shape(frame.across(0.0), "axis"), Shape(frame.line(one.shifts.items()), "live line")]
    batch, furthest = one.furthest
    if not furthest:
        text = "did not move"
    elif one.numeric:
        text = f"mean {one.mean:+.2f} sd, furthest {furthest:+.2f} in batch {batch}"
    else:
        text = f"mean {one.mean:.0%} of rows, furthest {furthest:.0%} in batch {batch}"
    sides = Tick(0.0, f"{first:,}"), Tick(100.0, f"{last:,}")
    edges = tuple(Tick(round(frame.y(v), 2), _edge(v, one)) for v in (frame.high, 0.0, frame.low))
    ticks = edges if frame.low < 0 else edges[:2]
    return DriftPicture(one, Chart(one.name, text, tuple(shapes), sides, ticks, "sd"), watched)


def _edge(value: float, one: DriftSeries) -> str:
    if not one.numeric:
        return f"{value:.0%}"
    return f"{value:+g}" if value else "0"


def _chart(
    frame: Frame, title: str, text: str, shapes: list[Shape], unit: str, along: str = "batch"
) -> Chart:
    return Chart(title, text, tuple(shapes), frame.x_ticks(), frame.y_ticks(), unit, along)


def _rows(story: RunSummary) -> Iterator[Row]:
    return iter(story.view.rows.values())


def _labelled(story: RunSummary) -> Iterator[tuple[int, Pair]]:
    """Batches whose labels came, with live and shadow."""
    return ((batch, pair) for batch, pair in story.scores.items() if pair[0].rows)
