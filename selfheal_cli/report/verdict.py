"""The verdict of a run in plain words: what happened, and was healing better than doing nothing?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from selfheal_cli.config import Objective
from selfheal_cli.events.types import HealEnded, HealLearned, HealPublished, RolledBack
from selfheal_cli.records import Limit
from selfheal_cli.report.gains import (
    CHANCE,
    COST,
    DIGITS,
    HELPED,
    HURT,
    LESS,
    LITTLE_DIFFERENCE,
    NO_DIFFERENCE,
    FigureGain,
    sentence_of,
    signed,
)
from selfheal_cli.report.gains import (
    UNKNOWN as FEW,
)
from selfheal_cli.report.summary import Gain, RunSummary
from selfheal_cli.scores import AnyScores, Scores

FLAG_NOTHING, FLAG_EVERYTHING = "Flagging nothing", "Flagging everything"
COMMONEST = "Always saying the commonest class"
INDISTINCT = 0.0005  # figures closer than this read the same at three digits


@dataclass(frozen=True, slots=True)
class ResultsLine:
    """One line of the results table; ``recall`` is that at 1 % false positives, if it is told."""

    key: str
    title: str
    scores: AnyScores
    recall: float | None = None

    def as_dict(self, objective: Objective) -> dict[str, Any]:
        """The line as JSON; with its cost per 100 rows where errors have costs."""
        line = {"key": self.key, "title": self.title, **self.scores.as_dict()}
        if objective.kind == "cost" and isinstance(self.scores, Scores):
            line["cost"] = self.scores.cost(objective.fn, objective.fp)
        if self.recall is not None:
            line["recall_at_1pct_fp"] = self.recall
        return line


def limit_line(limit: Limit) -> dict[str, Any]:
    """The Bayes limit as a line: expected figures, no counts."""
    return {"key": "limit", "title": "Limit for any model (exact)", **asdict(limit)}


def verdict(
    stages: Mapping[str, AnyScores], objective: Objective, gains: Sequence[FigureGain] = ()
) -> dict[str, Any]:
    """Did healing help? Per figure, and in one sentence; from the stages unhealed, healed and
    those that decide blindly. Where errors have costs, cost comes first.

    By the ``gains``, which know chance, where the run measured them.
    """
    unhealed, healed = stages["unhealed"], stages["healed"]
    if not healed.rows:
        return {"sentence": "No label is known: nothing can be said of what healing did."}
    if gains:
        return _by_gains(gains) | {"sentence": _sentences(gains) + _blindly(stages, objective)}
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


def _by_gains(gains: Sequence[FigureGain]) -> dict[str, Any]:
    return {one.figure: one.word for one in gains if one.against is None}


def _sentences(gains: Sequence[FigureGain]) -> str:
    """Against the frozen baseline, and against what served when the run began."""
    frozen = [one for one in gains if one.against is None]
    first = [one for one in gains if one.against is not None]
    return " ".join(filter(None, map(sentence_of, (frozen, first))))


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
            title: scores.cost(objective.fn, objective.fp)
            for title, key in ((FLAG_NOTHING, "nothing"), (FLAG_EVERYTHING, "everything"))
            if isinstance(scores := stages[key], Scores)
        }
        title, least = min(blind.items(), key=lambda pair: pair[1])
        own = healed.cost(objective.fn, objective.fp)
        return (
            f" {title} would have cost {least:,.1f} per 100 rows, less than the healed model's "
            f"{own:,.1f}."
            if least < own
            else ""
        )
    told = ""
    if nothing.accuracy > healed.accuracy:
        title = FLAG_NOTHING if isinstance(nothing, Scores) else COMMONEST
        told = (
            f" {title} would have had accuracy {nothing.accuracy:.3f}, above the healed model's "
            f"{healed.accuracy:.3f}."
        )
    everything = stages.get("everything")
    if everything is not None and everything.f1 > healed.f1:
        told += (
            f" {FLAG_EVERYTHING} would have had F1 {everything.f1:.3f}, above the healed model's "
            f"{healed.f1:.3f}."
        )
    return told


def _compare(before: float, after: float) -> str:
    if abs(after - before) < INDISTINCT:
        return "did not change"
    return "helped" if after > before else "hurt"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


BETTER, WORSE, MIXED = "better", "worse", "mixed"
SAME, NONE, UNKNOWN = "same", "none", "unknown"
FIGURES = (COST, "accuracy", "F1", "ROC AUC", "log loss")
BADGES = {
    BETTER: "healing helped",
    WORSE: "healing did harm",
    MIXED: "healing helped and hurt",
    SAME: "no difference made",
    NONE: "nothing was healed",
    UNKNOWN: "not known",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of the stream, without and with healing. ``less`` where lower is better."""

    name: str
    gain: Gain
    digits: int
    less: bool = False

    @property
    def shadow(self) -> str:
        """Doing nothing."""
        return f"{self.gain.shadow:.{self.digits}f}"

    @property
    def live(self) -> str:
        """Healing."""
        return f"{self.gain.live:.{self.digits}f}"

    @property
    def difference(self) -> str:
        """With its sign."""
        return signed(self.gain.difference, self.digits)

    @property
    def interval(self) -> str:
        """Where the difference lies."""
        gain = self.gain
        if gain.low is None or gain.high is None:
            return "too few rows"
        return f"{signed(gain.low, self.digits)} to {signed(gain.high, self.digits)}"

    @property
    def reading(self) -> str:
        """In a word or two."""
        if self.gain.low is None:
            return FEW
        if self.gain.chance or abs(self.gain.difference) < 0.5 * 10**-self.digits:
            return f"{CHANCE} that could not be chance"
        return HELPED if (self.gain.difference < 0) == self.less else HURT


