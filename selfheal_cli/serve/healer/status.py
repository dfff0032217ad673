"""What the healer says of itself on the board, folded from the run's events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from selfheal_cli.errors import VersionNotFound
from selfheal_cli.events.types import Event, Kind
from selfheal_cli.pipeline.stream.session import APART
from selfheal_cli.records import AliasMove, ForeignVersion
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind
from selfheal_cli.registry.journal import JournalState as Journal
from selfheal_cli.registry.journal import standing as journal_of
from selfheal_cli.rollback.plan import champion_of, last_own
from selfheal_cli.scores import AnyScores, scores_from
from selfheal_cli.serve.operator.status import Candidate, Champion, Drift, Happening, Judged

HAPPENINGS = 20
CANDIDATES = 8
OUTCOMES = {
    Kind.HEAL: "healed",
    Kind.HEAL_REJECTED: "rejected",
    Kind.HEAL_REFUSED: "refused",
    Kind.HEAL_FAILED: "failed",
    Kind.HEAL_COALESCED: "coalesced",
}


class EventFold:
    """A run's events as an operator wants to see them. One thread adds, any reads a copy."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._heals: Counter[str] = Counter()
        self._feature, self._threshold = "", 0.0
        self._live: AnyScores | None = None
        self._shadow: AnyScores | None = None
        self._labels = 0
        self._rows = 0
        self._rollbacks = 0
        self._notes: Counter[str] = Counter()
        self._happened: deque[Happening] = deque(maxlen=HAPPENINGS)

    def add(self, event: Event) -> None:
        """Take the next event."""
        data = event.data
        if event.kind is Kind.RUN_STARTED:
            self._threshold = data["config"]["policy"]["fidi_threshold"]
            self.facts |= {"run_id": data["run_id"]}
        elif event.kind is Kind.TRAINED:
            self._feature = data["sensitive"]
        elif event.kind is Kind.BATCH:
            self._batch(data)
            self._note(data.get("left_out", {}))
        elif event.kind is Kind.BATCH_SET_APART:
            self._note({APART: data["rows"]})
        elif event.kind is Kind.LABELS:
            self._judge(data, event.at)
        elif event.kind in OUTCOMES:
            self._heals[OUTCOMES[event.kind]] += 1
            self.facts["heals"] = dict(self._heals)
        elif event.kind is Kind.ROLLBACK:
            self._rollbacks += 1
            self.facts["rollbacks"] = self._rollbacks
        text = _words(event)
        if text:
            self._happened.appendleft(Happening(at=event.at, kind=event.kind.value, text=text))
            self.facts["happenings"] = tuple(self._happened)

    def _batch(self, data: Mapping[str, Any]) -> None:
        self._rows += data["rows"]
        drift = Drift(
            feature=self._feature, z=data["z"], threshold=self._threshold,
            drifting=data["drifting"],
        )  # fmt: skip
        readings = data.get("monitors", {})
        self.facts |= {
            "state": data["state"],
            "batch": data["batch"],
            "rows": self._rows,
            "drift": drift,
            "conflicts": data["conflicts"],
            "pending_writes": data["pending_writes"],
            "monitors": {name: one["value"] for name, one in readings.items()},
            "alarms": tuple(name for name, one in readings.items() if one["level"] == "alarm"),
        }

    def _note(self, counts: Mapping[str, int]) -> None:
        if counts:
            self._notes.update(counts)
            self.facts["notes"] = dict(self._notes)

    def _judge(self, data: Mapping[str, Any], at: str) -> None:
        live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
        self._live = live if self._live is None else self._live.plus(live)
        self._shadow = shadow if self._shadow is None else self._shadow.plus(shadow)
        self._labels += data["rows"]
        self.facts |= {
            "live": Judged(rows=self._live.rows, figures=self._live.figures()),
            "shadow": Judged(rows=self._shadow.rows, figures=self._shadow.figures()),
            "labels": self._labels,
            "labels_at": at,
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


def _iso(milliseconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _words(event: Event) -> str:
    """One line for a person; empty for what nobody needs to read."""
    data = event.data
    words = {
        Kind.HEAL: lambda: f"heal {data['heal_id']} serves ({data['reason']})",
        Kind.HEAL_REJECTED: lambda: f"heal {data['heal_id']} held back: {data['rejected']}",
        Kind.HEAL_REFUSED: lambda: f"heal {data['heal_id']} refused: {data['reason']}",
        Kind.HEAL_FAILED: lambda: f"heal {data['heal_id']} failed: {data['reason']}",
        Kind.BATCH_SET_APART: lambda: f"batch {data['batch']} set apart: {data['reason']}",
        Kind.QUARANTINED: lambda: f"implausible labels in batch {data['batch']}",
        Kind.MONITOR_ALARM: lambda: f"monitor {data.get('monitor', '')} alarms",
        Kind.ROLLBACK: lambda: f"rolled back to v{data['version']}: {data['reason']}",
        Kind.ROLLBACK_FAILED: lambda: f"no rollback: {data['error']}",
        Kind.ROLLBACK_DECLINED: lambda: f"no rollback: {data['declined']}",
        Kind.FOLLOWED: lambda: (
            f"does not follow v{data['version']} of {data['actor']}: {data['error']}"
            if "error" in data
            else f"follows v{data['version']} of {data['actor']}: {data['reason']}"
        ),
        Kind.HEALING_HELD: lambda: f"healing held by {data['actor']}: {data['reason']}",
        Kind.HEALING_RELEASED: lambda: f"healing allowed again: {data['reason']}",
    }.get(event.kind)
    return words() if words else ""
