"""The Page-Hinkley test (Page 1954), in the arithmetic of river's class of that name.

A run on own data has it without being asked, so that it must not need a package that may be absent;
``tests/drift/test_page_hinkley.py`` holds it against river's to the last bit.
"""

from __future__ import annotations

LEAST = 30  # values before it may fire
FADING = 1 - 1e-4


class PageHinkley:
    """Fires where the sum of deviations from the running mean has risen or fallen by ``threshold``.

    A deviation counts beyond ``delta``. After it fired it begins anew.
    """

    def __init__(self, delta: float, threshold: float) -> None:
        self._delta, self._threshold = delta, threshold
        self._begin()

    def _begin(self) -> None:
        self.drift_detected = False
        self._count, self._mean = 0, 0.0
        self._rise = self._fall = 0.0
        self._lowest, self._highest = float("inf"), -1.0

    def update(self, value: float) -> None:
        """Take the next value."""
        if self.drift_detected:
            self._begin()
        self._count += 1
        self._mean += (1.0 / self._count) * (value - self._mean)
        deviation = value - self._mean
        self._rise = FADING * self._rise + deviation - self._delta
        self._fall = FADING * self._fall + deviation + self._delta
        self._lowest = min(self._lowest, self._rise)
        self._highest = max(self._highest, self._fall)
        if self._count >= LEAST:
            apart = max(self._rise - self._lowest, self._highest - self._fall)
            self.drift_detected = apart > self._threshold
