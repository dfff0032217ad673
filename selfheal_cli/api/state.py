"""How a program's model stands, and what its calls give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from math import sqrt
from pathlib import Path
from typing import Any

from selfheal_cli.api.replica import Replica
from selfheal_cli.api.report import page_of
from selfheal_cli.pipeline.runs.run import Finished
from selfheal_cli.serve.operator.status import Drift, Judged, ModelStatus, last_word

Z = 1.96  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Labelled:
    """Counts of labels: ``joined`` to their rows; ``repeated`` for rows that have one already,
    ``contradicting`` of them another one, which changes nothing; ``unknown`` ids were never scored
    here, or so long ago that their rows are gone.
    """

    joined: int
    repeated: int
    contradicting: int
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AccuracyLift:
    """Accuracy on ``rows`` labelled rows, each scored before anything learned from it.

    ``gain`` is that of what served minus that of the frozen module, between ``low`` and ``high``
    with 95 % certainty; wider than need be, since the two are taken for independent.

    >>> AccuracyLift(1_000, 0.75, 0.80)
    accuracy +0.050 [+0.013, +0.087] on 1,000 rows
    """

    rows: int
    frozen: float
    healed: float

    @property
    def gain(self) -> float:
        """What healing gave."""
        return self.healed - self.frozen

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.gain - self._margin

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.gain + self._margin

    @property
    def _margin(self) -> float:
        return Z * sqrt(sum(p * (1 - p) for p in (self.frozen, self.healed)) / self.rows)

    def __repr__(self) -> str:
        interval = f"[{self.low:+.3f}, {self.high:+.3f}]"
        return f"accuracy {self.gain:+.3f} {interval} on {self.rows:,} rows"


@dataclass(frozen=True, slots=True, repr=False)
class ModelState:
    """How a model stands. ``serving`` is the version that this process answers with, None while the
    registry has not numbered it; ``champion`` the one that the registry has, of ``versions``, seen
    within the last second.

    ``heals`` counts by outcome. ``drift`` is the last reading, None before the first; ``lift`` None
    before labels came. ``waiting`` rows were given and not looked at yet. ``heals_here`` says
    whether this process is the one that heals; ``error`` what prevents healing. ``report`` is the
    page that `SelfHealing.report` wrote last, if it did.
    """

    name: str
    state: str
    serving: int | None
    champion: int | None
    versions: int
    rows: int
    labels: int
    waiting: int
    heals: Mapping[str, int] = field(default_factory=dict)
    drift: Drift | None = None
    lift: AccuracyLift | None = None
    error: str = ""
    heals_here: bool = False
    run_id: str = ""
    report: Path | None = None

    @property
    def drifting(self) -> bool:
        """Whether the rows moved away from what is normal."""
        return self.state in ("DRIFTING", "HEALING") or bool(self.drift and self.drift.drifting)

    def __repr__(self) -> str:
        return f"<{'; '.join(f'{name} {value}' for name, value in self._told())}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in self._told()
        )
        return f"<table>{rows}</table>"

    def _told(self) -> list[tuple[str, str]]:
        serving = "a version not numbered yet" if self.serving is None else f"v{self.serving}"
        heals = ", ".join(f"{count} {name}" for name, count in self.heals.items()) or "none"
        drift = "not read yet"
        if self.drift is not None:
            word = "drifting" if self.drifting else "no drift"
            drift = f"{word} ({self.drift.feature or 'z'} {self.drift.z:+.2f})"
        told = [
            (f"'{self.name}'", self.state.lower()),
            ("serves", f"{serving} of {self.versions}"),
            ("drift", drift),
            ("heals", heals),
            ("lift", "no labels yet" if self.lift is None else repr(self.lift)),
            ("rows", f"{self.rows:,}, {self.waiting:,} waiting"),
        ]
        return told + ([("error", self.error)] if self.error else [])


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a model that was closed: its last ``state``, and the run that ``finished``, of
    which every attribute is the summary's as well; None where another process heals.
    """

    finished: Finished | None
    state: ModelState

    def __getattr__(self, name: str) -> Any:
        if self.finished is None or name.startswith("_"):
            raise AttributeError(f"{name}: this process healed nothing, another one does")
        return getattr(self.finished, name)

    def __str__(self) -> str:
        return repr(self.state)


def state_of(replica: Replica, name: str) -> ModelState:
    """How a model stands by what the healing process said last; no registry is asked."""
    said = last_word(replica.channel, replica.channel.now()).standing
    error = "" if replica.error is None else str(replica.error)
    page = page_of(said.run_id) if said.run_id else None
    return ModelState(
        name=name,
        state=said.state,
        serving=replica.scorer.served.version,
        champion=replica.known.champion,
        versions=replica.known.versions,
        rows=said.rows,
        labels=said.labels,
        waiting=said.waiting + replica.waiting,
        heals=said.heals,
        drift=said.drift,
        lift=_lift(said),
        error=error or said.error or said.registry_away,
        heals_here=replica.heals,
        run_id=said.run_id,
        report=page if page and page.exists() else None,
    )


def _lift(said: ModelStatus) -> AccuracyLift | None:
    live, shadow = said.live, said.shadow
    if live is None or shadow is None or not live.rows:
        return None
    return AccuracyLift(live.rows, _accuracy(shadow), _accuracy(live))


def _accuracy(judged: Judged) -> float:
    return judged.figures["accuracy"]
