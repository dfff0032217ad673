"""The article's eight plots and the cost curve, drawn from a folded log, without pyplot's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil
from pathlib import Path

from selfheal_cli.events.state import Row, RunView, SnapshotRow
from selfheal_cli.report.canvas import Axes, Patch, make_figure, save
from selfheal_cli.report.charts import ends, step_of, thinned

# Okabe and Ito's palette, which colour-blind readers can tell apart
LIVE, SHADOW, BASELINE, ALARM = "#0072B2", "#7F7F7F", "#E69F00", "#D55E00"
GOOD, NOTE = "#009E73", "#CC79A7"
STATES = {"HEALTHY": GOOD, "DRIFTING": BASELINE, "HEALING": LIVE, "ROLLED_BACK": ALARM}
STAGE_METRICS = (("accuracy", LIVE), ("precision", GOOD), ("recall", BASELINE), ("f1", NOTE))
WIDE = (9.0, 4.2)
MARKED = 60  # batches up to which each gets a marker
MOST = 500  # points of a line, bars, or dots
PHASES = (("baseline", SHADOW), ("pre-heal", BASELINE), ("post-heal", LIVE))


@dataclass(frozen=True)
class Drawn:
    """A folded run with as many of its points as are drawn: each of ``step`` batches."""

    view: RunView
    step: int

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


def draw_all(view: RunView, folder: Path) -> list[Path]:
    """Write the pictures as PNG; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = Drawn(view, step_of(*ends(view.rows), MOST))
    paths = []
    for name, panel in PANELS.items():
        if name == "costs" and not (view.finished and view.finished.costs):
            continue  # more than two classes: errors have no two costs
        figure = make_figure(*WIDE)
        panel(figure.add_subplot(), drawn)
        paths.append(save(figure, folder / f"{name}.png"))
    figure = make_figure(13.0, 8.0)
    for axes, panel in zip(figure.subplots(2, 2).flat, (accuracy, lift, fidi, f1), strict=True):
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
    _line(axes, rows, [row.shadow_acc for row in rows], "shadow (frozen)", SHADOW, style="--")
    label = "accuracy (share of rows)"
    _finish(axes, "Accuracy by batch", label, limits=(0, 1), along=drawn.along)


