"""A span for each heal, folded from the events of the run that heals."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from selfheal_cli.history.events import Event, Kind
from selfheal_cli.serve.tracing import Tracing

OUTCOMES = {
    Kind.HEAL: "healed",
    Kind.HEAL_REJECTED: "rejected",
    Kind.HEAL_REFUSED: "refused",
    Kind.HEAL_FAILED: "failed",
    Kind.HEAL_COALESCED: "coalesced",
}
BATCHES = 1_000  # whose times are remembered


class HealSpans:
    """A heal begins when its batch was looked at, and ends with what became of it."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._recipe = ""
        self._begun: OrderedDict[int, float] = OrderedDict()

    def add(self, event: Event) -> None:
        """Take the run's next event."""
        data, at = event.data, datetime.fromisoformat(event.at).timestamp()
        if event.kind is Kind.RUN_STARTED:
            self._recipe = data["config"]["heal"]["recipe"]
            self._begun.clear()
        elif event.kind is Kind.BATCH:
            self._begun[data["batch"]] = at
            if len(self._begun) > BATCHES:
                self._begun.popitem(last=False)
        elif event.kind in OUTCOMES:
            attributes: dict[str, str | int] = {
                "selfheal.heal_id": str(data["heal_id"]),
                "selfheal.batch": data["batch"],
                "selfheal.outcome": OUTCOMES[event.kind],
                "selfheal.recipe": str(data.get("recipe") or self._recipe),
            }
            rows = (data.get("after") or {}).get("rows")
            if rows is not None:
                attributes["selfheal.judged_rows"] = rows
            if data.get("to_snapshot"):
                attributes["selfheal.snapshot"] = str(data["to_snapshot"])
            failed = str(data["reason"]) if event.kind is Kind.HEAL_FAILED else ""
            begun = self._begun.get(data["batch"], at)
            self._tracing.record("heal", begun, at, attributes, failed=failed)
