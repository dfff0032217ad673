"""While labels are late no figure stands on few of them, and a line comes again with its labels."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from selfheal_cli.cli.batch_lines import BatchLines
from selfheal_cli.events.state import Pair, Row
from selfheal_cli.scores import Scores


def row(batch: int, **values: Any) -> Row:
    """A batch of 50 rows of which no label is known."""
    known = {"batch_idx": batch, "rows": 50, "z_score": 0.0, "n_conflicts": 7, "state": "HEALTHY",
             "action": "NONE", "est_accuracy": 0.9, "est_f1": 0.5}  # fmt: skip
    return Row(**{one.name: None for one in fields(Row)} | known | values)


def pair(rows: int) -> Pair:
    """Scores on rows of which one in ten is a missed positive."""
    missed = rows // 10
    scores = Scores(tp=0, tn=rows - missed, fp=0, fn=missed, log_loss=0.1)
    return scores, scores


def text(parts: list[Any]) -> str:
    return "".join(part if isinstance(part, str) else part[0] for part in parts)


def test_of_few_labels_no_figure_is_shown_but_how_many_they_are() -> None:
    lines = BatchLines(batches=9, rules=True, late=True)
    assert "labels" in lines.header[1]
    shown = text(lines.add(row(1), pair(3))).split()
    assert shown[2] == "3"
    assert "1.000" not in shown
    assert "~0.900" in shown
    assert "0.900" in text(lines.add(row(2), pair(40))).split()


def test_a_line_comes_again_when_its_labels_are_in() -> None:
    lines = BatchLines(batches=9, late=True)
    lines.add(row(1), pair(10))
    lines.add(row(2), None)
    assert not lines.arrived(1, pair(20))
    again = text(lines.arrived(1, pair(20)))
    assert again.split()[:2] == ["1", "50"]
    assert again.endswith("labels are in")
    assert not lines.arrived(1, pair(1))  # once


@pytest.mark.parametrize("batches", [25, 375])
def test_labels_that_come_before_their_line_are_in_it(batches: int) -> None:
    lines = BatchLines(batches=batches, late=True)
    for batch in range(1, 11):
        shown = lines.add(row(batch), pair(50))
    assert text(shown).split()[2] == ("50" if batches == 25 else "500")
