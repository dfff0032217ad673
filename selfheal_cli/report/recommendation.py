"""What a person should do about the serving version: one answer, wherever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.events.evidence import LEVEL, POSITIVES, WINDOW, Evidence, PairedGain
from selfheal_cli.events.state import RunView


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Whether to go back to an earlier version, and why or why not, in one sentence.

    ``back`` is true where ``selfheal rollback --to-best`` would go back; ``version`` is the number
    of its target, None where the registry has given none yet.
    """

    back: bool
    sentence: str
    version: int | None = None


def recommend(view: RunView) -> Recommendation:
    """By the paired comparison that the run kept; the article's recipe keeps none."""
    if not view.evidence.batches:
        return Recommendation(False, "No version was held against the serving one.")
    best = next(iter(view.evidence.gains()), None)
    if best is None or not best.certain:
        return Recommendation(False, stay(view.evidence, best))
    row = view.snapshots.get(best.snapshot)
    version = row.version if row is not None else view.evidence.versions.get(best.snapshot)
    named = f"v{version}" if version is not None else "An earlier version"
    return Recommendation(True, f"{named} {was_better(best)}.", version)


def was_better(gain: PairedGain) -> str:
    """The evidence for a version, to be read after its name."""
    return (
        f"would have had a lower log loss than what served: by {gain.gain:.4f} a row, at least "
        f"{gain.low:.4f} with {1 - LEVEL:.0%} certainty, {_rows(gain)}"
    )


def stay(evidence: Evidence, best: PairedGain | None) -> str:
    """Why nothing else should serve."""
    if not evidence.window():
        return (
            f"Too few labelled rows to say whether another version is better: {WINDOW} batches "
            f"with {POSITIVES} {evidence.few} are needed."
        )
    if best is None:
        return "No version is better than the serving one: no other is old enough to be asked."
    how = f"{abs(best.gain):.4f} a row {'less, which may be chance' if best.gain > 0 else 'more'}"
    return (
        "No version is better than the serving one: the best of the others would have lost "
        f"{how} (log loss, {_rows(best)})."
    )


def _rows(gain: PairedGain) -> str:
    return (
        f"on the latest {gain.rows:,} labelled rows ({gain.batches} batches, {gain.positives:,} "
        f"{gain.few}; {gain.candidates} {'version' if gain.candidates == 1 else 'versions'} asked)"
    )
