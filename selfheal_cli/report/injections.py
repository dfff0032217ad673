"""The picture of changes put into a table: when each was noticed, and what healing gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selfheal_cli.report.canvas import Axes, make_figure, save

BLUE, ORANGE = "#0072B2", "#D55E00"
Interval = tuple[float, float, float]  # value, low, high


def draw_injections(
    lags: Mapping[str, Sequence[int | None]],
    gains: Mapping[str, Interval],
    length: int,
    figure: str,
    title: str,
    path: Path,
) -> Path:
    """Write a PNG: ``lags`` of each date by kind, None where it was not noticed, and ``gains``."""
    canvas = make_figure(11.0, 1.8 + 0.5 * len(lags))
    left, right = canvas.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, each in enumerate(lags.values()):
        seen = [lag for lag in each if lag is not None]
        unseen = len(each) - len(seen)
        heights = [place + 0.06 * (seen[:at].count(lag) - 1) for at, lag in enumerate(seen)]
        left.scatter(seen, heights, 30, color=BLUE, alpha=0.7)
        if unseen:
            left.text(length + 1, place, f"never: {unseen}", va="center", fontsize=9, color=ORANGE)
    left.set_yticks(range(len(lags)), list(lags))
    left.set_xlim(0, length + 5)
    left.set_xlabel("batches until the first alarm that the untouched table has not")
    left.set_title("Noticed: a dot a date")
    _intervals(right, gains)
    right.set_xlabel(f"{figure}: healed minus frozen, over the dates")
    right.set_title("What healing gave")
    for axes in (left, right):
        axes.grid(visible=True, axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left.invert_yaxis()
    canvas.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(canvas, path)


def _intervals(axes: Axes, gains: Mapping[str, Interval]) -> None:
    axes.axvline(0.0, color="black", linewidth=0.8)
    for place, (value, low, high) in enumerate(gains.values()):
        axes.hlines(place, low, high, color=BLUE, linewidth=2)
        axes.scatter([value], [place], 36, color=BLUE, zorder=3)
