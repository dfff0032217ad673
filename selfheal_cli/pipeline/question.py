"""What the registry is asked when heals have fallen: which version is best, and its weights."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from selfheal_cli.heal.task import HealRows
from selfheal_cli.model.network import Weights
from selfheal_cli.records import VersionRecord


@dataclass(frozen=True, slots=True)
class Best:
    """The best version that is what its run wrote down; ``passed_over`` says what others were."""

    version: VersionRecord
    weights: Weights
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fallen:
    """A heal after which it was time to roll back, and why."""

    heal_id: str
    batch: int
    reason: str


class Question:
    """``find`` asks the registry, in a thread of its own once `begin` was called.

    ``rows`` are those by which the version will be compared with what serves.
    """

    def __init__(self, fallen: Fallen, rows: HealRows, find: Callable[[], Best]) -> None:
        self.fallen = fallen
        self.rows = rows
        self._find = find
        self._answer: Future[Best] | None = None

    def begin(self) -> Future[Best]:
        """Ask, unless it is being asked; the answer raises what the registry raised."""
        if self._answer is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="question")
            self._answer = thread.submit(self._find)
            thread.shutdown(wait=False)
        return self._answer
