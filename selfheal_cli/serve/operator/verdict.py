"""What stands on the control channel in words, for the status page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from pydantic import BaseModel, ConfigDict

from selfheal_cli.registry.orders import AUTO, STANDS
from selfheal_cli.report.gains import (
    DIGITS,
    HELPED,
    HURT,
    LITTLE_DIFFERENCE,
    NO_DIFFERENCE,
    TOO_FEW,
    UNKNOWN,
    FigureGain,
    signed,
)
from selfheal_cli.scores import title_of
from selfheal_cli.serve.operator.status import (
    SILENT_SECONDS,
    STALLED_SECONDS,
    Judged,
    ModelStatus,
    ReplicaWord,
    ServerInfo,
    StatusSnapshot,
)

Tone = Literal["better", "worse", "mixed", "same", "unknown"]
FEW_ROWS = 200  # below which chance may make a difference of several points
LABEL_SILENCE = 86_400.0  # seconds
FELL, FELL_ERRORS = 0.02, 5.0  # of accuracy, in itself and in standard errors: not chance
FIGURES = ("f1", "accuracy", "precision", "recall", "roc_auc", "pr_auc", "log_loss", "cost")
STATES = {
    "STARTING": "Starting: no batch has been looked at yet",
    "HEALTHY": "Healthy: the stream looks as it did in training",
    "DRIFTING": "Drifting: the stream has moved away from training",
    "HEALING": "Healing: the adapter learns",
    "ROLLED_BACK": "Rolled back: an earlier version serves again",
    "FOLLOWING": "Following: another process heals this model",
    "WATCHING": "Watching: healing is off",
    "BEHIND": "Behind: rows wait, and the healer does not come to them",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Live beside shadow in words."""

    tone: Tone
    badge: str
    headline: str
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of live and shadow; ``tone`` says which is better, where that is not chance."""

    title: str
    live: float | None
    shadow: float | None
    lift: float | None
    tone: Tone


def state_words(standing: ModelStatus) -> str:
    """The state as a sentence."""
    text = STATES[standing.state]
    if standing.state == "FOLLOWING" and standing.holder:
        return f"Following: {standing.holder} heals this model"
    if standing.state == "WATCHING" and standing.error:
        return f"{text} ({standing.error})"
    if standing.state == "HEALTHY" and (fell := _fell(standing)):
        return f"Not as in training, though no monitor alarms: {fell}"
    return text


def _fell(standing: ModelStatus) -> str:
    """In words, where the frozen network gets less of the labelled rows right than in training.

    Monitors of inputs do not see it, nor does one of errors that began after the change.
    """
    then, now = standing.as_trained, standing.shadow
    if then is None or now is None or min(then.rows, now.rows) < FEW_ROWS:
        return ""
    before, after = then.figures["accuracy"], now.figures.get("accuracy", 1.0)
    whole = (before * then.rows + after * now.rows) / (then.rows + now.rows)
    error = sqrt(whole * (1 - whole) * (1 / then.rows + 1 / now.rows))
    if before - after < max(FELL_ERRORS * error, FELL):
        return ""
    return (
        f"without heals {after:.1%} of {now.rows:,} labelled rows are right, and {before:.1%} of "
        f"{then.rows:,} held-out ones were"
    )


def verdict_of(standing: ModelStatus) -> Verdict:
    """Whether healing helps, told from chance, and on how many rows."""
    live, shadow, gains = standing.live, standing.shadow, standing.compared
    if live is None or shadow is None or not live.rows:
        return Verdict(
            "unknown", "not known", "No label has come yet: whether healing helps is not known"
        )
    gained, lost = ([one.figure for one in gains if one.word == word] for word in (HELPED, HURT))
    pairs = ", ".join(map(_pair, gains))
    rows: tuple[str, ...] = (_rows(live, shadow),)
    if standing.proposals:
        rows += ("No heal that waits for approval is in these figures.",)
    if gained and lost:
        told = f"Healing gains {_listed(gained)} and costs {_listed(lost)}: {pairs}"
        return Verdict("mixed", "mixed", told, rows)
    if lost:
        advice = "Doing nothing would have been better on these rows: roll back, or hold healing."
        more = () if standing.proposals else (advice,)
        return Verdict("worse", "worse", f"Healing makes it worse: {pairs}", (*rows, *more))
    if gained:
        return Verdict("better", "better", f"Healing helps: {pairs}", rows)
    if all(one.word == UNKNOWN for one in gains):
        text = f"{_capital(TOO_FEW)} to tell from chance what healing does"  # or an earlier run's
        return Verdict("unknown", "too early to say", f"{text}: {pairs}" if pairs else text, rows)
    little = LITTLE_DIFFERENCE if any(one.sure for one in gains) else NO_DIFFERENCE
    return Verdict("same", "no difference", f"Healing makes {little}: {pairs}", rows)


def _pair(gain: FigureGain) -> str:
    """A figure with healing and without it, and where the difference lies."""
    digits = DIGITS.get(gain.figure, 3)
    text = f"{gain.figure} {gain.after:,.{digits}f} against {gain.before:,.{digits}f} without it"
    if gain.low is None or gain.high is None:
        return text
    return f"{text} ({signed(gain.low, digits)} to {signed(gain.high, digits)})"


def warnings(seen: StatusSnapshot) -> list[str]:
    """What an operator should know at once."""
    standing, messages = seen.standing, []
    if seen.age is None:
        why = _for_long(seen)
        messages.append(
            f"The healer has not said anything yet{why}; what is scored is kept for it."
        )
    elif not seen.healer_up:
        messages.append(
            f"The healer has said nothing for {span(seen.age)}: it was stopped, or gets too little "
            "of the processor (--heal-priority). Scoring goes on, nothing heals, and what is below "
            "is as old as that."
        )
    if standing.error:
        messages.append(f"The healer reports: {standing.error}")
    if standing.spool:
        messages.append(f"Reading did not go on where it was left: {standing.spool}")
    held = sorted({one.held_back for one in seen.replicas} - {""})
    messages += [f"The healer does not see the latest rows: {one}." for one in held]
    messages += _of_server(seen)
    if standing.registry_away:
        messages.append(f"The registry is away: {standing.registry_away}")
    if standing.held_by:
        why = f": {standing.held_reason}" if standing.held_reason else ""
        messages.append(f"Healing is held by {standing.held_by}{why}")
    messages += _of_mode(seen.server.model, standing)
    messages += _of_champion(seen.server.version, standing)
    if seen.label_age is not None and seen.label_age > LABEL_SILENCE:
        messages.append(f"No label has come for {span(seen.label_age)}.")
    return messages


def _for_long(seen: StatusSnapshot) -> str:
    """What to do about it, of a server that has been up for a while."""
    up = seen.at - seen.server.started
    if not seen.server.started or up < SILENT_SECONDS:
        return ""
    return (
        f", {span(up)} after the start: it gets too little of the processor (--heal-priority), or "
        "cannot begin, as the server's terminal says then"
    )


def _of_server(seen: StatusSnapshot) -> list[str]:
    """What the scoring side cannot do, and what it sees of the healer."""
    standing, messages = seen.standing, list[str]()
    if seen.server.stalled > STALLED_SECONDS:
        messages.append(
            f"{standing.waiting:,} rows wait, and the healer has looked at none for "
            f"{span(seen.server.stalled)}: it gets too little of the processor (--heal-priority)."
        )
    if seen.server.conflicting:
        messages.append(
            f"{seen.server.conflicting:,} rows were not recorded, since their request's id stood "
            "for other rows already: give each request an X-Selfheal-Request-Id of its own."
        )
    if seen.server.lost:
        messages.append(
            f"{seen.server.lost:,} rows were forgotten before the healer read them: more come than "
            "it can look at."
        )
    if seen.server.workers_up < seen.server.workers:
        messages.append(
            f"{seen.server.workers_up} of {seen.server.workers} scoring processes are up; another "
            "one is begun."
        )
    if seen.server.recording:
        messages.append(f"Answers are not written down: {seen.server.recording}")
    if seen.server.following:
        messages.append(f"What should serve does not: {seen.server.following}")
    return messages


def _of_mode(model: str, standing: ModelStatus) -> list[str]:
    """What keeps heals from serving by themselves, and what waits for a person."""
    messages = []
    if standing.mode in STANDS and standing.mode != AUTO:
        why = f", by {standing.mode_by}: {standing.mode_reason}" if standing.mode_by else ""
        messages.append(f"Mode {standing.mode}: {STANDS[standing.mode]}{why}")
    for one in standing.proposals:
        messages.append(
            f"Proposal {one.number} waits for approval: v{one.version}, {one.reason}; 'selfheal "
            f"approve {one.number} --model {model}' shows its plan and asks, and so does Plan "
            "among the proposals of the status page."
        )
    return messages


def _of_champion(served: int | None, standing: ModelStatus) -> list[str]:
    """Where the alias does not point to what serves."""
    champion = standing.champion
    serves = "no version" if served is None else f"v{served}"
    if standing.no_champion:
        return [
            f"There is no champion ({standing.no_champion}): {serves} answers; choose one with "
            "'selfheal rollback --to VERSION'."
        ]
    if champion is not None and champion.foreign:
        return [
            f"The alias champion points to v{champion.version}, which selfheal did not register "
            f"and does not serve: {serves} answers; a rollback puts the alias right."
        ]
    if served is not None and champion is not None and served != champion.version:
        return [f"Requests are answered by v{served}, the champion is v{champion.version}."]
    return []


def lines(standing: ModelStatus) -> list[Line]:
    """Every figure that is known of live or shadow."""
    live = standing.live.figures if standing.live else {}
    shadow = standing.shadow.figures if standing.shadow else {}
    names = [name for name in FIGURES if name in live or name in shadow]
    names += sorted((set(live) | set(shadow)) - set(names))
    words = {one.figure: one.word for one in standing.compared}
    return [
        _line(title_of(name), live.get(name), shadow.get(name), words.get(title_of(name), ""))
        for name in names
    ]


def span(seconds: float) -> str:
    """A time in the largest unit that fits."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _line(title: str, live: float | None, shadow: float | None, word: str) -> Line:
    tones: dict[str, Tone] = {HELPED: "better", HURT: "worse"}
    lift = None if live is None or shadow is None else live - shadow
    return Line(_capital(title), live, shadow, lift, tones.get(word, "same"))


