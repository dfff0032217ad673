"""What stands on the board in words, for the status page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selfheal_cli.serve.board_metrics import lifts
from selfheal_cli.serve.facts import Seen
from selfheal_cli.serve.standing import Judged, Standing

Tone = Literal["better", "worse", "mixed", "same", "unknown"]
FEW_ROWS = 200  # below which chance may make a difference of several points
SAME = 0.0005  # a lift that rounds to nothing
LABEL_SILENCE = 86_400.0  # seconds
TITLES = {
    "f1": "F1",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "Log loss",
    "cost": "Cost",
}
LESS_IS_BETTER = ("log_loss", "cost", "ece")
STATES = {
    "STARTING": "Starting: no batch has been looked at yet",
    "HEALTHY": "Healthy: the stream looks as it did in training",
    "DRIFTING": "Drifting: the stream has moved away from training",
    "HEALING": "Healing: the adapter learns",
    "ROLLED_BACK": "Rolled back: an earlier version serves again",
    "FOLLOWING": "Following: another process heals this model",
    "WATCHING": "Watching: healing is off",
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
    """A figure of live and shadow; ``tone`` says which is better."""

    title: str
    live: float | None
    shadow: float | None
    lift: float | None
    tone: Tone


def state_words(standing: Standing) -> str:
    """The state as a sentence."""
    text = STATES[standing.state]
    if standing.state == "FOLLOWING" and standing.holder:
        return f"Following: {standing.holder} heals this model"
    if standing.state == "WATCHING" and standing.error:
        return f"{text} ({standing.error})"
    return text


def verdict(standing: Standing) -> Verdict:
    """Whether healing helps, and on how many rows."""
    live, shadow, lift = standing.live, standing.shadow, lifts(standing)
    if live is None or shadow is None or not live.rows or not lift:
        return Verdict(
            "unknown", "not known", "No label has come yet: whether healing helps is not known"
        )
    signs = {name: _sign(value) for name, value in lift.items()}
    found = ", ".join(
        f"{_named(name)} {live.figures[name]:.3f} against {shadow.figures[name]:.3f} without it"
        for name in lift
    )
    rows = _rows(live, shadow)
    if set(signs.values()) == {-1, 1}:
        gained, lost = (
            _listed([_named(name) for name in signs if signs[name] == sign]) for sign in (1, -1)
        )
        return Verdict("mixed", "mixed", f"Healing gains {gained} and costs {lost}: {found}", rows)
    if -1 in signs.values():
        advice = "Doing nothing would have been better on these rows: roll back, or hold healing."
        return Verdict("worse", "worse", f"Healing makes it worse: {found}", (*rows, advice))
    if 1 in signs.values():
        return Verdict("better", "better", f"Healing helps: {found}", rows)
    return Verdict("same", "no difference", f"Healing makes no difference: {found}", rows)


def warnings(seen: Seen) -> list[str]:
    """What an operator should know at once."""
    standing, found = seen.standing, []
    if seen.age is None:
        found.append("The healer has not said anything yet; what is scored is kept for it.")
    elif not seen.healer_up:
        found.append(
            f"The healer has said nothing for {span(seen.age)}: scoring goes on, nothing heals, "
            "and what is below is as old as that."
        )
    if standing.error:
        found.append(f"The healer reports: {standing.error}")
    if standing.spool:
        found.append(f"Reading did not go on where it was left: {standing.spool}")
    if seen.server.conflicting:
        found.append(
            f"{seen.server.conflicting:,} rows were not recorded, since their request's id stood "
            "for other rows already: give each request an X-Selfheal-Request-Id of its own."
        )
    if seen.server.lost:
        found.append(
            f"{seen.server.lost:,} rows were forgotten before the healer read them: more come than "
            "it can look at."
        )
    if seen.server.recording:
        found.append(f"Answers are not written down: {seen.server.recording}")
    if seen.server.following:
        found.append(f"What should serve does not: {seen.server.following}")
    if standing.registry_away:
        found.append(f"The registry is away: {standing.registry_away}")
    if standing.held_by:
        why = f": {standing.held_reason}" if standing.held_reason else ""
        found.append(f"Healing is held by {standing.held_by}{why}")
    found += _of_champion(seen.server.version, standing)
    if seen.label_age is not None and seen.label_age > LABEL_SILENCE:
        found.append(f"No label has come for {span(seen.label_age)}.")
    return found


def _of_champion(served: int | None, standing: Standing) -> list[str]:
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


def lines(standing: Standing) -> list[Line]:
    """Every figure that is known of live or shadow."""
    live = standing.live.figures if standing.live else {}
    shadow = standing.shadow.figures if standing.shadow else {}
    names = [name for name in TITLES if name in live or name in shadow]
    names += sorted((set(live) | set(shadow)) - set(names))
    return [_line(name, live.get(name), shadow.get(name)) for name in names]


def span(seconds: float) -> str:
    """A time in the largest unit that fits."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _line(name: str, live: float | None, shadow: float | None) -> Line:
    lift = None if live is None or shadow is None else live - shadow
    good = 0 if lift is None else _sign(-lift if name in LESS_IS_BETTER else lift)
    tone: Tone = "better" if good > 0 else "worse" if good < 0 else "same"
    return Line(TITLES.get(name, name.replace("_", " ")), live, shadow, lift, tone)


def _rows(live: Judged, shadow: Judged) -> tuple[str, ...]:
    count = f"{live.rows:,}" if live.rows == shadow.rows else f"{live.rows:,} and {shadow.rows:,}"
    text = f"On {count} labelled rows, scored before anything learned from them."
    if min(live.rows, shadow.rows) < FEW_ROWS:
        return (text, "On so few rows it may be chance.")
    return (text,)


def _sign(value: float) -> int:
    return 0 if abs(value) < SAME else (1 if value > 0 else -1)


def _named(name: str) -> str:
    return "F1" if name == "f1" else name.replace("_", " ")


def _listed(names: list[str]) -> str:
    return " and ".join(names)
