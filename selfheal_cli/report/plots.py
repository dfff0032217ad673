"""The pictures of a run, drawn from its folded log, without pyplot's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import ceil
from pathlib import Path
from statistics import fmean, stdev

from selfheal_cli.events.state import Row, RunView
from selfheal_cli.report.canvas import (
    Axes,
    Figure,
    Patch,
    PolyCollection,
    as_tick,
    make_figure,
    save,
)
from selfheal_cli.report.charts import ends, step_of, thinned
from selfheal_cli.report.summary import DriftSeries, RunSummary

# Okabe and Ito's palette, which colour-blind readers can tell apart
LIVE, SHADOW, BASELINE, ALARM = "#0072B2", "#7F7F7F", "#E69F00", "#D55E00"
GOOD, NOTE = "#009E73", "#CC79A7"
STATES = {"HEALTHY": GOOD, "DRIFTING": BASELINE, "HEALING": LIVE, "ROLLED_BACK": ALARM}
STAGE_METRICS = (
    ("accuracy", LIVE, "o"), ("precision", GOOD, "s"), ("recall", BASELINE, "^"),
    ("f1", NOTE, "D"),
)  # fmt: skip
WIDE = (9.0, 4.6)
MARKED = 60  # batches up to which each gets a marker; beyond, a line is a rolling mean
ROLLING = 25  # parts of a stream that a rolling mean is over
MOST = 500  # points of a line, bars, or dots
MARGIN = 0.12  # of what is drawn, above and below it
CROSSINGS = 3  # costs at which the better model changes that are written beside their line
DEAR = 1.6  # cost beyond which a curve leaves the picture; 1 is the cheaper blind guess
COLUMNS = 24  # of the map of what moved
FAR = 1.5  # training sd at which its colour is full; of texts half of the rows
BELOW = 5.0  # lines of text from a picture to its legend
STRIP = 0.035  # height of the states' strip, of a picture's
PHASES = (("baseline", SHADOW, "s"), ("pre-heal", BASELINE, "o"), ("post-heal", LIVE, "o"))


@dataclass(frozen=True)
class Drawn:
    """A folded run with as many of its points as are drawn: each of ``step`` batches."""

    story: RunSummary
    step: int

    @property
    def view(self) -> RunView:
        """The run."""
        return self.story.view

    @cached_property
    def rows(self) -> list[Row]:
        """Every row, or means of consecutive ones."""
        return list(thinned(self.view.rows.values(), self.step))

    @cached_property
    def in_sample(self) -> bool:
        """The article's recipe alone is judged by the batch that it just learned from."""
        return bool(self.view.config["heal"]["recipe"] == "article")

    @property
    def live_label(self) -> str:
        """What the live line shows."""
        return "live, after its heal" if self.in_sample else "live, before learning from the batch"

    @property
    def along(self) -> str:
        """What a point is of."""
        return "batch" if self.step == 1 else f"batch (a point is of {self.step})"


Panel = Callable[[Axes, Drawn], None]


