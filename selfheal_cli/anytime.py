"""An interval for a mean that holds however often one looks at it, and whenever one stops.

Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", Annals of Statistics 52 (2024): the asymptotic confidence sequence,
two-sided, of means that may change with time. Those that hold for every number of values (empirical
Bernstein, betting: Waudby-Smith and Ramdas, JRSS B 86, 2024) pay for the range that a single value
may have: a difference of clipped log losses may be 5 nats, while its mean over a batch is a few
thousandths. The price of this one: it holds as values become many, so that none is given before
`FEWEST`; `benchmarks/canary.py` counts how often it errs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

FEWEST = 30  # values before the first interval
SHARPEST = 200  # values at which the interval is as narrow as it can be made


@dataclass(frozen=True, slots=True)
class RunningMean:
    """Values so far: their ``count``, ``mean``, and ``squares``, the sum of squares about it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> RunningMean:
        """With one more value."""
        count, apart = self.count + 1, value - self.mean
        mean = self.mean + apart / count
        return RunningMean(count, mean, self.squares + apart * (value - mean))

    def interval(self, level: float) -> tuple[float, float] | None:
        """Where the mean lies, at all times at once but with chance 1 - ``level``; None before
        `FEWEST` values.

        >>> seen = RunningMean()
        >>> for value in [0.1, 0.3] * 50:
        ...     seen = seen.plus(value)
        >>> [round(bound, 3) for bound in seen.interval(0.95)]
        [0.169, 0.231]
        """
        if self.count < FEWEST:
            return None
        alpha, n = 1.0 - level, self.count
        narrow = -2.0 * log(alpha)
        rho = (narrow + log(narrow) + 1.0) / SHARPEST  # rho squared, as the paper chooses it
        wide = 2.0 * (n * rho + 1.0) / (n * n * rho) * log(sqrt(n * rho + 1.0) / alpha)
        reach = sqrt(self.squares / (n - 1) * wide)
        return self.mean - reach, self.mean + reach
