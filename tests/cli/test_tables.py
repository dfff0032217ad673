"""Tables hold whole words at any width, and figures are never broken."""

from __future__ import annotations

import pytest

from selfheal_cli.cli.output import make_console, print_table

COLUMNS = ("stage", ">rows", ">accuracy", ">F1", "+>kappa", "why")
ROWS = [
    ["Under drift, self-healed", "1,000", "0.724", "0.270", "0.109", "its labels had come"],
    ["Live", "10", "1.000", "1.000", "1.000", "the rest of the labels is awaited still"],
]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_every_line_fits_and_every_word_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("Results", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    words = {word for text in (*ROWS[0], *ROWS[1], *COLUMNS) for word in text.split()}
    table = lines[1 : next(place for place, line in enumerate(lines) if "also:" in line)]
    assert max(map(len, lines)) <= width
    assert {word for line in table for word in line.split() if "─" not in word} <= words | {"stage"
        , "rows", "accuracy", "F1"}  # fmt: skip


def test_the_first_column_stays_and_figures_go_from_the_right_where_it_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table("Results", COLUMNS, ROWS)
    shown = capsys.readouterr().out
    assert "rows" in shown
    assert "0.724" not in shown


def test_in_a_pipe_the_width_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    assert make_console().width == 64
    monkeypatch.delenv("COLUMNS")
    assert make_console().width == 160


def test_a_column_for_wide_that_holds_nothing_is_neither_shown_nor_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("Results", (*COLUMNS[:-1], "+>TP"), [[*row[:-1], "-"] for row in ROWS])
    assert "With --wide also: kappa\n" in capsys.readouterr().out