@dataclass(frozen=True, slots=True)
class Telling:
    """What the page says first. ``tone`` colours it, ``badge`` says the same in words;
    ``doubt`` where the stream was too short to tell from chance.
    """

    tone: str
    headline: str
    sentences: tuple[str, ...]
    doubt: bool = False

    @property
    def badge(self) -> str:
        """The tone in words."""
        return BADGES[self.tone] + (", perhaps by chance" if self.doubt else "")


def compared(story: RunSummary) -> list[Compared]:
    """Accuracy and F1, and before them the cost where errors have costs; empty without labels.

    Those that the run measured against the frozen baseline, where it came to an end.
    """
    recorded = _recorded_gains(story)
    if recorded:
        return [
            Compared(
                one.figure,
                Gain(one.before, one.after, one.rows, one.batches, one.low, one.high),
                DIGITS.get(one.figure, 3),
                one.figure in LESS,
            )
            for one in recorded
        ]
    objective = _objective(story)
    measures = []
    if objective.kind == "cost" and _two_classes(story):
        figure: Callable[[AnyScores], float] = partial(_cost, objective=objective)
        measures.append((COST, figure, 1, True))
    measures += [("accuracy", _accuracy, 3, False), ("F1", _f1, 3, False)]
    if objective.kind == "f1":
        measures.reverse()
    gains = [(name, story.gain(figure), digits, less) for name, figure, digits, less in measures]
    return [
        Compared(name, gain, digits, less) for name, gain, digits, less in gains if gain is not None
    ]


def _recorded_gains(story: RunSummary) -> list[FigureGain]:
    end = story.view.finished
    gains = [FigureGain.from_dict(one) for one in (end.compared if end else ())]
    return [one for one in gains if one.against is None]


def telling(story: RunSummary) -> Telling:
    """The verdict, from the results table or, where the run did not get there, from the stream."""
    words, certain = _words(story), _recorded_gains(story)  # words of these know chance
    sentences = [
        *_end(story), *_recorded(story), *_stream(story), *_beside(story), *_made(story),
        *story.experts.sentences(),
    ]  # fmt: skip
    if not story.view.times(HealPublished):
        return Telling(NONE, _no_heal(story), tuple(sentences))
    helped = [name for name, word in words.items() if word == HELPED]
    hurt = [name for name, word in words.items() if word == HURT]
    if words and set(words.values()) == {FEW}:
        tone, headline = UNKNOWN, "Too few rows to tell what healing did from chance"
    elif not words:
        tone, headline = UNKNOWN, "No label is known: whether healing helped cannot be said"
    elif helped and hurt:
        tone, headline = (
            MIXED,
            f"Healing helped {_and_listed(helped)}, and hurt {_and_listed(hurt)}",
        )
    elif helped:
        headline = f"Healing helped: {_and_listed(helped)} better than doing nothing"
        tone = BETTER
    elif hurt:
        headline = f"Healing made it worse: {_and_listed(hurt)} worse than doing nothing"
        tone = WORSE
    else:
        sure = any(one.sure for one in certain)
        tone, headline = SAME, f"Healing made {LITTLE_DIFFERENCE if sure else NO_DIFFERENCE}"
    doubt = not certain and tone in (BETTER, WORSE, MIXED) and _doubt(story, both=tone == MIXED)
    headline += ", though that may be chance" if doubt else ""
    return Telling(tone, headline, tuple(sentences), doubt)


