"""The one place where text meets matplotlib: names are names there, and no formulas."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal_cli.visible import visible

_backend = os.environ.pop("MPLBACKEND", None)  # a notebook's, which may not be installed here
try:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend

if TYPE_CHECKING:
    from matplotlib.text import Text

DPI = 110
__all__ = ["Axes", "Figure", "Patch", "PolyCollection", "make_figure", "save"]


def make_figure(wide: float, high: float) -> Figure:
    """A figure in inches, without pyplot's state and without a window."""
    return Figure(figsize=(wide, high), dpi=DPI, layout="constrained")


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; returns its path."""
    name_names(figure)
    with warnings.catch_warnings():
        # boxes for a script that no font here has, a name too long for its picture: both are seen
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(path, metadata={"Software": None})
    return path


def name_names(figure: Figure) -> None:
    """Take what we wrote in a figure as it stands, and not for a formula."""
    for text in _written(figure):
        text.set_parse_math(False)
        text.set_text(visible(text.get_text(), keep="\n"))


def as_tick(name: str) -> str:
    """A name to stand at an axis: what matplotlib writes there itself may be a formula.

    >>> as_tick("P&L $$")
    'P&L \\\\$\\\\$'
    """
    return visible(name).replace("$", r"\$")


def _written(figure: Figure) -> Iterator[Text]:
    """What we wrote; the labels of ticks are matplotlib's own, and may be formulas."""
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        legend = axes.get_legend()
        if legend is not None:
            yield from legend.get_texts()