def draw_all(story: RunSummary, folder: Path) -> list[Path]:
    """Write the pictures as PNG; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    view = story.view
    drawn = Drawn(story, step_of(*ends(view.rows), MOST))
    paths = []
    for name, panel in PANELS.items():
        if name == "costs" and not (view.finished and view.finished.costs):
            continue  # more than two classes: errors have no two costs
        figure = make_figure(*WIDE)
        panel(figure.add_subplot(), drawn)
        paths.append(save(figure, folder / f"{name}.png"))
    paths += [save(_states(drawn), folder / "states.png")]
    paths += [save(_conflicts(drawn), folder / "conflicts.png")]
    figure = make_figure(13.0, 9.0)
    moved = fidi if view.config.get("drift_by", "sensitive") == "sensitive" else column_map
    for axes, panel in zip(figure.subplots(2, 2).flat, (accuracy, lift, moved, f1), strict=True):
        panel(axes, drawn)
    figure.suptitle(f"selfheal run {view.run_id[:8]}: model '{view.model}'")
    paths.append(save(figure, folder / "dashboard.png"))
    return paths


def accuracy(axes: Axes, drawn: Drawn) -> None:
    """Live and shadow accuracy by batch."""
    rows = drawn.rows
    _line(axes, rows, [row.healed_acc for row in rows], drawn.live_label, LIVE)
    if drawn.in_sample:
        before = [row.pre_acc for row in rows]
        _line(axes, rows, before, "live, before its heal", LIVE, style=":")
    _line(axes, rows, [row.shadow_acc for row in rows], "frozen", SHADOW, style="--")
    _finish(axes, "Accuracy by batch", "accuracy (share of rows)", drawn)


def lift(axes: Axes, drawn: Drawn) -> None:
    """Live minus shadow accuracy by batch."""
    lifts = {row.batch_idx: 100 * row.acc_lift for row in drawn.rows if row.acc_lift is not None}
    colours = [GOOD if value >= 0 else ALARM for value in lifts.values()]
    _bars(axes, lifts, 0.8 * drawn.step, colours)
    total = count = 0.0
    for row in drawn.view.rows.values():
        if row.acc_lift is not None:
            total, count = total + 100 * row.acc_lift, count + 1
    mean = total / max(count, 1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(mean, color=LIVE, linestyle="--", label=f"mean {mean:+.1f} points")
    when = "after its heal" if drawn.in_sample else "before learning from the batch"
    _finish(axes, f"Accuracy, live minus frozen, {when}", "percentage points", drawn)


def _bars(axes: Axes, heights: Mapping[int, float], wide: float, colours: Sequence[str]) -> None:
    """Bars from zero, all in one shape: hundreds of shapes take longer than all other drawing."""
    half = wide / 2
    corners = [
        [(x - half, 0), (x - half, height), (x + half, height), (x + half, 0)]
        for x, height in heights.items()
    ]
    bars = PolyCollection(corners, facecolors=colours)
    bars.sticky_edges.y[:] = [0]
    axes.add_collection(bars)
    axes.autoscale_view()


def fidi(axes: Axes, drawn: Drawn) -> None:
    """Drift of the sensitive feature."""
    rows = drawn.rows
    threshold = drawn.view.config["policy"]["fidi_threshold"]
    name = drawn.view.trained.sensitive if drawn.view.trained else "the sensitive feature"
    _line(axes, rows, [row.z_score for row in rows], f"|z| of {name}", LIVE)
    axes.axhline(threshold, color=ALARM, linestyle="--", label=f"threshold {threshold:g}")
    axes.set_ylim(bottom=0)
    _finish(axes, "Drift of the sensitive feature", "|z| (training standard deviations)", drawn)


def f1(axes: Axes, drawn: Drawn) -> None:
    """Live and shadow F1, with the rollbacks."""
    rows = drawn.rows
    _line(axes, rows, [row.healed_f1 for row in rows], drawn.live_label, LIVE)
    _line(axes, rows, [row.shadow_f1 for row in rows], "frozen", SHADOW, style="--")
    back = [row for row in rows if row.rolled_back]
    if back:
        axes.scatter(
            [row.batch_idx for row in back],
            [row.healed_f1 or 0.0 for row in back],
            marker="v",
            s=70,
            color=ALARM,
            zorder=3,
            label=f"rollback ({sum(row.rolled_back for row in drawn.view.rows.values())})",
        )
    _finish(axes, "F1 by batch" if back else "F1 by batch (no rollback)", "F1", drawn)


def snapshots(axes: Axes, drawn: Drawn) -> None:
    """F1 of every snapshot in the registry, the best post-heal one marked."""
    every = 1
    for phase, colour, marker in PHASES:
        pairs = [
            (float(one.version), one.f1)
            for one in drawn.view.snapshots.values()
            if one.phase == phase and one.version is not None and one.f1 is not None
        ]
        step = max(1, ceil(len(pairs) / MOST))
        every = max(every, step)
        at, values = [x for x, _ in pairs[::step]], [y for _, y in pairs[::step]]
        size = 70 if phase == "baseline" else 18
        axes.scatter(at, values, size, marker=marker, color=colour, label=phase)
    best = drawn.view.best()
    if best is not None and best.version is not None and best.f1 is not None:
        axes.scatter(
            [best.version],
            [best.f1],
            marker="*",
            s=260,
            facecolor="none",
            edgecolor=ALARM,
            linewidth=1.5,
            label=f"best: v{best.version}, F1 {best.f1:.3f} on {best.rows} rows",
        )
    axes.set_xlabel("model version" if every == 1 else f"model version (one of {every} is drawn)")
    _finish(axes, "Snapshots in the registry", "F1 when snapshotted", drawn, strip=False)


def costs(axes: Axes, drawn: Drawn) -> None:
    """Which model for which cost: expected cost by the ratio of a miss to a false alarm."""
    curves = (drawn.view.finished and drawn.view.finished.costs) or {}
    ratio = curves["ratio"]
    blind = [min(pair) for pair in zip(curves["nothing"], curves["everything"], strict=True)]
    for key, colour, style, label in (
        ("healed", LIVE, "-", "healed"),
        ("unhealed", SHADOW, "--", "frozen"),
    ):
        values = [cost / least for cost, least in zip(curves[key], blind, strict=True)]
        axes.plot(ratio, values, style, color=colour, label=label)
    axes.axhline(1, color=ALARM, linestyle=":", label="the cheaper of flagging nothing and all")
    places = _crossings(curves["healed"], curves["unhealed"])
    for number, place in enumerate(places):
        label = "the cheaper of the two changes" if not number else ""
        axes.axvline(ratio[place], color=GOOD, linewidth=0.8, label=label)
    for height, place in enumerate(places[:CROSSINGS]):
        said = f"{ratio[place]:,.0f} : 1" if ratio[place] >= 1 else f"1 : {1 / ratio[place]:.1f}"
        axes.annotate(
            f" {said}", (ratio[place], 0.02 + 0.06 * height),
            xycoords=("data", "axes fraction"), fontsize=8, color=GOOD,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("cost of a missed positive / cost of a false alarm")
    label = "expected cost\n(1: the cheaper blind guess)"
    axes.set_ylim(0, DEAR)
    title = "Which model for which cost, each with the threshold for it"
    _finish(axes, title, label, drawn, limited=True, strip=False)


def _crossings(one: Sequence[float], other: Sequence[float]) -> list[int]:
    """Places after which the cheaper of two becomes the dearer."""
    ahead = [a < b for a, b in zip(one, other, strict=True)]
    return [place for place in range(1, len(ahead)) if ahead[place] != ahead[place - 1]]


def stages(axes: Axes, drawn: Drawn) -> None:
    """Four metrics for each line of the results table that has them."""
    end = drawn.view.finished
    lines = [line for line in (end and end.stages) or () if "precision" in line]
    places = range(len(lines))
    for step, (metric, colour, marker) in enumerate(STAGE_METRICS):
        # a little below each other, so that equal figures do not hide one another
        at = [place + (step - 1.5) * 0.14 for place in places]
        values = [line[metric] for line in lines]
        axes.scatter(values, at, 42, color=colour, marker=marker, label=metric, zorder=3)
    axes.set_yticks(places, [line["title"] for line in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share")
    axes.grid(visible=True, axis="x", alpha=0.3)
    _finish(axes, "Four metrics by stage", "", drawn, limited=True, strip=False)


def _states(drawn: Drawn) -> Figure:
    """How far each column is from training, by batch, under the state."""
    columns = min(sum(bool(one.shifts) for one in drawn.story.drifts()), COLUMNS)
    figure = make_figure(WIDE[0], 1.8 + 0.24 * max(columns, 4))
    column_map(figure.add_subplot(), drawn)
    return figure


def column_map(axes: Axes, drawn: Drawn) -> None:
    """Columns by time: the colour says how far from training, those furthest away first."""
    series = [one for one in drawn.story.drifts() if one.shifts][:COLUMNS]
    first, last = ends(drawn.view.rows)
    step = step_of(*series[0].batches) if series else drawn.step
    if series:
        shown = axes.pcolormesh(
            [*(batch - 0.5 for batch in series[0].shifts), last + 0.5],
            [place - 0.5 for place in range(len(series) + 1)],
            [_colour_values(one) for one in series], cmap="RdBu_r", vmin=-FAR, vmax=FAR,
        )  # fmt: skip
        label = "training sd (texts: 1.5 is half of the rows)"
        axes.figure.colorbar(shown, ax=axes, label=label, pad=0.01).ax.yaxis.label.set_fontsize(8)
    axes.set_yticks(range(len(series)), [as_tick(one.name) for one in series], fontsize=8)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.invert_yaxis()
    axes.set_xlabel("batch" if step == 1 else f"batch (a point is of {step})")
    _finish(axes, "How far each column is from training", "", drawn, limited=True)


def _colour_values(one: DriftSeries) -> list[float]:
    """A text's share of rows on the scale of numbers."""
    return [value if one.numeric else 2 * FAR * value for value in one.shifts.values()]


