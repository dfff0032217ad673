"""Numbers, dates and missing values as people write them come back as what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import TableSettings, checked
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.sources.files import open_settled, open_table
from selfheal_cli.sources.recognition import SIGNS, Recognised, recognise
from selfheal_cli.sources.spelling import Spelling, as_told, plain_number


def spelled(value: float, decimal: str, thousands: str) -> str:
    """A number with two places, as a person writes it."""
    return f"{value:,.2f}".replace(",", "#").replace(".", decimal).replace("#", thousands)


@given(
    cents=st.integers(-(10**11), 10**11),
    signs=st.sampled_from(SIGNS),
    around=st.sampled_from(["{}", "€{}", "{} €", "CHF {}", "{} %", " {} "]),
)
def test_a_number_in_any_spelling_is_that_number(
    cents: int, signs: tuple[str, str], around: str
) -> None:
    text = around.format(spelled(cents / 100, *signs))
    read = Spelling(*signs).read(pd.Series([text], dtype="str")).iloc[0]
    assert float(read) == cents / 100


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_as_a_program_writes_it_stays_itself(value: float) -> None:
    read = Spelling(".", ",").read(pd.Series([repr(value)], dtype="str")).iloc[0]
    assert float(read) == value


@pytest.mark.parametrize("text", ["", "x", "1,23,4", "1.2.3", "12-34", "12:30", "€", "1 2", "NA"])
def test_what_is_no_number_stays_as_it_is(text: str) -> None:
    assert plain_number(text, ".", ",") is None
    assert Spelling(".", ",").read(pd.Series([text], dtype="str")).tolist() == [text]


def test_accountants_and_typesetters_write_what_is_below_zero_in_their_ways() -> None:
    given_ = pd.Series(["(1,200.50)", "\u22127", "-€3", "€-3"], dtype="str")
    assert Spelling(".", ",").read(given_).tolist() == ["-1200.50", "-7", "-3", "-3"]


def test_dates_become_iso_and_words_for_nothing_missing() -> None:
    spelling = Spelling(dates=("%d.%m.%Y", "%d.%m.%Y %H:%M"), missing=("-",))
    read = spelling.read(pd.Series(["31.12.2025", "1.2.2026 14:05", "32.1.2025", " - "]))
    assert read.iloc[:3].tolist() == ["2025-12-31", "2026-02-01T14:05:00", "32.1.2025"]
    assert pd.isna(read.iloc[3])


def test_values_that_are_no_texts_are_left_alone() -> None:
    numbers = pd.Series([1.5, np.nan])
    assert Spelling(",", ".").read(numbers) is numbers
    mixed = pd.Series([1.5, "2,5", None], dtype="object")
    assert Spelling(",", ".").read(mixed).tolist() == [1.5, "2.5", None]


def recognised(folder: Path, separator: str = ",", **columns: list[str]) -> Recognised:
    """What is recognised in a CSV file of these columns."""
    pd.DataFrame(columns).to_csv(folder / "t.csv", index=False, sep=separator)
    return recognise(open_table(folder / "t.csv", None), Spelling(), separator)


@pytest.mark.parametrize("signs", SIGNS)
def test_signs_are_recognised_that_numbers_are_written_with(
    tmp_path: Path, signs: tuple[str, str]
) -> None:
    texts = [spelled(value * 1234.5, *signs) for value in range(40)]
    known = recognised(tmp_path, ";", amount=texts, kind=["a", "b"] * 20)
    assert (known.spelling.decimal, known.spelling.thousands) == signs
    assert (list(known.numbers), known.doubts) == (["amount"], ())


def test_a_file_that_programs_wrote_needs_no_spelling(tmp_path: Path) -> None:
    known = recognised(tmp_path, a=["1.5", "2e3"] * 9, at=["2026-01-31", "2026-02-01"] * 9)
    assert not known.spelling


def test_one_number_that_two_signs_read_apart_is_a_doubt(tmp_path: Path) -> None:
    known = recognised(tmp_path, a=[f"{n},{n}50" for n in range(1, 9)])
    assert known.spelling == Spelling(".", ",")
    assert known.doubts == (
        "'1,150' is read as 1150; where that is wrong, --decimal says the decimal sign",
    )


def test_commas_in_one_column_and_points_in_another_are_both_read(tmp_path: Path) -> None:
    known = recognised(tmp_path, a=[f"{n},5" for n in range(9)], b=[f"{n}.125" for n in range(9)])
    assert (known.spelling, known.doubts) == (Spelling(",", None), ())
    assert known.spelling.one("0.125") == "0.125"


def test_columns_that_contradict_each_other_are_named_and_left_alone(tmp_path: Path) -> None:
    known = recognised(
        tmp_path, a=[f"{n}.000,5" for n in range(9)], b=[f"{n}.125" for n in range(9)]
    )
    assert not known.spelling
    assert "'a' is written '0.000,5' and stays a text: 'b' would be misread" in known.doubts[0]


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["31.12.2025 14:05", "01.01.2026 00:03"], "%d.%m.%Y %H:%M"),
        (["12/30/2025", "1/2/2026"], "%m/%d/%Y"),
        (["1/2/2026", "2/1/2026"], "%m/%d/%Y"),  # in order only if read so
        (["3/1/2026", "1/2/2026"], "%d/%m/%Y"),
        (["2025/12/31 23:59:59", "2026/01/01 00:00:01"], "%Y/%m/%d %H:%M:%S"),
        (["3 Jan 2026", "14 Feb 2026"], "%d %b %Y"),
    ],
)
def test_dates_are_recognised_in_the_usual_orders(
    tmp_path: Path, texts: list[str], form: str
) -> None:
    assert recognised(tmp_path, at=texts).spelling.dates == (form,)


def test_a_word_for_nothing_among_numbers_is_recognised_and_a_category_is_none(
    tmp_path: Path,
) -> None:
    known = recognised(tmp_path, a=["k.A.", *map(str, range(19))], b=["unknown", "known"] * 10)
    assert (known.spelling.missing, known.missing) == (("k.A.",), {"a": "k.A."})


def test_rows_out_of_order_are_sorted_and_keep_their_number(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("at,a,y\n3.1.2026,1,0\n1.1.2026,2,1\n,9,0\n2.1.2026,3,0\n2.1.2026,4,1\n")
    told = TableSettings(path=path, target="y", sort_by="at", date_format=("%d.%m.%Y",))
    table = as_told(open_settled(told), told)
    frame = next(table.chunks(["a"]))
    assert frame["a"].tolist() == [2, 3, 4, 1, 9]
    assert next(table.chunks(["a"], 3))["a"].tolist() == [1, 9]
    assert table.place(1).endswith("row 2")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thousands": ","}, "thousands = ',': decimal, the other sign, is needed"),
        ({"decimal": ",", "thousands": ","}, "decimal, the other sign"),
        ({"date_format": ["%Q"]}, "'%Q' is no format of a day"),
        ({"date_format": ["%H:%M"]}, "'%H:%M' is no format of a day"),
        ({"encoding": "klingon"}, "no encoding of that name"),
        ({"encoding": "base64"}, "no encoding of that name"),
        ({"skip_lines": -1}, "greater than or equal to 0"),
    ],
)
def test_what_no_table_can_be_written_in_is_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        checked(TableSettings, {"path": "t.csv", "target": "y", **values}, where="here")