def _words(story: RunSummary) -> dict[str, str]:
    """Helped, hurt or did not change, by figure."""
    end = story.view.finished
    recorded = (end and end.verdict) or {}
    words = {name: recorded[name] for name in FIGURES if name in recorded}
    if words or (end and end.stages):
        return words
    for one in compared(story):
        better = (one.gain.difference < 0) == one.less
        same = abs(one.gain.difference) < 0.5 * 10**-one.digits
        words[one.name] = CHANCE if same else HELPED if better else HURT
    return words


def _end(story: RunSummary) -> list[str]:
    outcome = story.view.finished.outcome if story.view.finished else None
    batches = len(story.view.rows)
    if outcome is None:
        return [f"The run has no end yet: everything below is of its {batches:,} batches so far."]
    if outcome == "KILLED":
        return [f"The run was interrupted: everything below is of its {batches:,} batches."]
    if outcome == "FAILED":
        return [f"The run failed: everything below is of the {batches:,} batches before that."]
    return []


def _recorded(story: RunSummary) -> list[str]:
    end = story.view.finished
    sentence = end.verdict.get("sentence") if end and end.verdict else None
    return [sentence] if sentence and story.view.times(HealPublished) else []


def _stream(story: RunSummary) -> list[str]:
    """The difference on the stream, with its uncertainty; unless the verdict has it."""
    told: list[str] = []
    if _recorded_gains(story):
        return told
    for one in compared(story)[:1]:
        gain = one.gain
        if gain.low is None:
            certainty = f"; {gain.batches} batches are too few for an interval"
        else:
            certainty = f" (95 % interval {one.interval})"
            certainty += "; that may be chance" if gain.chance else ""
        told.append(
            f"On the stream, each row scored before anything learned from it: {one.name} "
            f"{one.live} with healing, {one.shadow} without, {one.difference}{certainty}; "
            f"{gain.rows:,} labelled rows in {gain.batches:,} batches."
        )
    return told


def _doubt(story: RunSummary, *, both: bool) -> bool:
    """Whether the first figure's difference may be chance, or ``both`` that of all figures."""
    comparisons = compared(story)
    return bool(comparisons) and all(
        one.gain.chance for one in (comparisons if both else comparisons[:1])
    )


def _beside(story: RunSummary) -> list[str]:
    """What no model at all, and the best possible one, would have given."""
    told = []
    for line in (story.view.finished and story.view.finished.stages) or ():
        if line["key"] == "nothing":
            told.append(f"“{line['title']}” has accuracy {line['accuracy']:.3f}")
        elif line["key"] == "limit":
            told.append(
                f"no model at all can expect more than accuracy {line['accuracy']:.3f} and F1 "
                f"{line['f1']:.3f}"
            )
    return [f"To hold it against: {_and_listed(told)}."] if told else []


def _made(story: RunSummary) -> list[str]:
    """Heals, rollbacks and versions in one sentence."""
    counts = [
        (story.view.times(HealPublished), "heal"),
        (story.view.times(HealLearned), "heal that changed too little to be published"),
        (_not_served(story), "heal that did not serve"),
        (story.view.times(RolledBack), "rollback"),
        (story.view.versions(), "version"),
    ]
    told = [_plural(count, name) for count, name in counts if count or "that" not in name]
    return [f"{_and_listed(told)} in {_plural(len(story.view.rows), 'batch')}."]


def _not_served(story: RunSummary) -> int:
    return story.view.times(HealEnded) - story.view.times(HealPublished, HealLearned)


def _no_heal(story: RunSummary) -> str:
    refused, learned = _not_served(story), story.view.times(HealLearned)
    if learned:
        return (
            f"No heal was published: {_plural(learned, 'heal')} changed decisions too little to be "
            "worth a version"
        )
    if refused:
        return f"Nothing was healed: {_plural(refused, 'heal')} came to nothing"
    if story.view.config.get("labels", {}).get("regime") == "none":
        return "Nothing was healed: no labels come, and no assumption to heal on was named"
    return "Nothing was healed: no batch gave a reason to"


def _plural(count: int, name: str) -> str:
    if count == 1:
        return f"1 {name}"
    head, _, tail = name.partition(" ")
    several = f"{head}es" if head.endswith("ch") else f"{head}s"
    return f"{count:,} {several}{tail and ' ' + tail}"


def _objective(story: RunSummary) -> Objective:
    return Objective.model_validate(story.view.config.get("objective", {}))


def _two_classes(story: RunSummary) -> bool:
    return all(isinstance(live, Scores) for live, _ in story.parts())


def _accuracy(scores: AnyScores) -> float:
    return scores.accuracy


def _f1(scores: AnyScores) -> float:
    return scores.f1


def _cost(scores: AnyScores, objective: Objective) -> float:
    return scores.cost(objective.fn, objective.fp) if isinstance(scores, Scores) else 0.0


def _and_listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
