"""What a run that is gone through again did the first time.

The rooms of a stream are deterministic in the rows and in a few answers from outside (what the
registry called best, when a heal's worker was done, what somebody else moved). So a run is resumed
or checked by walking the same rows again: every event must be the recorded one, and the answers
from outside are taken from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from selfheal_cli import __version__
from selfheal_cli.config import RunConfig
from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import FIRST_FORMAT, FORMAT, Event, OfBatch
from selfheal_cli.events.log import keys_of
from selfheal_cli.events.types import (
    AliasMoved,
    MoveRefused,
    ProposalMade,
    RunFinished,
    RunResumed,
    RunStarted,
    VersionRegistered,
)
from selfheal_cli.model.build import numeric_build, why_other_bytes
from selfheal_cli.pipeline.record.own_parts import own_parts

# what the registry's writer, or the run's own end, wrote between the stream's events
BESIDE = (VersionRegistered, AliasMoved, MoveRefused, ProposalMade, RunFinished, RunResumed)
BY_CHANCE = ("pending_writes",)  # depends on how fast the registry was
# what earlier records do not have: they still can be gone through
LATER = ("shifts", "features", "features_in_all")


def run_started(
    run_id: str, model: str, actor: str, champion_move: int, config: RunConfig, adapter: str
) -> RunStarted:
    """A run's first words, with what writes its record; ``adapter`` is the network's."""
    return RunStarted(
        run_id=run_id,
        model=model,
        actor=actor,
        champion_move=champion_move,
        config=config.model_dump(mode="json"),
        versions={
            "selfheal": __version__, "mlflow": version("mlflow"), "torch": version("torch")
        },
        format=FORMAT,
        build=numeric_build(),
        parts=own_parts(config, adapter) or (),
    )  # fmt: skip


class RecordedEvents:
    """The events of a log, to be matched one after the other.

    ``beside`` takes those that are not the stream's own, in their place.
    """

    def __init__(
        self,
        events: Iterable[Event],
        beside: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._events = iter(events)
        self._beside = beside
        self._started: RunStarted | None = None
        self.expected: Event | None = None  # the next of the stream; None where the record ends
        self._advance()

    def match(self, event: Event) -> Event | None:
        """The recorded event, None where the record ends.

        Raises `EventLogError` where something else was recorded.
        """
        recorded = self.expected
        if recorded is None:
            return None
        if isinstance(event, RunStarted) and isinstance(recorded, RunStarted):
            self._started = recorded  # what a run is told is taken from there
        elif type(event) is not type(recorded) or _plain(recorded) != self._as_of(recorded, event):
            raise EventLogError(
                f"event {recorded.sequence}: recorded was {_told(recorded)}, the same rows now "
                f"give {_told(event)}{self._difference(recorded, event)}; "
                f"{why_other_bytes(self._started) if self._started else 'it has no beginning'}"
            )
        self._advance()
        return recorded

    def _as_of(self, recorded: Event, event: Event) -> dict[str, Any]:
        """What a record of its age would have held."""
        before, now = recorded.as_dict(), _plain(event)
        older = (self._started.format if self._started else FIRST_FORMAT) < FORMAT
        new = {name for name in (now if older else LATER) if name not in before}
        return {name: value for name, value in now.items() if name not in new}

    def _difference(self, recorded: Event, event: Event) -> str:
        """The first value that differs."""
        before, after = _plain(recorded), self._as_of(recorded, event)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                return f" ({name} was {before.get(name)!r}, is {after.get(name)!r})"[:300]
        return ""

    def _advance(self) -> None:
        for event in self._events:
            if not isinstance(event, BESIDE):
                self.expected = event
                return
            self._beside(event)
        self.expected = None


def _plain(event: Event) -> dict[str, Any]:
    """Its keys as they come back from a log."""
    return {name: value for name, value in keys_of(event).items() if name not in BY_CHANCE}


def _told(event: Event) -> str:
    return f"'{event.kind}'" + (f" of batch {event.batch}" if isinstance(event, OfBatch) else "")
