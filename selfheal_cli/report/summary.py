"""What a run came to: the results table and one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfheal_cli.config import Objective
from selfheal_cli.records import Limit
from selfheal_cli.scores import AnyScores, Scores

FLAG_NOTHING, COMMONEST = "Flagging nothing", "Always saying the commonest class"
SAME = 0.0005  # figures closer than this read the same at three digits


@dataclass(frozen=True, slots=True)
class Stage:
    """One line of the results table."""

    key: str
    title: str
    scores: AnyScores

    def as_dict(self, objective: Objective) -> dict[str, Any]:
        """The line as JSON; with its cost per 100 rows where errors have costs."""
        line = {"key": self.key, "title": self.title, **self.scores.as_dict()}
        if objective.kind == "cost" and isinstance(self.scores, Scores):
            line["cost"] = self.scores.cost(objective.fn, objective.fp)
        return line


def limit_line(limit: Limit) -> dict[str, Any]:
    """The Bayes limit as a line: expected figures, no counts."""
    return {"key": "limit", "title": "Limit for any model (exact)", **asdict(limit)}


def verdict(stages: Mapping[str, AnyScores]) -> dict[str, Any]:
    """Did healing help? Per figure, and in one sentence; from the stages unhealed, healed and
    nothing.
    """
    unhealed, healed, nothing = (stages[key] for key in ("unhealed", "healed", "nothing"))
    if not healed.rows:
        return {"sentence": "No label is known: nothing can be said of what healing did."}
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
        always = FLAG_NOTHING if isinstance(nothing, Scores) else COMMONEST
        sentence += (
            f" {always} would have had accuracy {nothing.accuracy:.3f}, above the healed "
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
