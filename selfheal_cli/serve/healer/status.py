"""What the healer says of itself on the channel, folded from the run's events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.config import Objective
from selfheal_cli.errors import VersionNotFound
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.events.state import RunState
from selfheal_cli.pipeline.stream.session import APART
from selfheal_cli.records import AliasMove, ForeignVersion, VersionRecord
from selfheal_cli.registry.base import BASELINE, CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind
from selfheal_cli.registry.journal import JournalState as Journal
from selfheal_cli.registry.journal import standing as journal_of
from selfheal_cli.registry.orders import mode_of
from selfheal_cli.rollback.plan import champion_of, last_own
from selfheal_cli.scores import AnyScores
from selfheal_cli.serve.healer.history import Course
from selfheal_cli.serve.healer.trials import OF_TRIALS, Trials
from selfheal_cli.serve.operator.status import (
    Candidate,
    Champion,
    Drift,
    Happening,
    Judged,
    Proposed,
    SegmentDrifted,
)

HAPPENINGS = 20
CANDIDATES = 8
SEGMENTS = 100  # that drifted, the furthest


class EventFold(RunState):
    """A run's events as an operator wants to see them. One thread applies, any reads a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {}
        self._live: AnyScores | None = None
        self._shadow: AnyScores | None = None
        self._labels = 0
        self._rows = 0
        self._notes: Counter[str] = Counter()
        self._kept = (0, "")  # heals in a row that do not serve, and why
        self._happened: deque[Happening] = deque(maxlen=HAPPENINGS)
        self._course = Course()
        self._trials = Trials(self)
        self._objective = Objective()

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        match event:
            case events.RunStarted():
                self.facts |= {"run_id": event.run_id}
                self._objective = Objective.model_validate(self.config.get("objective", {}))
            case events.BatchScored():
                self._batch(event)
                self._course.scored(event)
                self.facts["history"] = self._course.stretches()
                self._note(event.left_out)
            case events.BatchSetApart():
                self._note({APART: event.rows})
            case events.LabelsArrived():
                self._course.labelled(event)
                self._judge(event)
                self.facts["history"] = self._course.stretches()
            case events.LabelsCorrected():
                self._course.corrected(event)
                self._correct(event)
            case events.HealEnded():
                kinds = (kind for kind in self.counts if issubclass(kind, events.HealEnded))
                self.facts["heals"] = {kind.outcome: self.counts[kind] for kind in kinds}
            case events.SegmentsDrifted():
                fresh = (SegmentDrifted(by=event.by, **one) for one in event.segments)
                known = (*self.facts.get("segments", ()), *fresh)
                ranked = sorted(known, key=lambda one: -one.effect)
                self.facts["segments"] = tuple(ranked[:SEGMENTS])
            case events.RolledBack():
                self.facts["rollbacks"] = self.times(events.RolledBack)
        if isinstance(event, OF_TRIALS):
            self.facts |= self._trials.told(event)
            self._course.tried(event)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        """Have it among what happened; heals that are kept for one cause are one line."""
        text, before = str(event), self._kept
        self._kept = (0, "")
        if isinstance(event, events.HealWithheld) and not event.proposed:
            same = before[1] == event.withheld
            self._kept = (before[0] + 1 if same else 1, event.withheld)
            if same:
                self._happened.popleft()
                text = f"{self._kept[0]} heals kept: {event.withheld}"
        elif not text:
            self._kept = before
        if text:
            self._happened.appendleft(Happening(at=event.at, kind=event.kind, text=text))
            self.facts["happenings"] = tuple(self._happened)

    def _batch(self, event: events.BatchScored) -> None:
        self._rows += event.rows
        drift = Drift(
            feature=self.trained.sensitive if self.trained else "",
            z=event.z,
            threshold=self.config.get("policy", {}).get("fidi_threshold", 0.0),
            drifting=event.drifting,
        )
        readings = event.monitors
        self.facts |= {
            "state": event.state,
            "batch": event.batch,
            "rows": self._rows,
            "drift": drift,
            "conflicts": event.conflicts,
            "pending_writes": event.pending_writes,
            "monitors": {name: one["value"] for name, one in readings.items()},
            "alarms": tuple(name for name, one in readings.items() if one["level"] == "alarm"),
        }

    def _note(self, counts: Mapping[str, int]) -> None:
        if counts:
            self._notes.update(counts)
            self.facts["notes"] = dict(self._notes)

    def _judge(self, event: events.LabelsArrived) -> None:
        live, shadow = event.live, event.shadow
        self._live = live if self._live is None else self._live.plus(live)
        self._shadow = shadow if self._shadow is None else self._shadow.plus(shadow)
        self._labels += event.rows
        self._show_scores()
        self.facts |= {"labels": self._labels, "labels_at": event.at}

    def _correct(self, event: events.LabelsCorrected) -> None:
        if self._live is None or self._shadow is None:
            return  # the rows were counted by an earlier run
        self._live = self._live.minus(event.was).plus(event.live)
        self._shadow = self._shadow.minus(event.was_shadow).plus(event.shadow)
        self._show_scores()

    def _show_scores(self) -> None:
        assert self._live is not None and self._shadow is not None  # noqa: S101 - one was added
        self.facts |= {
            "live": Judged(rows=self._live.rows, figures=self._live.figures()),
            "shadow": Judged(rows=self._shadow.rows, figures=self._shadow.figures()),
            "compared": self._course.compared(self._objective),
        }


