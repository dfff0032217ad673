"""A comparison as a picture: accuracy by batch of everyone, and where each ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selfheal_cli.report.canvas import make_figure, save

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
        right.bar(at, [found[name] for found in bars.values()], width, color=colours[name])
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
