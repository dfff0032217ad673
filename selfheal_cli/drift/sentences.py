"""What moved, in sentences: from the events alone, so that an old log says what it always said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from selfheal_cli.events.types import ColumnMoved, DriftedSegment, SegmentsDrifted

MOST_NAMED = 3  # categories
NEAR = 20  # batches; what goes on moving after fewer is the same change
EPOCH = (1e8, 1e11)  # numbers of seconds that are taken for a date: 1973 to 5138
SLIGHT = 0.1  # of the spread; a median that moved by less is not what a person should look at
WIDER = 1.25  # ratio of spreads
TINY = 1e-9  # spread of what never varied


def changes_of(moves: Iterable[ColumnMoved]) -> list[ColumnMoved]:
    """Each time that something left or came back, in the order of the stream.

    A change that goes on is one: what was seen of it last replaces what was said first. Figures are
    against training, so that of what moved again since it left, it is said when it left.
    """
    told: list[ColumnMoved] = []
    last: dict[tuple[str, str], int] = {}  # where in ``told`` the last of its kind stands
    left: dict[tuple[str, str], ColumnMoved] = {}  # what is away from training, as it left
    for move in moves:
        key = (move.aspect, move.column)
        before = told[last[key]] if key in last else None
        if before and not (move.back or before.back) and move.since - before.batch <= NEAR:
            whole = replace(move, since=before.since, time=before.time)
            told[last[key]] = replace(whole, reason=_since_it_left(whole, left[key]))
            continue
        first = left.setdefault(key, move)
        if move.back:
            del left[key]
        last[key] = len(told)
        again = first.since < move.since and not move.back
        told.append(replace(move, reason=_since_it_left(move, first)) if again else move)
    return sorted(told, key=lambda one: one.since)


def moved_by_now(moves: Iterable[ColumnMoved]) -> list[str]:
    """A sentence for each thing that is not as in training at the end, the furthest first."""
    last = {(move.aspect, move.column): move for move in changes_of(moves)}
    left = [move for move in last.values() if not move.back]
    return [move.reason for move in sorted(left, key=lambda one: -one.effect / one.threshold)]


def _since_it_left(move: ColumnMoved, first: ColumnMoved) -> str:
    again = f", after a first change from about {_when(first)} on"
    return f"{sentence_of(move)}{again if first.since < move.since else ''}"


def ranked_segments(told: Iterable[SegmentsDrifted]) -> list[DriftedSegment]:
    """All that were named, the furthest first."""
    return sorted((one for event in told for one in event.segments), key=lambda one: -one["effect"])


def sentence_of(move: ColumnMoved) -> str:
    """One move in a sentence, without the full stop."""
    when = _when(move)
    if move.back:
        first = "at first" if move.aspect == "errors" else "in training"
        return f"{_subject(move)} {_be(move)} as {first} again, from about {when} on"
    return f"{_subject(move)} {_SAID[move.aspect](move)}, from about {when} on{_looks(move)}"


def _when(move: ColumnMoved) -> str:
    if move.time is None:
        return f"batch {move.since}"
    if EPOCH[0] < move.time < EPOCH[1]:
        at = datetime.fromtimestamp(move.time, UTC).isoformat(" ", timespec="minutes")
        return f"batch {move.since} ({at.removesuffix('+00:00')})"
    return f"batch {move.since} (time {move.time:g})"


def _subject(move: ColumnMoved) -> str:
    if move.aspect == "decisions":
        return f"decisions '{move.column}'"
    if move.aspect == "scores":
        return "the frozen model's probabilities"
    return "errors" if move.aspect == "errors" else move.column


def _be(move: ColumnMoved) -> str:
    return "is" if move.aspect in ("values", "missing") else "are"


def _share(move: ColumnMoved) -> str:
    before, now = move.before["share"], move.now["share"]
    return f"went from {before:.1%} to {now:.1%} of rows"


def _missing(move: ColumnMoved) -> str:
    return f"is missing in {move.now['share']:.1%} of rows, {move.before['share']:.1%} before"


def _errors(move: ColumnMoved) -> str:
    before, now = move.before["share"], move.now["share"]
    return f"went from {before:.1%} of the first labelled rows to {now:.1%} of {move.rows:,}"


def _values(move: ColumnMoved) -> str:
    return _numbers(move) if "q50" in move.before else _texts(move.before, move.now)


def _numbers(move: ColumnMoved) -> str:
    before, now = move.before, move.now
    low, high = ("q25", "q75") if before["q75"] > before["q25"] else ("q05", "q95")
    spread = before[high] - before[low] or TINY
    step = now["q50"] - before["q50"]
    wider = (now[high] - now[low]) / spread
    if abs(step) > SLIGHT * spread:
        verb = "rose" if step > 0 else "fell"
    elif wider > WIDER or wider < 1 / WIDER:
        verb = "spread out" if wider > 1 else "drew together"
    else:
        verb = "changed its shape"
    middle = [f"{_number(q['q25'])} to {_number(q['q75'])}" for q in (before, now)]
    ends = [f"{_number(q['q05'])} to {_number(q['q95'])}" for q in (before, now)]
    told = f"{verb}: median {_number(before['q50'])} -> {_number(now['q50'])}"
    told += f", middle half {middle[0]} -> {middle[1]}"
    return told if verb in ("rose", "fell") else f"{told}, 90 % of rows {ends[0]} -> {ends[1]}"


def _texts(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    names = sorted(before, key=lambda name: -abs(now.get(name, 0.0) - before[name]))
    parts = [f"'{name}' {before[name]:.1%} -> {now.get(name, 0.0):.1%}"
             for name in names[:MOST_NAMED] if before[name]]  # fmt: skip
    fresh = [name for name in names if not before[name] and now.get(name)]
    if fresh:
        share = sum(now[name] for name in fresh)
        named = ", ".join(f"'{name}'" for name in fresh[:MOST_NAMED])
        more = " and others" if len(fresh) > MOST_NAMED else ""
        parts.insert(0, f"{share:.1%} of rows are new categories ({named}{more})")
    return f"changed its shares: {', '.join(parts)}"


def _looks(move: ColumnMoved) -> str:
    if move.unit is None:
        return ""
    factor, offset = move.unit["factor"], move.unit["offset"]
    scaled = "" if factor == 1 else f" x {_number(factor)}"
    moved = "" if not offset else f" {'+' if offset > 0 else '-'} {_number(abs(offset))}"
    return f"; it looks like another unit:{scaled}{moved}"


def _number(value: float) -> str:
    """Three digits, without an exponent where a person would write none."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    return f"{float(f'{value:.3g}'):,.10g}"


def listed(sentences: Sequence[str], most: int) -> list[str]:
    """The first ``most``, and how many more there are."""
    more = len(sentences) - most
    return [*sentences[:most], *([f"and {more} more changes"] if more > 0 else [])]


_SAID = {
    "values": _values,
    "scores": _numbers,
    "missing": _missing,
    "decisions": _share,
    "errors": _errors,
}
