"""The lines of a stream on a screen of 80 columns: one a batch, or one for several."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfheal_cli.cli.output import Part
from selfheal_cli.events.state import Pair, Row
from selfheal_cli.scores import AnyScores

MOST_LINES = 40  # of a stream whose length is known; more than that nobody reads
STEPS = (1, 2, 5)  # times a power of ten: so many batches a line
FEWEST = 20  # labelled rows that a figure is shown of
NEARLY_ALL = 0.9  # of a line's labels, from which on it comes again
MOST_AWAITED = 1_000  # lines
LATER = 10  # batches a line of an endless stream, after the first ones
# the worst of several batches is their state
STATES = {"HEALTHY": "green", "HEALING": "blue", "DRIFTING": "yellow", "ROLLED_BACK": "red"}


def batches_a_line(batches: int | None, batch: int) -> int:
    """How many batches the line with this one sums up, of so many in all.

    >>> [batches_a_line(batches, 1) for batches in (25, 41, 375, 9_000)]
    [1, 2, 10, 500]
    >>> batches_a_line(None, 40), batches_a_line(None, 41)
    (1, 10)
    """
    if batches is None:
        return 1 if batch <= MOST_LINES else LATER
    power = 1
    while True:
        for step in STEPS:
            if batches <= step * power * MOST_LINES:
                return step * power
        power *= 10


@dataclass(slots=True)
class _Line:
    """A line that was given while most labels of its batches had not come."""

    batches: range
    rows: int
    pair: Pair | None


@dataclass(slots=True)
class BatchLines:
    """Takes rows in order and gives a line whenever enough of them are there.

    ``rules`` says whether conflicts with the rules are shown; else it is how many labels came. Of
    ``late`` labels it is always that, and a line comes again once they are in.
    """

    batches: int | None = None
    rules: bool = False
    late: bool = False
    _rows: list[Row] = field(default_factory=list)
    _pair: Pair | None = None
    _awaited: list[_Line] = field(default_factory=list)

    @property
    def header(self) -> list[str]:
        """Two lines of names."""
        third = ("rules", "against") if self.rules and not self.late else ("", "labels")
        return [
            f"{'':>7}  {'drift':>6}  {third[0]:>7}  {'accuracy':>14}  {'F1':>14}",
            f"{'batch':>7}  {'z':>6}  {third[1]:>7}  {'frozen':>6}  {'healed':>6}  {'frozen':>6}  "
            f"{'healed':>6}  {'state':<11}  {'action'}",
        ]

    def add(self, row: Row, pair: Pair | None) -> list[Part]:
        """The line that ends with this row; empty while there are too few."""
        self._rows.append(row)
        if pair is not None:
            self._pair = _plus(self._pair, pair)
        size = batches_a_line(self.batches, row.batch_idx)
        if len(self._rows) < size and row.batch_idx != self.batches:
            return []
        return self.end()

    def end(self) -> list[Part]:
        """The line of the rows that are there; empty where there are none."""
        rows, pair = self._rows, self._pair
        self._rows, self._pair = [], None
        if not rows:
            return []
        first, last = rows[0], rows[-1]
        batch = str(last.batch_idx)
        if first is not last:
            batch = f"{first.batch_idx}-{last.batch_idx}"
        z = max(abs(row.z_score) for row in rows)
        conflicts = self.rules and not self.late
        third = sum(row.n_conflicts for row in rows) if conflicts else _labels(pair)
        single = first is last and not self.late
        figures = _single(first) if single else _summed(rows, pair)
        if self.late:
            self._await(rows, pair)
        state = max((row.state for row in rows), key=_severity)
        text = f"{batch:>7}  {z:6.2f}  {third:>7,}  {'  '.join(figures)}  "
        return [text, (f"{state:<11}", STATES.get(state, "")), f"  {_action(rows)}"]

    def arrived(self, batch: int, pair: Pair) -> list[Part]:
        """Labels of a batch came: its line once more, where nearly all of them are there now."""
        if any(row.batch_idx == batch for row in self._rows):
            self._pair = _plus(self._pair, pair)
        line = next((one for one in self._awaited if batch in one.batches), None)
        if line is None:
            return []
        line.pair = _plus(line.pair, pair)
        if _labels(line.pair) < NEARLY_ALL * line.rows:
            return []
        self._awaited.remove(line)
        first, last = line.batches[0], line.batches[-1]
        name = str(first) if first == last else f"{first}-{last}"
        figures = "  ".join(_summed([], line.pair))
        return [f"{name:>7}  {'':6}  {_labels(line.pair):>7,}  {figures}  labels are in"]

    def _await(self, rows: list[Row], pair: Pair | None) -> None:
        """Remember a line whose labels are still to come; of an endless stream the latest."""
        count = sum(row.rows for row in rows)
        if _labels(pair) < NEARLY_ALL * count:
            batches = range(rows[0].batch_idx, rows[-1].batch_idx + 1)
            self._awaited = [*self._awaited[-MOST_AWAITED:], _Line(batches, count, pair)]


def _plus(before: Pair | None, pair: Pair) -> Pair:
    return pair if before is None else (before[0].plus(pair[0]), before[1].plus(pair[1]))


def _severity(state: str) -> int:
    return list(STATES).index(state) if state in STATES else 0


def _labels(pair: Pair | None) -> int:
    return 0 if pair is None else pair[0].rows


def _single(row: Row) -> list[str]:
    return [
        _known(row.shadow_acc), _known(row.healed_acc, row.est_accuracy),
        _known(row.shadow_f1), _known(row.healed_f1, row.est_f1),
    ]  # fmt: skip


def _summed(rows: list[Row], pair: Pair | None) -> list[str]:
    """Figures on all labelled rows of batches, scored before anything learned from them.

    Of fewer than `FEWEST` no figure is shown, but what is estimated without labels.
    """
    if pair is not None and (pair[0].rows >= FEWEST or not rows):
        live, shadow = pair
        return [_known(shadow.accuracy), _known(live.accuracy), _f1(shadow), _f1(live)]
    estimates = [[value for row in rows if (value := getattr(row, name)) is not None]
                 for name in ("est_accuracy", "est_f1")]  # fmt: skip
    accuracy, f1 = (sum(values) / len(values) if values else None for values in estimates)
    return [_known(None), _known(None, accuracy), _known(None), _known(None, f1)]


def _f1(scores: AnyScores) -> str:
    return _known(scores.f1)


def _known(value: float | None, estimate: float | None = None) -> str:
    """A figure in six characters; while labels are awaited its ~estimate, or a dash."""
    if value is not None:
        return f"{value:6.3f}"
    return f"{'-':>6}" if estimate is None else f"~{estimate:.3f}"


def _action(rows: list[Row]) -> str:
    if len(rows) == 1:
        return "" if rows[0].action == "NONE" else rows[0].action
    heals = sum(row.action == "HEALED" for row in rows)
    return f"{heals} heal{'' if heals == 1 else 's'}" if heals else ""