def _conflicts(drawn: Drawn) -> Figure:
    """Rules against the network by batch, what they were right about, and the parts of the loss."""
    rows = drawn.rows
    losses = any(row.bce_real or row.bce_const for row in rows)
    panels = 3 if losses else 2
    figure = make_figure(WIDE[0], 2.6 * panels)
    for axes, panel in zip(figure.subplots(panels, 1).flat, CONFLICTS, strict=False):
        panel(axes, drawn)
    return figure


def conflicts(axes: Axes, drawn: Drawn) -> None:
    """Rows of a batch where a rule and the serving version disagree."""
    rows = drawn.rows
    _bars(axes, {row.batch_idx: row.n_conflicts for row in rows}, 0.8 * drawn.step, [LIVE])
    least = drawn.view.config["policy"]["conflict_min"]
    axes.axhline(least, color=ALARM, linestyle="--", label=f"from {least} on a heal may be due")
    _finish(axes, "Rows where rules and network disagree", "rows", drawn)


def right_conflicts(axes: Axes, drawn: Drawn) -> None:
    """How many of those rows were positive: the rules were right about them."""
    rows = [row for row in drawn.rows if row.n_conflicts]
    _line(axes, rows, [row.positive_share for row in rows], "positive, of these rows", GOOD)
    axes.set_ylim(-0.03, 1.03)
    _finish(axes, "Share of positives among them", "share", drawn, limited=True)


