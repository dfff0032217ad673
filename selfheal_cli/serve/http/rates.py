"""How often a caller may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from selfheal_cli.errors import RequestRefused
from selfheal_cli.serve.settings import Limits

BURST = 2.0  # seconds' worth of requests at once
CALLERS = 10_000  # whose rates are remembered


class Rates:
    """A bucket of tokens a caller, filled at ``limits.requests`` a second."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = limits.requests
        self._burst = max(1.0, limits.requests * BURST)
        self._clock = clock
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count a request; raises `RequestRefused` 429 where there were too many."""
        if not self._rate:
            return
        now = self._clock()
        left, then = self._callers.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1.0
        self._callers[caller] = (left - 1.0 if allowed else left, now)
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)
        if not allowed:
            raise RequestRefused(
                f"more than {self._rate:g} requests a second; come back later",
                status=429, code="REQUEST_LIMIT_EXCEEDED", reason="rate",
            )  # fmt: skip
