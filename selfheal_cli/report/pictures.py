"""The pictures of a run's page, from its folded log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median

from selfheal_cli.report.charts import Chart, Frame, Shape, Tick, frame_of
from selfheal_cli.report.fold import Row
from selfheal_cli.report.story import Drift, Story

MOST_DRIFTS = 12  # pictures; all features are in the table below them
CHANCE = 1.96  # standard errors that a mean stays within, 19 times in 20
STATES = ("HEALTHY", "DRIFTING", "HEALING", "ROLLED_BACK")
Values = Mapping[int, float | None]


@dataclass(frozen=True, slots=True)
class DriftPicture:
    """A feature's small picture and what it comes to. ``watched`` is the sensitive one."""

    drift: Drift
    chart: Chart
    watched: bool


def accuracy(story: Story) -> Chart:
    """Accuracy by batch, live and shadow."""
    return _against(story, "Accuracy by batch", "accuracy", lambda scores: scores.accuracy, True)


def f1(story: Story) -> Chart:
    """F1 by batch, live and shadow."""
    return _against(story, "F1 by batch", "F1", lambda scores: scores.f1, False)


def lift(story: Story) -> Chart:
    """Live minus shadow accuracy by batch, in percentage points."""
    lifts: Values = {
        batch: 100 * (live.accuracy - shadow.accuracy)
        for batch, (live, shadow) in sorted(story.scores.items())
        if live.rows
    }
    known = [value for value in lifts.values() if value is not None]
    low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    frame = frame_of(list(story.view.rows), low, high)
    up, down = sum(value > 0 for value in known), sum(value < 0 for value in known)
    mean = fmean(known) if known else 0.0
    shapes = [
        Shape(frame.bars(lifts, above=True), "good fill", "healing better"),
        Shape(frame.bars(lifts, above=False), "alarm fill", "healing worse"),
        Shape(frame.across(0.0), "axis"),
    ]
    text = f"Healing was ahead in {up} batches and behind in {down}; mean {mean:+.1f} points."
    return _chart(frame, "What healing gained in accuracy", text, shapes, "percentage points")


def watched(story: Story) -> Chart:
    """Distance of the sensitive feature's mean, with the threshold, over the states."""
    rows = _rows(story)
    limit = float(story.view.started["config"]["policy"]["fidi_threshold"])
    values: Values = {row.batch_idx: row.z_score for row in rows}
    most = max((row.z_score for row in rows), default=0.0)
    frame = frame_of([row.batch_idx for row in rows], 0.0, max(most, limit))
    shapes = []
    for state in STATES:
        batches = [row.batch_idx for row in rows if row.state == state]
        if batches:
            name = state.lower().replace("_", " ")
            shapes.append(Shape(frame.stretches(batches), f"state {name.replace(' ', '-')}", name))
    shapes += [
        Shape(frame.line(values), "live line", "distance"),
        Shape(frame.across(limit), "alarm dashed", f"threshold {limit:g}"),
    ]
    over = [row.batch_idx for row in rows if row.z_score > limit]
    crossed = (
        f"above the threshold from batch {over[0]} on" if over else "never above the threshold"
    )
    if over and len(over) < rows[-1].batch_idx - over[0] + 1:
        crossed = f"above the threshold in {len(over)} of {len(rows)} batches, first in {over[0]}"
    name = story.view.trained.get("sensitive", "the sensitive feature")
    text = f"Furthest {most:.2f} training standard deviations; {crossed}."
    return _chart(frame, f"{name}: how far from training, and the state", text, shapes, "|z|")


def drifts(story: Story) -> list[DriftPicture]:
    """The features that moved furthest; the sensitive one first. All numbers share one scale."""
    found = story.drifts()
    name = story.view.trained.get("sensitive")
    found.sort(key=lambda one: one.name != name)
    shown = [one for one in found if one.shifts][:MOST_DRIFTS]
    numbers = [value for one in shown if one.numeric for value in one.shifts.values()]
    low, high = min(-1.0, *numbers, -1.0), max(1.0, *numbers, 1.0)
    rows = [row.rows for row in story.view.rows.values()]
    chance = CHANCE / sqrt(max(median(rows), 1)) if rows else 0.0
    return [_drift(one, low, high, chance, watched=one.name == name) for one in shown]