def loss_parts(axes: Axes, drawn: Drawn) -> None:
    """The parts of a heal's loss, where its recipe has them."""
    rows = [row for row in drawn.rows if row.bce_real or row.bce_const]
    _line(axes, rows, [row.bce_real for row in rows], "of the labels", LIVE)
    _line(axes, rows, [row.bce_const for row in rows], "of the rules", BASELINE)
    _finish(axes, "Parts of the loss that a heal learned from", "cross entropy", drawn)


CONFLICTS: tuple[Panel, ...] = (conflicts, right_conflicts, loss_parts)
PANELS: dict[str, Panel] = {
    "accuracy": accuracy,
    "lift": lift,
    "fidi": fidi,
    "f1_rollbacks": f1,
    "snapshots": snapshots,
    "stages": stages,
    "costs": costs,
}


def _line(
    axes: Axes,
    rows: list[Row],
    values: Sequence[float | None],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    """A line; of a long stream its rolling mean, in a band of one standard deviation."""
    known = [(row.batch_idx, v) for row, v in zip(rows, values, strict=True) if v is not None]
    at, heights = [batch for batch, _ in known], [value for _, value in known]
    if len(rows) <= MARKED:
        marker = "o" if style == "-" else None
        axes.plot(at, heights, style, color=colour, marker=marker, markersize=4, label=label)
        return
    parts = list(_windows(heights, ceil(len(rows) / ROLLING)))
    means = [fmean(part) for part in parts]
    axes.plot(at, means, style, color=colour, linewidth=1.8, label=label)
    if style == "-":
        spread = [stdev(part) if len(part) > 1 else 0.0 for part in parts]
        low = [mean - one for mean, one in zip(means, spread, strict=True)]
        high = [mean + one for mean, one in zip(means, spread, strict=True)]
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)


def _windows(values: Sequence[float], width: int) -> Iterator[Sequence[float]]:
    """The values around each one, fewer at the ends."""
    half = width // 2
    for place in range(len(values)):
        yield values[max(0, place - half) : place + half + 1]


def _finish(
    axes: Axes,
    title: str,
    ylabel: str,
    drawn: Drawn,
    *,
    limited: bool = False,
    strip: bool = True,
) -> None:
    """Title, labels, the legend below the data, and the states in a strip above it."""
    axes.set_title(title, loc="left", pad=16 if strip else 6)
    axes.set_ylabel(ylabel)
    if not axes.get_xlabel():
        rolling = "" if len(drawn.rows) <= MARKED else "; lines are rolling means"
        axes.set_xlabel(f"{drawn.along}{rolling}")
    if not limited:
        axes.margins(y=MARGIN)
        low, high = axes.get_ylim()
        if low < 0 and axes.dataLim.y0 >= 0:
            axes.set_ylim(0, high)  # a share, a count or a loss is not below zero
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if strip:
        handles = [*handles, *_strip(axes, drawn)]
    if handles:
        axes.legend(
            handles=handles, fontsize=8, frameon=False, ncols=4, loc="upper center",
            bbox_to_anchor=(0.5, 0), borderaxespad=BELOW,
        )  # fmt: skip


def _strip(axes: Axes, drawn: Drawn) -> list[Patch]:
    """Each batch's state as a colour above the picture; returns what the legend says of them."""
    rows, width = drawn.rows, float(drawn.step)
    # one bar for neighbours that are alike: a rectangle a batch takes most of the drawing
    alike = [list(part) for _, part in groupby(rows, key=lambda row: row.state)]
    axes.broken_barh(
        [(part[0].batch_idx - width / 2, width + part[-1].batch_idx - part[0].batch_idx)
         for part in alike],
        (1.01, STRIP), facecolors=[STATES[part[0].state] for part in alike],
        transform=axes.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip
    seen = {row.state for row in rows}
    return [Patch(color=colour, label=name.lower().replace("_", " "))
            for name, colour in STATES.items() if name in seen]  # fmt: skip
