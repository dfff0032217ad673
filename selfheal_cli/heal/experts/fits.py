"""Fits of trees under way beside the stream, each in a thread, until their trees are due.

What comes of a fit hangs on its rows alone. So a thread saves time and decides nothing: who has
none, as after a resume or in a forked process, fits in place and gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Fitting = Callable[[], str]

MOST = 8  # under way at once: those of sessions that were given up are let go
_under_way: dict[str, _FitThread] = {}


class _FitThread(Thread):
    def __init__(self, fitting: Fitting) -> None:
        super().__init__(name="trees")
        self._fitting = fitting
        self._text: str | None = None

    def run(self) -> None:
        """Fit; what fails here fails again where it is asked for."""
        with suppress(Exception):  # LightGBM's own kind cannot be named before it is loaded
            self._text = self._fitting()

    def text(self) -> str:
        """What came of it, as soon as there is something; raises as ``fitting`` does."""
        self.join()
        return self._fitting() if self._text is None else self._text


def begin(key: str, fitting: Fitting) -> None:
    """Fit beside the stream; ``key`` names the rows."""
    if key in _under_way:
        return
    while len(_under_way) >= MOST:
        _under_way.pop(next(iter(_under_way)))
    _under_way[key] = fit = _FitThread(fitting)
    fit.start()


def finish(key: str, fitting: Fitting) -> str:
    """The text of the trees; waits where they are late. Raises as ``fitting`` does."""
    fit = _under_way.pop(key, None)
    return fitting() if fit is None else fit.text()
