"""What is said of a canary: what is tried, how it compares, how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

from selfheal_cli.events.event import Action, OfBatch
from selfheal_cli.events.heals import HealJudged


class CanaryBegan(HealJudged, kind="canary-began"):
    """A heal answers a ``share`` of the requests, by the hash of their column ``by``, or of their
    ids, and is held ``against`` the serving version until something is decided.

    ``since`` and ``until`` are in the stream's own time; ``through`` is how far the source had been
    read: what comes after is compared.
    """

    outcome: ClassVar[str] = "tried"
    against: str
    share: float
    by: str
    since: float
    until: float
    through: Mapping[str, int]

    @classmethod
    def of(cls, judged: HealJudged, **how: Any) -> Self:
        """A heal that was about to be published."""
        return cls(**{one.name: getattr(judged, one.name) for one in fields(judged)}, **how)

    def __str__(self) -> str:
        return f"canary: heal {self.heal_id} answers {self.share:.0%} of requests ({self.reason})"


class CanaryOrdered(Action, kind="canary-ordered"):
    """A ``version`` that ``actor`` wants tried answers a share, as in `CanaryBegan`; ``base`` is
    its own where that is not the champion's: then it makes its own inputs of a row's columns.
    """

    actor: str
    version: int
    snapshot: str
    base: str
    against: str
    share: float
    by: str
    since: float
    until: float
    through: Mapping[str, int]

    def __str__(self) -> str:
        share, who = f"{self.share:.0%} of requests", self.actor
        return f"canary: v{self.version} answers {share}, ordered by {who} ({self.reason})"


class CanaryResumed(Action, kind="canary-resumed"):
    """A canary of an earlier run goes on being compared: ``version`` in the registry, ``seen`` as
    it stood then, and all else as it began. ``ordered`` says who wanted it tried, where that was a
    person; ``base`` is as in `CanaryOrdered`.
    """

    heal_id: str
    snapshot: str
    version: int
    against: str
    share: float
    by: str
    since: float
    until: float
    seen: Mapping[str, float]
    rows: int
    through: Mapping[str, int]
    ordered: str = ""
    base: str = ""

    def __str__(self) -> str:
        return f"canary v{self.version} goes on answering {self.share:.0%} of requests"


class CanaryCompared(OfBatch, kind="canary-compared"):
    """A canary and the champion on as many labelled rows as a batch has, the last of ``batch``.

    ``difference`` is the champion's clipped log loss a row minus the canary's; ``low`` and ``high``
    bound its mean over all ``rows_in_all``, at all looks together, None before there are enough;
    ``seen`` is that mean as it is added up; the source was read ``through`` there.
    """

    rows: int
    positives: int
    difference: float
    low: float | None
    high: float | None
    seen: Mapping[str, float]
    rows_in_all: int
    through: Mapping[str, int]


class CanaryEnded(Action, kind="canary-ended"):
    """A canary was ``promoted``: it serves all; ``proposed``: a person may approve it; or
    ``withdrawn``, ``by`` a person or, without one, by its figures. ``difference`` with its bounds
    is the mean over ``batches`` of ``rows`` labelled rows in all, None where nothing was compared.
    """

    outcome: str
    by: str = ""
    heal_id: str = ""
    snapshot: str = ""
    batches: int = 0
    rows: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return f"canary {self.outcome}{by}: {self.reason}"