def lift(axes: Axes, drawn: Drawn) -> None:
    """Live minus shadow accuracy by batch."""
    lifts = {row.batch_idx: 100 * row.acc_lift for row in drawn.rows if row.acc_lift is not None}
    colours = [GOOD if value >= 0 else ALARM for value in lifts.values()]
    axes.bar(list(lifts), list(lifts.values()), 0.8 * drawn.step, color=colours)
    total = count = 0.0
    for row in drawn.view.rows.values():
        if row.acc_lift is not None:
            total, count = total + 100 * row.acc_lift, count + 1
    mean = total / max(count, 1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhline(mean, color=LIVE, linestyle="--", label=f"mean {mean:+.1f} points")
    label = "lift (percentage points)"
    _finish(axes, "Accuracy lift over the shadow model", label, along=drawn.along)


def fidi(axes: Axes, drawn: Drawn) -> None:
    """Drift of the sensitive feature."""
    rows = drawn.rows
    threshold = drawn.view.config["policy"]["fidi_threshold"]
    name = drawn.view.trained.sensitive if drawn.view.trained else "the sensitive feature"
    _line(axes, rows, [row.z_score for row in rows], f"|z| of {name}", LIVE)
    axes.axhline(threshold, color=ALARM, linestyle="--", label=f"threshold {threshold:g}")
    label = "|z| (training standard deviations)"
    _finish(axes, "FIDI drift of the sensitive feature", label, along=drawn.along)


def states(axes: Axes, drawn: Drawn) -> None:
    """The state at the end of each batch."""
    rows = drawn.rows
    axes.bar(
        [row.batch_idx for row in rows],
        [1] * len(rows),
        width=float(drawn.step),
        color=[STATES[row.state] for row in rows],
        edgecolor="white" if len(rows) <= MARKED else "none",
    )
    axes.set_yticks([])
    axes.set_ylim(0, 1.25)  # room for the legend
    seen = {row.state for row in rows}
    handles = [Patch(color=colour, label=name) for name, colour in STATES.items() if name in seen]
    title = "State at the end of each batch"
    _finish(axes, title, "", handles=handles, along=drawn.along)


def f1(axes: Axes, drawn: Drawn) -> None:
    """Live and shadow F1, with the rollbacks."""
    rows = drawn.rows
    _line(axes, rows, [row.healed_f1 for row in rows], drawn.live_label, LIVE)
    _line(axes, rows, [row.shadow_f1 for row in rows], "shadow (frozen)", SHADOW, style="--")
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
    title = "F1 by batch" if back else "F1 by batch (no rollback)"
    _finish(axes, title, "F1", limits=(0, None), along=drawn.along)


def snapshots(axes: Axes, drawn: Drawn) -> None:
    """F1 of every snapshot in the registry, the best post-heal one marked."""
    dots = [one for one in _known(drawn.view) if one.phase in dict(PHASES)]
    for phase, colour in PHASES:
        pairs = [(s.version, s.f1) for s in dots if s.phase == phase]
        known = [(float(v), f1) for v, f1 in pairs if v is not None and f1 is not None]
        axes.scatter([x for x, _ in known], [y for _, y in known], color=colour, label=phase)
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
    every = _every(drawn.view)
    axes.set_xlabel("model version" if every == 1 else f"model version (one of {every} is drawn)")
    _finish(axes, "Snapshots in the registry", "F1 when snapshotted", limits=(0, None))


def costs(axes: Axes, drawn: Drawn) -> None:
    """Which model for which cost: expected cost by the ratio of a miss to a false alarm."""
    curves = (drawn.view.finished and drawn.view.finished.costs) or {}
    ratio = curves["ratio"]
    blind = [min(pair) for pair in zip(curves["nothing"], curves["everything"], strict=True)]
    for key, colour, style, label in (
        ("healed", LIVE, "-", "healed"),
        ("unhealed", SHADOW, "--", "un-healed"),
    ):
        values = [cost / least for cost, least in zip(curves[key], blind, strict=True)]
        axes.plot(ratio, values, style, color=colour, label=label)
    axes.axhline(1, color=ALARM, linestyle=":", label="flag nothing or everything")
    for place in _crossings(curves["healed"], curves["unhealed"]):
        axes.axvline(ratio[place], color=GOOD, linewidth=0.8)
        axes.annotate(
            f" {ratio[place]:,.0f}:1" if ratio[place] >= 1 else f" 1:{1 / ratio[place]:.1f}",
            (ratio[place], 0.02),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color=GOOD,
        )
    axes.set_xscale("log")
    axes.set_xlabel("cost of a missed positive / cost of a false alarm, each deciding for it")
    label = "expected cost\n(1: the cheaper of flagging nothing and everything)"
    _finish(axes, "Which model for which cost", label, limits=(0, None))


def _crossings(one: Sequence[float], other: Sequence[float]) -> list[int]:
    """Places after which the cheaper of two becomes the dearer."""
    ahead = [a < b for a, b in zip(one, other, strict=True)]
    return [place for place in range(1, len(ahead)) if ahead[place] != ahead[place - 1]]


def stages(axes: Axes, drawn: Drawn) -> None:
    """Four metrics for each line of the results table that has them."""
    end = drawn.view.finished
    lines = [line for line in (end and end.stages) or () if "precision" in line]
    width = 0.8 / len(STAGE_METRICS)
    for place, (metric, colour) in enumerate(STAGE_METRICS):
        at = [index + (place - 1.5) * width for index in range(len(lines))]
        values = [line[metric] for line in lines]
        bars = axes.bar(at, values, width, color=colour, label=metric)
        axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=1)
    titles = [line["title"].replace(", ", ",\n").replace(" (", "\n(") for line in lines]
    axes.set_xticks(range(len(lines)), titles, fontsize=7)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_xlabel("stage")
    _finish(axes, "Four metrics by stage", "share", limits=(0, 1.3), columns=4)


