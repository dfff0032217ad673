"""The picture of the demonstration: F1 over the payments, beside the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from selfheal_cli.report.canvas import make_figure, save

# of the frozen network, the healed one, the trees and the limit, in this order
STYLES = (("#8a8f98", "-"), ("#1f6feb", "-"), ("#d98200", "-"), ("#222222", ":"))


def draw_demo(
    curves: Mapping[str, Sequence[float]],
    rows: Sequence[int],
    changes: Sequence[tuple[int, str]],
    title: str,
    path: Path,
) -> Path:
    """Write a PNG: a curve for each contestant at the given ``rows``, and where what changed."""
    figure = make_figure(10.0, 4.6)
    axes = figure.subplots()
    for (name, values), (colour, line) in zip(curves.items(), STYLES, strict=True):
        axes.plot(rows, values, color=colour, linestyle=line, linewidth=2.0, label=name)
    for row, name in changes:
        axes.axvline(row, color="#c0c4ca", linewidth=1.0, zorder=0)
        axes.annotate(
            name, (row, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -4),
            textcoords="offset points", va="top", fontsize=9, color="#555555",
        )  # fmt: skip
    axes.set_xlabel("payments")
    axes.set_ylabel("F1 of the latest 2,000, before their labels came")
    axes.set_title(title, loc="left", fontsize=11)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(curves), frameon=False, fontsize=9)
    return save(figure, path)
