"""The picture of a comparison: accuracy by batch, and figures, of each contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from selfheal_cli.report.canvas import Axes, make_figure, save

# eight colours that colour-blind readers can tell apart (Okabe and Ito), then once more dashed
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
STYLES = ("-", "--", ":")
POINTS = 40  # of a curve; beyond, means over so many parts of the stream
MARGIN = 0.15  # of what the curves span, above and below them


def draw_comparison(
    curves: Mapping[str, Sequence[float]],
    bars: Mapping[str, Mapping[str, float]],
    limit: Mapping[str, float],
    title: str,
    path: Path,
) -> Path:
    """Write a PNG: ``curves`` of accuracy by batch, ``bars`` of figures by name and contestant."""
    figure = make_figure(13.0, 6.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    looks = dict(zip(curves, cycle((c, s) for s in STYLES for c in COLOURS), strict=False))
    _curves(left, curves, looks)
    _dots(right, curves, bars, looks)
    for index, name in enumerate(bars):
        if name in limit:
            right.hlines(limit[name], index - 0.4, index + 0.4, color="black", linestyle="--")
    right.set_title("At the end (dashed: the limit)" if limit else "Over the stream")
    for axes in (left, right):
        axes.grid(visible=True, axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, path)


def _curves(
    axes: Axes, curves: Mapping[str, Sequence[float]], looks: Mapping[str, tuple[str, str]]
) -> None:
    longest = max((len(values) for values in curves.values()), default=0)
    step = max(1, -(-longest // POINTS))
    for name, values in curves.items():
        parts = [values[at : at + step] for at in range(0, len(values), step)]
        at = [place * step + (len(part) + 1) / 2 for place, part in enumerate(parts)]
        colour, style = looks[name]
        axes.plot(at, [sum(part) / len(part) for part in parts], style, color=colour, label=name,
                  linewidth=1.6)  # fmt: skip
    axes.set_xlabel("batch" if step == 1 else f"batch (a point is the mean of {step})")
    axes.set_ylabel("accuracy before learning from the batch")
    axes.set_title("Predict, then learn")


def _dots(
    axes: Axes,
    curves: Mapping[str, Sequence[float]],
    bars: Mapping[str, Mapping[str, float]],
    looks: Mapping[str, tuple[str, str]],
) -> None:
    """A dot a contestant beside each other: where they differ is what is looked at."""
    width = 0.8 / max(len(curves), 1)
    values = [figures[name] for figures in bars.values() for name in curves]
    for place, name in enumerate(curves):
        at = [index + (place - len(curves) / 2 + 0.5) * width for index in range(len(bars))]
        colour, style = looks[name]
        inside = colour if style == "-" else "white"
        heights = [figures[name] for figures in bars.values()]
        axes.scatter(at, heights, 42, edgecolor=colour, facecolor=inside, zorder=3)
    axes.set_xticks(range(len(bars)), [name.replace("_", " ") for name in bars])
    low, high = min(values, default=0.0), max(values, default=1.0)
    edge = MARGIN * (high - low) or 0.05
    axes.set_ylim(max(0.0, low - edge), min(1.02, high + edge))