class ByHand:
    """Counts rollbacks by people since the first look: moves of the champion to an older version
    that are no run's. One thread looks, any reads ``count``.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seen: int | None = None

    def look(self, registry: Registry, model: str) -> None:
        """Ask the journal."""
        move = journal_of(registry, model).moves.get(CHAMPION)
        sequence, before = move.sequence if move else 0, self._seen
        self._seen = sequence
        if before is None or move is None or sequence == before:
            return
        moves = [AliasMove(**one.data) for one in registry.entries(model)
                 if one.kind is EntryKind.MOVED] if not move.run else []  # fmt: skip
        self.count += sum(
            one.alias == CHAMPION and not one.run and one.sequence > before
            and one.source is not None and one.target < one.source
            for one in moves
        )  # fmt: skip


def registry_facts(registry: Registry, model: str) -> dict[str, Any]:
    """Champion, candidates, lease and hold, as the registry has them now."""
    now: Journal = journal_of(registry, model)
    move = now.moves.get(CHAMPION)
    facts: dict[str, Any] = {
        "holder": f"run {now.lease.run} of {now.lease.holder}" if now.lease else "",
        "held_by": now.hold.actor if now.hold else "",
        "held_reason": now.hold.reason if now.hold else "",
        "mode": mode_of(now),
        "mode_by": now.mode.actor if now.mode else "",
        "mode_reason": now.mode.reason if now.mode else "",
        "proposals": _proposed(now, move.sequence if move else 0),
    }
    try:
        serving = champion_of(registry, model)
    except VersionNotFound as exc:
        return facts | {"no_champion": str(exc)}
    if serving is None:
        return facts | {"no_champion": f"no version of '{model}' has the alias {CHAMPION}"}
    known = move is not None and move.target == serving.version
    facts["champion"] = Champion(
        version=serving.version,
        since=move.at if known and move else "",
        by=move.actor if known and move else "another tool",
        reason=move.reason if known and move else "",
        foreign=isinstance(serving, ForeignVersion),
    )
    own = last_own(registry, model) if isinstance(serving, ForeignVersion) else serving
    facts["as_trained"] = _as_trained(registry, model, own.base)
    ranked = registry.ranked(model, base=own.base)
    best = [one for one, _ in zip(ranked, range(CANDIDATES), strict=False)]
    facts["candidates"] = tuple(
        Candidate(
            version=one.version,
            f1=one.f1,
            rows=one.eval_rows,
            phase=one.phase.value,
            recipe=one.tags.get("selfheal.recipe", ""),
            at=_iso(one.created_ms),
        )
        for one in best
    )
    return facts


def _as_trained(registry: Registry, model: str, base: str) -> Judged | None:
    """Of the baseline that the champion was healed from, where it was measured."""
    number = registry.alias(model, BASELINE)
    baseline = None if number is None else registry.any_version(model, number)
    if not isinstance(baseline, VersionRecord) or baseline.base != base:
        return None
    accuracy = baseline.metrics.get("accuracy")
    if accuracy is None or not baseline.eval_rows:
        return None
    return Judged(rows=baseline.eval_rows, figures={"accuracy": accuracy})


def _proposed(now: Journal, champion: int) -> tuple[Proposed, ...]:
    """What can still be approved."""
    at = now_text()
    return tuple(
        Proposed(
            number=one.sequence, version=one.target, by=one.actor, at=one.at, reason=one.reason,
            expires=one.expires, approved_by=one.approved_by,
        )
        for one in now.proposals
        if not one.loosens and one.is_open(at, champion)
    )  # fmt: skip


def _iso(milliseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
