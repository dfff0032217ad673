"""States of segments in a file, so that memory holds no more than the one that learns."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.anytime import RunningMean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]
    Weights = Mapping[str, Tensor]

STATE = "segment."  # prefix of the states in what is remembered
WHOLE = "whole."
EVIDENCE, LAST = "segments.evidence", "segments.last"
NEVER = -1


class Shelf:
    """A temporary file with places of one size; it goes with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="selfheal-segments-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._free: list[int] = []
        self._places = 0

    def put(self, state: Matrix) -> StoredState:
        """Write a state (size,) down; its place is free again once nobody holds it."""
        if self._free:
            place = self._free.pop()
        else:
            place, self._places = self._places, self._places + 1
        os.pwrite(self._file.fileno(), state.tobytes(), place * state.nbytes)
        shelved = StoredState(self, place, len(state))
        weakref.finalize(shelved, self._free.append, place)
        return shelved

    def __deepcopy__(self, memo: dict[int, Any]) -> Shelf:
        """Itself: what goes its own way from here writes to places of its own."""
        return self

    def read(self, place: int, size: int) -> Matrix:
        """The state at a place."""
        data = os.pread(self._file.fileno(), 8 * size, place * 8 * size)
        return np.frombuffer(data, dtype=np.float64)


class StoredState:
    """One state in the file."""

    def __init__(self, shelf: Shelf, place: int, size: int) -> None:
        self._shelf, self._place, self._size = shelf, place, size

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredState:
        """Itself: it never changes."""
        return self

    def read(self) -> Matrix:
        """The state (size,)."""
        return self._shelf.read(self._place, self._size)


@dataclass(frozen=True, slots=True)
class OwnEvidence:
    """By how much what a segment has learned was ``worse`` than what it is answered, log loss on
    rows before either learned from them, since it is answered by the adapter ``against``.

    ``against`` is 48 bits of that adapter's hash.
    """

    against: int
    worse: RunningMean


@dataclass(frozen=True, slots=True)
class Remembered(Mapping[str, Tensor]):
    """What is kept from heal to heal: what the recipe of all rows remembers, each segment's state
    and the evidence for it, by its code, and the last arrival learned.

    As a mapping it is what another process is sent; states are read when they are asked for.
    """

    whole: Weights
    states: Mapping[int, StoredState | Matrix]
    evidence: Mapping[int, OwnEvidence]
    last: int = NEVER

    @classmethod
    def of(cls, memory: Weights) -> Remembered:
        """From a mapping."""
        if isinstance(memory, cls):
            return memory
        parts: dict[str, dict[str, Tensor]] = {WHOLE: {}, STATE: {}}
        for name, value in memory.items():
            for prefix, part in parts.items():
                if name.startswith(prefix):
                    part[name.removeprefix(prefix)] = value
        states = {int(code): value.numpy() for code, value in parts[STATE].items()}
        last = int(memory[LAST][0]) if LAST in memory else NEVER
        return cls(parts[WHOLE], states, _evidence_in(memory), last)

    def state(self, code: int) -> Matrix | None:
        """A segment's; None where it has none."""
        state = self.states.get(code)
        return state.read() if isinstance(state, StoredState) else state

    def __getitem__(self, name: str) -> Tensor:
        if name == LAST:
            return torch.tensor([self.last])
        if name == EVIDENCE:
            rows = [(code, one.against, *astuple(one.worse)) for code, one in self.evidence.items()]
            return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 5)
        if name.startswith(WHOLE):
            return self.whole[name.removeprefix(WHOLE)]
        state = self.state(int(name.removeprefix(STATE)))
        if state is None:
            raise KeyError(name)
        return torch.from_numpy(state.copy())

    def __iter__(self) -> Iterator[str]:
        yield from (f"{WHOLE}{name}" for name in self.whole)
        yield from (f"{STATE}{code}" for code in self.states)
        yield from (EVIDENCE, LAST)

    def __len__(self) -> int:
        return len(self.whole) + len(self.states) + 2

    def without(self, codes: Any) -> Remembered:
        """The same, these segments begin anew."""
        kept = {code: one for code, one in self.states.items() if code not in codes}
        shown = {code: one for code, one in self.evidence.items() if code not in codes}
        return Remembered(self.whole, kept, shown, self.last)


def _evidence_in(memory: Weights) -> dict[int, OwnEvidence]:
    rows = memory[EVIDENCE].tolist() if EVIDENCE in memory else []
    return {
        int(code): OwnEvidence(int(against), RunningMean(int(count), mean, squares))
        for code, against, count, mean, squares in rows
    }