def versions(story: Story) -> Chart | None:
    """F1 of each version, by phase; None where the registry gave fewer than three."""
    snapshots = story.view.snapshots.values()
    known = [(s.version, s.f1, s.phase) for s in snapshots if s.version and s.f1 is not None]
    if len(known) < 3:
        return None
    numbers = [number for number, _, _ in known if number]
    values = [value for _, value, _ in known if value is not None]
    frame = frame_of(numbers, 0.0, max(values))
    frame = Frame(frame.first, frame.last, frame.low, frame.high)  # dots are never pooled
    shapes = []
    for phase, style in (("baseline", "shadow"), ("pre-heal", "note"), ("post-heal", "live"),
                         ("rejected", "alarm")):  # fmt: skip
        dots = "".join(
            f"M{frame.x(number):.1f} {frame.y(value):.1f}h0"
            for number, value, found in known
            if found == phase and number and value is not None
        )
        if dots:
            shapes.append(Shape(dots, f"{style} dots", phase))
    best = story.view.best()
    text = f"{len(known)} versions with figures"
    if best is not None and best.version and best.f1 is not None:
        shapes.append(Shape(frame.marks([best.version]), "good dashed", f"best: v{best.version}"))
        text += f"; the highest F1 after a heal is v{best.version}'s, {best.f1:.3f}"
    return _chart(
        frame, "F1 of the versions, when snapshotted", f"{text}.", shapes, "F1", "version"
    )


def _against(
    story: Story,
    title: str,
    what: str,
    figure: Callable[..., float],
    whole: bool,
) -> Chart:
    pairs = {batch: pair for batch, pair in sorted(story.scores.items()) if pair[0].rows}
    live: Values = {batch: figure(pair[0]) for batch, pair in pairs.items()}
    shadow: Values = {batch: figure(pair[1]) for batch, pair in pairs.items()}
    rows = _rows(story)
    guessed: Values = {
        row.batch_idx: row.est_accuracy if whole else row.est_f1
        for row in rows
        if row.batch_idx not in pairs
    }
    values = [v for part in (live, shadow, guessed) for v in part.values() if v is not None]
    # from 0 on where that does not flatten the lines: differences are what is looked at
    low = min(values, default=0.0)
    frame = frame_of([row.batch_idx for row in rows], low if low > 0.5 else 0.0, 1.0)
    shapes = [
        Shape(frame.line(shadow), "shadow dashed", "doing nothing (shadow)"),
        Shape(frame.line(live), "live line", "with healing"),
        Shape(frame.line(guessed), "note line", "estimated without labels"),
        Shape(frame.marks([r.batch_idx for r in rows if r.rolled_back]), "alarm line", "rollback"),
    ]
    ahead = sum(figure(a) > figure(b) for a, b in pairs.values())
    text = "Estimated from the network's own probabilities: no label came."
    if pairs:
        text = f"{what[0].upper()}{what[1:]} with healing was higher in {ahead} of {len(pairs)} "
        text += "labelled batches."
    if frame.step > 1:
        text += f" Points are means of {frame.step} batches."
    return _chart(frame, title, text, [shape for shape in shapes if shape.path], what)


def _drift(one: Drift, low: float, high: float, chance: float, *, watched: bool) -> DriftPicture:
    batches = list(one.shifts)
    frame = frame_of(batches, low, high) if one.numeric else frame_of(batches, 0.0, 1.0)
    values: Values = dict(one.shifts)
    shapes = []
    if one.numeric:
        shapes.append(Shape(frame.band(-chance, chance), "band"))
    shapes += [Shape(frame.across(0.0), "axis"), Shape(frame.line(values), "live line")]
    batch, furthest = one.furthest
    if not furthest:
        text = "did not move"
    elif one.numeric:
        text = f"mean {one.mean:+.2f} sd, furthest {furthest:+.2f} in batch {batch}"
    else:
        text = f"mean {one.mean:.0%} of rows, furthest {furthest:.0%} in batch {batch}"
    first, last = Tick(0.0, f"{batches[0]:,}"), Tick(100.0, f"{batches[-1]:,}")
    edges = tuple(Tick(round(frame.y(v), 2), _edge(v, one)) for v in (frame.high, 0.0, frame.low))
    ticks = edges if frame.low < 0 else edges[:2]
    return DriftPicture(
        one, Chart(one.name, text, tuple(shapes), (first, last), ticks, "sd"), watched
    )


def _edge(value: float, one: Drift) -> str:
    if not one.numeric:
        return f"{value:.0%}"
    return f"{value:+g}" if value else "0"


def _chart(
    frame: Frame, title: str, text: str, shapes: list[Shape], unit: str, along: str = "batch"
) -> Chart:
    return Chart(title, text, tuple(shapes), frame.x_ticks(), frame.y_ticks(), unit, along)


def _rows(story: Story) -> list[Row]:
    return [row for _, row in sorted(story.view.rows.items())]
