"""Segments' own adapters beside what another recipe heals for all rows.

What all rows' adapter says, the one that serves, is an expert in each segment's mixture: a heal has
it predict the rows whose labels came, charges it and the segment's own experts for that, lets these
learn, and only then goes on to the next rows. Where the segments move alike it counts for nearly
all, where they move apart each goes its own way. What the mixture said of rows before it learned
from them is held against what their segment was answered: the evidence by which it is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from selfheal_cli.anytime import RunningMean
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.experts.segment import SegmentDesign
from selfheal_cli.heal.experts.shelf import OwnEvidence, Remembered, Shelf, StoredState
from selfheal_cli.heal.gate import log_losses
from selfheal_cli.heal.shards import SegmentRows, Shards
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask, require_finite
from selfheal_cli.model.mixture import LEAST
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.segmented import apart, margins_of_p, replaced, together
from selfheal_cli.segment_keys import CODE_COLUMNS, as_codes, whole_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Matrix = NDArray[np.float64]
    Codes = NDArray[np.int64]


class HealsAll(Protocol):
    """The recipe that heals for all rows."""

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`."""


class Segmented:
    """A `Recipe` around that of all rows."""

    def __init__(
        self, network: SelfHealingNetwork, anchor: Anchor, whole: HealsAll, shards: Shards
    ) -> None:
        size = network.architecture
        self._network, self._whole_network, self._recipe = network, network.whole, whole
        margins = max(1, size.outputs - 1)
        self._design = SegmentDesign.of(anchor, tuple(size.directions), margins)
        self._shards, self._shelf = shards, Shelf()

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures what the recipe of all rows does, how many segments have an
        adapter, and how many of them learned.
        """
        weights, own = apart(before.weights)
        known, rows = Remembered.of(before.memory), task.rows
        answered = self._network.with_adapter(before.weights).predict_features(rows.features)
        plain = replace(task, rows=replace(rows, features=rows.features[:, :-CODE_COLUMNS]))
        outcome = self._recipe.heal(AdapterState(weights, known.whole), plain)
        new = (rows.y >= 0) & (rows.arrival > known.last)
        fresh = rows.where(new)
        learned = self._learn(known, before.weights, fresh, answered[new])
        after = together(outcome.after.weights, _with(own, learned))
        require_finite(after, task, "check the rows of the window")
        states = {**known.states, **{code: one.state for code, one in learned.items()}}
        last = int(fresh.arrival[-1]) if len(fresh) else known.last
        shown = {**known.evidence, **{code: one.evidence for code, one in learned.items()}}
        memory = Remembered(outcome.after.memory, states, shown, last)
        return HealOutcome(
            task,
            AdapterState(after, memory),
            answered,
            self._network.with_adapter(after).predict_features(rows.features),
            {**outcome.measured, "segments": float(len(states)), "segments_learned": len(learned)},
        )

    def _learn(
        self, known: Remembered, serving: Weights, rows: HealRows, answered: FloatArray
    ) -> dict[int, _Learned]:
        """What each segment has learned of labelled rows that came since, by its code; these were
        ``answered``, (n,) or (n, K), by what is ``serving``.
        """
        if not len(rows):
            return {}
        code = whole_code(rows.features[:, -CODE_COLUMNS:])
        plain = np.ascontiguousarray(rows.features[:, :-CODE_COLUMNS])
        weights, own = apart(serving)
        p = self._whole_network.with_adapter(weights).predict_features(plain)
        margin = margins_of_p(torch.from_numpy(p)).numpy()
        a = self._design.rows(plain, margin)
        lost = np.minimum(log_losses(answered, rows.y), -np.log(LEAST))
        serves = by_code(own)
        shown: dict[int, OwnEvidence] = {}

        def fresh() -> Iterator[SegmentRows]:
            for one, places in _places(code):
                if rows.held_out[places].all():
                    continue
                shown[one] = _evidence_against(serves.get(one, b""), known.evidence.get(one))
                yield SegmentRows(
                    one, known.state(one), shown[one].worse, a[places], margin[places],
                    rows.y[places], lost[places], rows.arrival[places], rows.held_out[places],
                )  # fmt: skip

        learned = {
            one.code: _Learned(
                one.share,
                one.theta,
                self._shelf.put(one.state),
                replace(shown[one.code], worse=one.worse),
            )
            for one in self._shards.learn(self._design, fresh())
        }
        return {code: learned[code] for code in shown}


@dataclass(frozen=True, slots=True)
class _Learned:
    """A segment's adapter, its state, and what speaks for it."""

    share: NDArray[np.float32]
    theta: NDArray[np.float32]
    state: StoredState
    evidence: OwnEvidence


def _evidence_against(adapter: bytes, before: OwnEvidence | None) -> OwnEvidence:
    """The evidence so far against the adapter that serves a segment; it begins with that."""
    against = int.from_bytes(blake2b(adapter, digest_size=6).digest())
    if before is not None and before.against == against:
        return before
    return OwnEvidence(against, RunningMean())


def _with(own: Weights, learned: Mapping[int, _Learned]) -> Weights:
    """The tensors of segments' own adapters, with what was learned."""
    if not learned:
        return own
    fresh = {
        "code": as_codes(np.array(list(learned), dtype=np.int64)),
        "share": np.stack([one.share for one in learned.values()]),
        "theta": np.stack([one.theta for one in learned.values()]),
    }
    return replaced(own, {name: torch.from_numpy(one) for name, one in fresh.items()}, learned)


def still_known(before: AdapterState, weights: Weights) -> Weights:
    """What is remembered once ``weights`` serve instead: all but the states of segments whose own
    adapter is another, where that of all rows is the same; else nothing.
    """
    (whole, own), (other, others) = apart(before.weights), apart(weights)
    if not own or "code" not in own or whole.keys() != other.keys():
        return {}
    if not all(torch.equal(one, other[name]) for name, one in whole.items()):
        return {}
    held, now = by_code(own), by_code(others)
    changed = {code for code in held.keys() | now.keys() if held.get(code) != now.get(code)}
    return Remembered.of(before.memory).without(changed)


def by_code(own: Weights) -> dict[int, bytes]:
    """Each segment's own adapter as bytes, from the tensors of all."""
    codes = whole_code(own["code"].numpy()).tolist()
    parts = [own[name].numpy() for name in ("share", "theta")]
    return {code: b"".join(one[at].tobytes() for one in parts) for at, code in enumerate(codes)}


def _places(code: Codes) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each segment with the places of its rows, in their order; rows of none are left out."""
    order = np.argsort(code, kind="stable")
    order = order[code[order] >= 0]
    for places in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if len(places):
            yield int(code[places[0]]), places
