"""What a run says of its canaries, as an operator wants to see it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.events.state import RunState
from selfheal_cli.serve.operator.status import Trial

OF_TRIALS = (
    events.VersionRegistered, events.CanaryBegan, events.CanaryOrdered, events.CanaryResumed,
    events.CanaryCompared, events.CanaryEnded,
)  # fmt: skip

Begun = events.CanaryBegan | events.CanaryOrdered | events.CanaryResumed


class Trials:
    """The canary that runs, folded from a run's events in their order."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._now: Trial | None = None
        self._ended: Counter[str] = Counter()
        self._versions: dict[str, int] = {}

    def told(self, event: Event) -> dict[str, Any]:
        """What there is to be said after the next event."""
        match event:
            case events.VersionRegistered():
                self._versions = {event.snapshot: event.version}
                if self._now is not None and self._now.snapshot == event.snapshot:
                    self._now = self._now.model_copy(update={"version": event.version})
            case events.CanaryBegan():
                version = self._versions.get(event.to_snapshot)
                self._now = self._begun(event, event.to_snapshot, version)
            case events.CanaryOrdered():
                self._now = self._begun(event, event.snapshot, event.version)
            case events.CanaryResumed():
                self._now = self._begun(event, event.snapshot, event.version).model_copy(
                    update=_figures(event.seen, event.rows)
                )
            case events.CanaryCompared() if self._now is not None:
                figures = _figures(event.seen, event.rows_in_all)
                bounds = {"low": event.low, "high": event.high}
                self._now = self._now.model_copy(update=figures | bounds)
            case events.CanaryEnded():
                self._now = None
                self._ended[event.outcome] += 1
        return {"canary": self._now, "canaries": dict(self._ended)}

    def _begun(self, event: Begun, snapshot: str, version: int | None) -> Trial:
        policy = self._run.config.get("policy", {})
        return Trial(
            version=version, snapshot=snapshot, share=event.share, by=event.by,
            since=_iso(event.since), until=_iso(event.until),
            margin=policy.get("canary_margin", 0.0), level=policy.get("canary_level", 0.95),
        )  # fmt: skip


def _figures(seen: Any, rows: int) -> dict[str, Any]:
    batches = int(seen["count"])
    return {"batches": batches, "rows": rows, "difference": seen["mean"] if batches else None}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