def _rows(live: Judged, shadow: Judged) -> str:
    count = f"{live.rows:,}" if live.rows == shadow.rows else f"{live.rows:,} and {shadow.rows:,}"
    return f"On {count} labelled rows, scored before anything learned from them."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(names: list[str]) -> str:
    return " and ".join(names)


class ClosedDocument(BaseModel):
    """A document that has no other keys."""

    model_config = ConfigDict(extra="forbid")


class Told(ClosedDocument):
    """The same in words."""

    state: str
    tone: Tone
    badge: str
    headline: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


class Healer(ClosedDocument):
    """Whether it has spoken lately, and the seconds since its last word."""

    up: bool
    age_seconds: float | None


class Status(ClosedDocument):
    """How a served model stands; ``at`` in seconds since 1970. ``replicas`` are those that share a
    log, where one does.
    """

    at: float
    server: ServerInfo
    healer: Healer
    label_age_seconds: float | None
    told: Told
    standing: ModelStatus
    replicas: tuple[ReplicaWord, ...] = ()


def status(seen: StatusSnapshot) -> Status:
    """The document of one look."""
    verdict = verdict_of(seen.standing)
    told = Told(
        state=state_words(seen.standing),
        tone=verdict.tone,
        badge=verdict.badge,
        headline=verdict.headline,
        sentences=verdict.sentences,
        warnings=tuple(warnings(seen)),
    )
    return Status(
        at=seen.at,
        server=seen.server,
        healer=Healer(up=seen.healer_up, age_seconds=seen.age),
        label_age_seconds=seen.label_age,
        told=told,
        standing=seen.standing,
        replicas=seen.replicas,
    )
