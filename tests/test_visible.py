"""The caller's words are data: on a screen, in a picture, on a page, in a log's line."""

from __future__ import annotations

import html
import io
import os
import pwd
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

import selfheal_cli.cli
from selfheal_cli.cli.output import line, make_table
from selfheal_cli.cli.say import say
from selfheal_cli.records import Advice
from selfheal_cli.report.canvas import Figure, make_figure, name_names, save
from selfheal_cli.report.page import render
from selfheal_cli.report.summary import tell
from selfheal_cli.visible import visible
from tests.conftest import Invoke
from tests.events.examples import diagnosed
from tests.report.logs import log

PIECES = ["[", "]", "[/]", "[/day]", "[bold]", "\\[", "$", "$$", "$x_1", "%", "%d", "{}", "<b>",
          "&amp;", "'", '"', "\\", "_", "^", "\x1b[2J", "\x1b]0;t\x07", "\r", "\n", "\t", "\x00",
          "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "価格", "سعر", "é",
          "👩\u200d🔬", ":smile:", "@", "a", " "]  # fmt: skip
WORDS = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=6).map("".join))


def shown(table: Table) -> str:
    """As on a terminal that is wide enough, without the table's lines."""
    stream = io.StringIO()
    Console(file=stream, width=4_000, force_terminal=False, color_system=None).print(table)
    return stream.getvalue()


@settings(deadline=None, derandomize=True)
@given(WORDS)
def test_nothing_moves_a_cursor_ends_a_line_or_turns_the_writing(text: str) -> None:
    seen = visible(text)
    seen.encode()
    kinds = {unicodedata.category(one) for one in seen if one not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    if text.isprintable():
        assert seen == text
    assert visible(seen) == seen


@given(WORDS, WORDS, WORDS)
def test_a_table_and_a_line_show_the_very_words_and_no_markup_is_read(
    title: str, name: str, cell: str
) -> None:
    # a title is folded to the table's width
    text = "".join(
        shown(make_table(f"of '{title}'", ("what", f"in {name}."), [["x", f"is {cell}."]])).split()
    )
    for part in (f"of '{visible(title)}'", f"in {visible(name)}.", f"is {visible(cell)}."):
        assert "".join(part.split()) in text
    parts = line(("bold words", "bold"), f" and {cell}")
    assert parts.plain == f"bold words and {visible(cell)}"
    assert len(parts.spans) == 1


def picture_of(text: str) -> Figure:
    """With the text wherever we write some."""
    figure = make_figure(2, 1)
    axes = figure.add_subplot()
    axes.plot([0, 1], label=f"|z| of {text}")
    axes.legend()
    axes.set_title(f"model '{text}'")
    return figure


@given(WORDS)
def test_a_picture_takes_every_name_as_it_is(text: str) -> None:
    figure = picture_of(text)
    name_names(figure)
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    assert not legend.get_texts()[0].get_parse_math()
    assert legend.get_texts()[0].get_text() == f"|z| of {visible(text, keep=chr(10))}"
    assert axes.title.get_text() == f"model '{visible(text, keep=chr(10))}'"


def test_a_picture_of_every_odd_piece_is_written(tmp_path: Path) -> None:
    save(picture_of("".join(PIECES)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@settings(max_examples=12)
@given(WORDS)
def test_a_page_shows_every_name_and_reason_as_it_is(text: str) -> None:
    story = tell(log(
        [70] * 4, [60] * 4, model=f"m{text}", names=(f"a{text}", "b"),
        extra=[diagnosed(2, Advice.HEAL, f"since {text}.")],
        rules=[f"r{text} > 1 => 1"],
    ))  # fmt: skip
    page = render(story)
    plain = html.unescape(re.sub(r"<[^>]*>", "", page))
    for part in (f"m{text}", f"since {text}.", f"r{text} > 1 => 1"):
        assert html.unescape(str(html.escape(visible(part, keep="\n")))) in plain
    assert "<b>" not in page
    assert "\x1b" not in page


def test_a_line_that_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("held: \x1b[31mred\nselfheal: everything holds\ud800", err=True)
    assert capsys.readouterr().err == r"held: \x1b[31mred\nselfheal: everything holds\ud800" + "\n"


NAME = "P&L $$ [/kg] %d <b>x</b> 価格"


@pytest.fixture
def odd_names(workdir: Path) -> Path:
    """A table of which every name and label would be something else to rich or matplotlib."""
    drawn = np.random.default_rng(0)
    x = drawn.normal(size=400).round(3)
    kind = drawn.choice(["[red]", "$x_1$", "<i>"], 400)
    label = np.where(x + (kind == "[red]") > 0.5, "[/] yes", "$no")
    pd.DataFrame({NAME: x, "_kind [m]": kind, "label": label}).to_csv("odd.csv", index=False)
    return workdir


def test_a_run_with_such_names_labels_and_actor_shows_and_draws_them(
    odd_names: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_ACTOR", "Ann [/bold] \x1b[2J 50 %")
    monkeypatch.setenv("COLUMNS", "300")
    said = invoke("run", "odd.csv", "--target", "label", "--positive", "[/] yes", "--batch-size",
                  "50", "--batches", "2", "--sensitive", NAME).stdout  # fmt: skip
    assert f"FIDI watches {NAME}" in said
    assert "0 is '$no', 1 is '[/] yes'" in said
    of = ("--model-name", "odd")
    assert NAME in invoke("show", "1", *of).stdout
    invoke("hold", *of, "--reason", "[red] \x1b[2J because of 50 % $x$ ")
    for command in (("champion", *of), ("history", *of), ("snapshots", *of), ("hold", *of,
                    "--reason", "again")):  # fmt: skip
        told = invoke(*command).stdout
        assert "\x1b" not in told
        if command[0] != "snapshots":
            assert "Ann [/bold] [2J 50 %" in told
    assert "\x1b" not in invoke("show", "9\x1b[2J", *of, expect=2).stdout


def test_a_user_without_a_name_or_with_half_a_character_is_an_actor(
    odd_names: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SELFHEAL_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    invoke("run", "odd.csv", "--target", "label", "--batch-size", "50", "--batches", "1",
           "--no-plots")  # fmt: skip
    invoke("hold", "--model-name", "odd", "--reason", "x")
    assert f"uid-{os.getuid()}@" in invoke("champion", "--model-name", "odd").stdout
    monkeypatch.setenv("SELFHEAL_ACTOR", os.fsdecode(b"J\xfcrgen"))
    invoke("release", "--model-name", "odd")
    assert "Jrgen (claimed)" in invoke("history", "--model-name", "odd").stdout


def test_a_notebooks_backend_in_the_environment_does_not_stop_a_picture(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from selfheal_cli.report.canvas import make_figure, save;"
        "save(make_figure(1, 1), Path('a.png')); import os; print(os.environ['MPLBACKEND'])"
    )
    backend = "module://no_such_package.backend"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, check=True, env={**os.environ, "MPLBACKEND": backend,
                          "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    assert done.stdout.strip() == backend
    assert (tmp_path / "a.png").exists()


def test_what_commands_tell_people_goes_through_one_function() -> None:
    folder = Path(selfheal_cli.cli.__file__).parent
    past = {one.name for one in folder.glob("*.py") if "click.echo(" in one.read_text()}
    # documents for programs: JSON, a configuration, a file of rules
    assert past == {"say.py", "output.py", "config.py", "rules.py"}
    markup = [
        one.name for one in folder.glob("*.py") if re.search(r"\[/\]|from_markup", one.read_text())
    ]
    assert markup == []
