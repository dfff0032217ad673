"""Are the heals still good? Rolling means against the first heal."""

from __future__ import annotations

from collections import deque
from statistics import fmean

from selfheal_cli.config import Policy
from selfheal_cli.scores import AnyScores


class Health:
    """Keeps the last heals' scores; the first heal is what they are measured against."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._baseline: AnyScores | None = None
        self._accuracy: deque[float] = deque(maxlen=policy.health_window)
        self._f1: deque[float] = deque(maxlen=policy.health_window)
        self._heals = 0

    def observe(self, healed: AnyScores) -> str | None:
        """Take a heal's scores; returns why it is time to roll back, or None."""
        if self._baseline is None:
            self._baseline = healed
        self._heals += 1
        self._accuracy.append(healed.accuracy)
        self._f1.append(healed.f1)
        enough = min(self._policy.health_min_heals, self._policy.health_window)
        if self._heals < self._policy.health_min_heals or len(self._f1) < enough:
            return None
        return self._fallen("F1", self._f1, self._baseline.f1, self._policy.rollback_f1_drop) or (
            self._fallen(
                "accuracy",
                self._accuracy,
                self._baseline.accuracy,
                self._policy.rollback_acc_drop,
            )
        )

    @staticmethod
    def _fallen(name: str, window: deque[float], baseline: float, drop: float) -> str | None:
        mean = fmean(window)
        if mean >= baseline - drop:
            return None
        return (
            f"mean {name} of the last {len(window)} heals {mean:.3f} is more than {drop:g} "
            f"below the first heal's {baseline:.3f}"
        )
