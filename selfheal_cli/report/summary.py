"""What a run came to: the results table and one plain sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfheal_cli.config import Objective
from selfheal_cli.records import Limit
from selfheal_cli.scores import AnyScores, Scores

FLAG_NOTHING, FLAG_EVERYTHING = "Flagging nothing", "Flagging everything"
COMMONEST = "Always saying the commonest class"
COST = "cost per 100 rows"
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


def verdict(stages: Mapping[str, AnyScores], objective: Objective) -> dict[str, Any]:
    """Did healing help? Per figure, and in one sentence; from the stages unhealed, healed and
    those that decide blindly. Where errors have costs, cost comes first.
    """
    unhealed, healed = stages["unhealed"], stages["healed"]
    if not healed.rows:
        return {"sentence": "No label is known: nothing can be said of what healing did."}
    told: dict[str, list[str]] = {"helped": [], "hurt": [], "did not change": []}
    words = {}
    for name, before, after in _compared(unhealed, healed, objective):
        word = _compare(before, after)
        if name == COST:
            word = {"helped": "hurt", "hurt": "helped"}.get(word, word)
        words[name] = word
        digits = 1 if name == COST else 3
        told[word].append(f"{name} ({before:,.{digits}f} to {after:,.{digits}f})")
    parts = [f"{word} {_listed(names)}" for word, names in told.items() if names]
    sentence = f"Healing {_listed(parts)} on {healed.rows:,} rows."
    return {"sentence": sentence + _blindly(stages, objective), **words}


def _compared(
    unhealed: AnyScores, healed: AnyScores, objective: Objective
) -> Iterator[tuple[str, float, float]]:
    """Figures with their value before and after."""
    if objective.kind == "cost" and isinstance(unhealed, Scores) and isinstance(healed, Scores):
        fn, fp = objective.fn, objective.fp
        yield COST, unhealed.cost(fn, fp), healed.cost(fn, fp)
    yield "accuracy", unhealed.accuracy, healed.accuracy
    yield "F1", unhealed.f1, healed.f1
    if unhealed.roc_auc is not None and healed.roc_auc is not None:
        yield "ROC AUC", unhealed.roc_auc, healed.roc_auc


def _blindly(stages: Mapping[str, AnyScores], objective: Objective) -> str:
    """What deciding without a model would have given, where that is better."""
    healed, nothing = stages["healed"], stages["nothing"]
    if objective.kind == "cost" and isinstance(healed, Scores):
        blind = {
            title: found.cost(objective.fn, objective.fp)
            for title, key in ((FLAG_NOTHING, "nothing"), (FLAG_EVERYTHING, "everything"))
            if isinstance(found := stages[key], Scores)
        }
        title, least = min(blind.items(), key=lambda pair: pair[1])
        own = healed.cost(objective.fn, objective.fp)
        return (
            f" {title} would have cost {least:,.1f} per 100 rows, less than the healed model's "
            f"{own:,.1f}."
            if least < own
            else ""
        )
    if nothing.accuracy <= healed.accuracy:
        return ""
    title = FLAG_NOTHING if isinstance(nothing, Scores) else COMMONEST
    return (
        f" {title} would have had accuracy {nothing.accuracy:.3f}, above the healed model's "
        f"{healed.accuracy:.3f}."
    )


def _compare(before: float, after: float) -> str:
    if abs(after - before) < SAME:
        return "did not change"
    return "helped" if after > before else "hurt"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
