"""What a run came to: the results table and one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfheal_cli.records import Limit, Scores

SAME = 0.0005  # figures closer than this read the same at three digits


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the results table."""

    key: str
    title: str
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """The line as JSON."""
        return {"key": self.key, "title": self.title, **self.scores.as_dict()}


def limit_line(limit: Limit) -> dict[str, Any]:
    """The Bayes limit as a line: expected figures, no counts."""
    return {"key": "limit", "title": "Limit for any model (exact)", **asdict(limit)}


def verdict(unhealed: Scores, healed: Scores, nothing: Scores) -> dict[str, Any]:
    """Did healing help? Per figure, and in one sentence."""
    figures = {
        "accuracy": (unhealed.accuracy, healed.accuracy),
        "F1": (unhealed.f1, healed.f1),
        "ROC AUC": (unhealed.roc_auc, healed.roc_auc),
    }
    told: dict[str, list[str]] = {"helped": [], "hurt": [], "did not change": []}
    words = {}
    for name, (before, after) in figures.items():
        if before is None or after is None:
            continue
        word = _compare(before, after)
        words[name] = word
        told[word].append(f"{name} ({before:.3f} to {after:.3f})")
    parts = [f"{word} {_listed(names)}" for word, names in told.items() if names]
    sentence = f"Healing {_listed(parts)} on {healed.rows:,} rows."
    if nothing.accuracy > healed.accuracy:
        sentence += (
            f" Flagging nothing would have had accuracy {nothing.accuracy:.3f}, above the healed "
            f"model's {healed.accuracy:.3f}."
        )
    return {"sentence": sentence, **words}


def _compare(before: float, after: float) -> str:
    if abs(after - before) < SAME:
        return "did not change"
    return "helped" if after > before else "hurt"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
