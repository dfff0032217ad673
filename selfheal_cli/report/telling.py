"""The verdict of a run in plain words: what happened, and was healing better than doing nothing?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from selfheal_cli.config import Objective
from selfheal_cli.history.events import Kind
from selfheal_cli.report.story import Gain, Story
from selfheal_cli.report.summary import COST
from selfheal_cli.scores import AnyScores, Scores

BETTER, WORSE, MIXED = "better", "worse", "mixed"
SAME, NONE, UNKNOWN = "same", "none", "unknown"
FIGURES = (COST, "accuracy", "F1", "ROC AUC")
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
        return _signed(self.gain.difference, self.digits)

    @property
    def interval(self) -> str:
        """Where the difference lies with 95 % certainty."""
        gain = self.gain
        if gain.low is None or gain.high is None:
            return "too few batches"
        return f"{_signed(gain.low, self.digits)} to {_signed(gain.high, self.digits)}"

    @property
    def reading(self) -> str:
        """In a word or two."""
        better = self.gain.difference < 0 if self.less else self.gain.difference > 0
        if abs(self.gain.difference) < 0.5 * 10**-self.digits:
            return "no difference"
        word = "better" if better else "worse"
        if self.gain.low is None:
            return f"{word}, certainty not known"
        return f"{word}, but may be chance" if self.gain.chance else f"{word}, beyond chance"


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


def compared(story: Story) -> list[Compared]:
    """Accuracy and F1, and before them the cost where errors have costs; empty without labels."""
    objective = _objective(story)
    found = []
    if objective.kind == "cost" and _two_classes(story):
        figure: Callable[[AnyScores], float] = partial(_cost, objective=objective)
        found.append((COST, figure, 1, True))
    found += [("accuracy", _accuracy, 3, False), ("F1", _f1, 3, False)]
    if objective.kind == "f1":
        found.reverse()
    gains = [(name, story.gain(figure), digits, less) for name, figure, digits, less in found]
    return [
        Compared(name, gain, digits, less) for name, gain, digits, less in gains if gain is not None
    ]


def telling(story: Story) -> Telling:
    """The verdict, from the results table or, where the run did not get there, from the stream."""
    words = _words(story)
    sentences = [
        *_end(story), *_recorded(story), *_stream(story), *_beside(story), *_made(story)
    ]  # fmt: skip
    if not _count(story, Kind.HEAL):
        return Telling(NONE, _no_heal(story), tuple(sentences))
    helped = [name for name, word in words.items() if word == "helped"]
    hurt = [name for name, word in words.items() if word == "hurt"]
    if not words:
        tone, headline = UNKNOWN, "No label is known: whether healing helped cannot be said"
    elif helped and hurt:
        tone, headline = MIXED, f"Healing helped {_listed(helped)}, and hurt {_listed(hurt)}"
    elif helped:
        headline = f"Healing helped: {_listed(helped)} better than doing nothing"
        tone = BETTER
    elif hurt:
        headline = f"Healing made it worse: {_listed(hurt)} worse than doing nothing"
        tone = WORSE
    else:
        tone, headline = SAME, "Healing changed nothing that can be measured"
    doubt = tone in (BETTER, WORSE, MIXED) and _doubt(story, both=tone == MIXED)
    headline += ", though that may be chance" if doubt else ""
    return Telling(tone, headline, tuple(sentences), doubt)


def _words(story: Story) -> dict[str, str]:
    """Helped, hurt or did not change, by figure."""
    verdict = story.view.finished.get("verdict", {})
    found = {name: verdict[name] for name in FIGURES if name in verdict}
    if found or story.view.finished.get("stages"):
        return found
    words = {}
    for one in compared(story):
        reading = one.reading
        word = "helped" if reading.startswith("better") else "hurt"
        words[one.name] = "did not change" if reading == "no difference" else word
    return words


def _end(story: Story) -> list[str]:
    outcome = story.view.finished.get("outcome")
    batches = len(story.view.rows)
    if outcome is None:
        return [f"The run has no end yet: everything below is of its {batches:,} batches so far."]
    if outcome == "KILLED":
        return [f"The run was interrupted: everything below is of its {batches:,} batches."]
    if outcome == "FAILED":
        return [f"The run failed: everything below is of the {batches:,} batches before that."]
    return []


def _recorded(story: Story) -> list[str]:
    sentence = story.view.finished.get("verdict", {}).get("sentence")
    return [str(sentence)] if sentence and _count(story, Kind.HEAL) else []


def _stream(story: Story) -> list[str]:
    """The difference on the stream, with its uncertainty."""
    told = []
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


def _doubt(story: Story, *, both: bool) -> bool:
    """Whether the first figure's difference may be chance, or ``both`` that of all figures."""
    found = compared(story)
    return bool(found) and all(one.gain.chance for one in (found if both else found[:1]))


def _beside(story: Story) -> list[str]:
    """What no model at all, and the best possible one, would have given."""
    told = []
    for line in story.view.finished.get("stages", []):
        if line["key"] == "nothing":
            told.append(f"“{line['title']}” has accuracy {line['accuracy']:.3f}")
        elif line["key"] == "limit":
            told.append(
                f"no model at all can expect more than accuracy {line['accuracy']:.3f} and F1 "
                f"{line['f1']:.3f}"
            )
    return [f"To hold it against: {_listed(told)}."] if told else []


def _made(story: Story) -> list[str]:
    """Heals, rollbacks and versions in one sentence."""
    counts = [
        (_count(story, Kind.HEAL), "heal"),
        (sum(_count(story, kind) for kind in NOT_SERVED), "heal that did not serve"),
        (_count(story, Kind.ROLLBACK), "rollback"),
        (story.view.versions(), "version"),
    ]
    told = [_plural(count, name) for count, name in counts if count or "that" not in name]
    return [f"{_listed(told)} in {_plural(len(story.view.rows), 'batch')}."]


NOT_SERVED = (Kind.HEAL_REJECTED, Kind.HEAL_REFUSED, Kind.HEAL_FAILED, Kind.HEAL_COALESCED)


def _no_heal(story: Story) -> str:
    refused = sum(_count(story, kind) for kind in NOT_SERVED)
    if refused:
        return f"Nothing was healed: {_plural(refused, 'heal')} came to nothing"
    if story.view.started.get("config", {}).get("labels", {}).get("regime") == "none":
        return "Nothing was healed: no labels come, and no assumption to heal on was named"
    return "Nothing was healed: no batch gave a reason to"


def _count(story: Story, kind: Kind) -> int:
    return story.view.times(kind)


def _plural(count: int, name: str) -> str:
    if count == 1:
        return f"1 {name}"
    head, _, tail = name.partition(" ")
    several = f"{head}es" if head.endswith("ch") else f"{head}s"
    return f"{count:,} {several}{tail and ' ' + tail}"


def _objective(story: Story) -> Objective:
    config: Mapping[str, Any] = story.view.started.get("config", {})
    return Objective.model_validate(config.get("objective", {}))


def _two_classes(story: Story) -> bool:
    return all(isinstance(live, Scores) for live, _ in story.parts())


def _accuracy(scores: AnyScores) -> float:
    return scores.accuracy


def _f1(scores: AnyScores) -> float:
    return scores.f1


def _cost(scores: AnyScores, objective: Objective) -> float:
    return scores.cost(objective.fn, objective.fp) if isinstance(scores, Scores) else 0.0


def _signed(value: float, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    return text if float(text) else f"{0:.{digits}f}"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