PANELS: dict[str, Panel] = {
    "accuracy": accuracy,
    "lift": lift,
    "fidi": fidi,
    "states": states,
    "f1_rollbacks": f1,
    "snapshots": snapshots,
    "stages": stages,
    "costs": costs,
}


def _every(view: RunView) -> int:
    """Of how many snapshots one is drawn."""
    return max(1, ceil(len(view.snapshots) / MOST))


def _known(view: RunView) -> Iterator[SnapshotRow]:
    return islice(view.snapshots.values(), 0, None, _every(view))


def _line(
    axes: Axes,
    rows: list[Row],
    values: Sequence[float | None],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    marker = "o" if len(rows) <= MARKED and style == "-" else None
    known = [(row.batch_idx, v) for row, v in zip(rows, values, strict=True) if v is not None]
    axes.plot(
        [batch for batch, _ in known],
        [value for _, value in known],
        style,
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.5 if len(rows) <= MARKED else 0.9,
        label=label,
    )


def _finish(
    axes: Axes,
    title: str,
    ylabel: str,
    *,
    limits: tuple[float, float | None] | None = None,
    handles: list[Patch] | None = None,
    columns: int = 1,
    along: str = "batch",
) -> None:
    axes.set_title(title)
    axes.set_ylabel(ylabel)
    if not axes.get_xlabel():
        axes.set_xlabel(along)
    if limits is not None:
        axes.set_ylim(*limits)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=handles, fontsize=8, framealpha=0.9, ncols=columns)


COLOURS = ("#7F7F7F", "#E69F00", "#BBBBBB", "#CC79A7", "#56B4E9", "#0072B2", "#009E73", "#D55E00",
           "#000000", "#F0E442")  # fmt: skip
SMOOTHED = 60  # batches beyond which curves are means over a tenth of them


def draw_comparison(
    curves: Mapping[str, Sequence[float]],
    bars: Mapping[str, Mapping[str, float]],
    limit: Mapping[str, float],
    title: str,
    path: Path,
) -> Path:
    """Write a PNG: ``curves`` of accuracy by batch, ``bars`` of figures by name and contestant."""
    figure = make_figure(13.0, 5.4)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(curves)}
    for name, values in curves.items():
        smooth = _smoothed(values)
        left.plot(range(1, len(smooth) + 1), smooth, color=colours[name], label=name, linewidth=1.4)
    left.set_xlabel("batch" if _step(curves) == 1 else f"batches, means of {_step(curves)}")
    left.set_ylabel("accuracy before learning from the batch")
    left.set_title("Predict, then learn")
    left.grid(visible=True, axis="y", alpha=0.3)
    left.legend(fontsize=8, framealpha=0.9)
    width = 0.8 / max(len(curves), 1)
    for place, name in enumerate(curves):
        at = [index + (place - len(curves) / 2 + 0.5) * width for index in range(len(bars))]
        right.bar(at, [figures[name] for figures in bars.values()], width, color=colours[name])
    for index, name in enumerate(bars):
        if name in limit:
            right.hlines(limit[name], index - 0.45, index + 0.45, color="black", linestyle="--")
    right.set_xticks(range(len(bars)), [name.replace("_", " ") for name in bars])
    right.set_ylim(0, 1)
    right.set_title("At the end (dashed: the limit)" if limit else "Over the stream")
    right.grid(visible=True, axis="y", alpha=0.3)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, path)


def _step(curves: Mapping[str, Sequence[float]]) -> int:
    longest = max((len(values) for values in curves.values()), default=0)
    return 1 if longest <= SMOOTHED else longest // SMOOTHED + 1


def _smoothed(values: Sequence[float]) -> list[float]:
    step = 1 if len(values) <= SMOOTHED else len(values) // SMOOTHED + 1
    parts = [values[at : at + step] for at in range(0, len(values), step)]
    return [sum(part) / len(part) for part in parts]
