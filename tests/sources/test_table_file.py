"""CSV and Parquet files as chunks: what is refused, what is found out, where reading starts."""

from __future__ import annotations

import decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError
from selfheal_cli.sources.files import open_table, sniff_separator
from selfheal_cli.sources.parquet import ParquetTable
from selfheal_cli.sources.table_file import CHUNK_ROWS
from selfheal_cli.sources.text_file import HEAD_BYTES
from selfheal_cli.sources.values import numbers, texts


def written(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    """A file with this content, byte for byte."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def whole(path: Path, numeric: list[str] | None = None, skip: int = 0) -> pd.DataFrame:
    """Every row after the first ``skip``, as one frame."""
    return pd.concat(list(open_table(path, None).chunks(numeric, skip)), ignore_index=True)


def lines(rows: int, separator: str = ",") -> str:
    """``a`` counts from 0, ``y`` is its last bit."""
    return "".join(f"{number}{separator}{number % 2}\n" for number in range(rows))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        open_table(tmp_path / "absent.csv", None)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; give a CSV or Parquet file"):
        open_table(tmp_path, None)


def test_an_empty_file_needs_a_header(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: the file is empty; it needs a header line"):
        open_table(written(tmp_path, ""), None)


def test_a_binary_file_is_no_text_and_the_zero_byte_is_placed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: not text \(a zero byte at 5\)"):
        open_table(written(tmp_path, b"\x89PNG\r\x00\x00\x1a"), None)


def test_a_file_in_utf_16_without_its_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not text"):
        open_table(written(tmp_path, ("a,y\n" + lines(5)).encode("utf-16-le")), None)


def test_a_file_in_another_encoding_names_the_byte(tmp_path: Path) -> None:
    path = written(tmp_path, b"a,y\nM\xfcller,1\n" + lines(50).encode())
    with pytest.raises(
        DataError, match=r"not UTF-8 text \(byte 0xfc at 5\); 'selfheal init' finds"
    ):
        open_table(path, None)


def test_another_encoding_far_into_the_file_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, b"a,y\n" + lines(HEAD_BYTES // 4).encode() + b"caf\xe9!,1\n")
    assert path.stat().st_size > HEAD_BYTES
    with pytest.raises(DataError, match="not UTF-8 text"):
        whole(path)


def test_another_encoding_in_the_last_bytes_of_a_short_file_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8 text"):
        open_table(written(tmp_path, b"a,y\n1,\xe9\n"), None)


def test_a_character_that_the_end_of_the_head_cuts_is_no_mistake(tmp_path: Path) -> None:
    text = "a,y\n" + "x" * (HEAD_BYTES - 5) + "é,1\n"
    path = written(tmp_path, text)
    assert path.read_bytes()[HEAD_BYTES - 1 : HEAD_BYTES + 1] == "é".encode()
    assert whole(path)["a"].iloc[0].endswith("xé")


@pytest.mark.parametrize("header", ["a,b,a,y", "a, a ,b,y"])
def test_duplicate_column_names_are_listed(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv: duplicate column names: a; rename them"):
        open_table(written(tmp_path, f"{header}\n1,2,3,0\n"), None)


def test_duplicate_column_names_in_parquet_are_listed(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1.0], [2.0]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: duplicate column names: a"):
        open_table(tmp_path / "t.parquet", None)


def test_a_column_without_a_name_is_placed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 2 has no name"):
        open_table(written(tmp_path, "a,,y\n1,2,0\n"), None)


def test_a_quote_in_the_header_that_never_ends_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_table(written(tmp_path, '"a,y\n' + lines(40_000)), None)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_head(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, f"a{separator}y\n" + lines(3, separator))
    assert open_table(path, None).columns == ["a", "y"]
    assert whole(path)["a"].tolist() == ["0", "1", "2"]


def test_a_separator_inside_quotes_does_not_count(tmp_path: Path) -> None:
    path = written(tmp_path, 'a;y\n"1,2,3";0\n"4,5,6";1\n')
    assert whole(path)["a"].tolist() == ["1,2,3", "4,5,6"]


def test_a_separator_that_was_given_wins_over_the_one_found(tmp_path: Path) -> None:
    path = written(tmp_path, "a,y;z\n1,2;0\n3,4;1\n")
    assert open_table(path, ";").columns == ["a,y", "z"]
    assert open_table(path, ",").columns == ["a", "y;z"]


@pytest.mark.parametrize("separator", ["::", "\\t"])
def test_a_separator_of_two_characters_is_a_data_error(tmp_path: Path, separator: str) -> None:
    with pytest.raises(DataError):
        open_table(written(tmp_path, "a\ty\n" + lines(3, "\t")), separator)


def test_text_with_no_separator_is_one_column() -> None:
    assert sniff_separator("alone\n1\n2\n") == ","


def test_the_separator_is_found_where_a_quoted_newline_crosses_the_sniffed_lines() -> None:
    assert sniff_separator("text;a;y\n" + '"two\nlines";1;0\n' * 40) == ";"


def test_the_separator_is_found_where_a_text_holds_a_unicode_line_separator() -> None:
    assert sniff_separator("text;a;y\n" + "two\u2028lines;1;0\n" * 10) == ";"


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa,y\n" + lines(4).encode())
    assert open_table(path, None).columns == ["a", "y"]
    assert whole(path)["a"].tolist() == ["0", "1", "2", "3"]
    assert whole(path, skip=3)["a"].tolist() == ["3"]


def test_spaces_around_names_are_dropped(tmp_path: Path) -> None:
    assert open_table(written(tmp_path, " a , y \n1,0\n"), None).columns == ["a", "y"]


def test_a_quoted_newline_is_one_row(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,y\n"one\nrow",0\n"two\r\nrow",1\nthree,0\n')
    assert whole(path)["a"].tolist() == ["one\nrow", "two\r\nrow", "three"]


@pytest.mark.parametrize("content", ["a,y\n", "a,y"])
def test_a_header_alone_gives_no_rows(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    assert sum(map(len, open_table(path, None).chunks(None))) == 0


def test_numeric_columns_are_floats_and_the_rest_is_text(tmp_path: Path) -> None:
    frame = whole(written(tmp_path, "a,b,y\n1,2,0\n,,1\n"), numeric=["a"])
    assert frame["a"].dtype == "float64"
    assert frame["a"].isna().tolist() == [False, True]
    assert frame["b"].iloc[0] == "2"
    assert frame["b"].tolist() == ["2", ""]


FIRST_OF_A_CHUNK = pytest.param(
    CHUNK_ROWS - 1,
    marks=pytest.mark.xfail(pd.__version__ < "3", reason="pandas 2 does not say so of that row"),
)


@pytest.mark.parametrize("row", [0, 1, 39, FIRST_OF_A_CHUNK, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_a_row_longer_than_the_header_is_left_out_and_counted_wherever_it_stands(
    tmp_path: Path, row: int
) -> None:
    content = lines(row) + "1,1,1\n" + lines(3)
    table = open_table(written(tmp_path, "a,y\n" + content), None)
    for _ in range(2):  # however often it is read
        assert sum(map(len, table.chunks(["a"]))) == row + 3
        reason = f"rows of another width, left out (the first in line {row + 2})"
        assert table.notes() == {reason: 1}


def test_rows_that_are_all_longer_than_the_header_are_no_rows(tmp_path: Path) -> None:
    table = open_table(written(tmp_path, "a,y\n" + "1,0,1\n" * 5), None)
    assert sum(map(len, table.chunks(None))) == 0
    assert table.notes() == {"rows of another width, left out (the first in line 2)": 5}


@pytest.mark.filterwarnings("ignore")  # pandas only warns
@pytest.mark.parametrize("row", [0, 1, 39])
def test_by_the_contract_of_old_a_longer_row_is_refused(tmp_path: Path, row: int) -> None:
    path = written(tmp_path, "a,y\n" + lines(row) + "1,1,1\n" + lines(3))
    with pytest.raises(DataError, match=r"t\.csv: .*(more fields than|Expected 2 fields in line)"):
        list(open_table(path, None, 1).chunks(None))


def test_a_row_shorter_than_the_header_misses_its_last_values(tmp_path: Path) -> None:
    frame = whole(written(tmp_path, "a,b,y\n1,2,0\n3\n"))
    assert frame.iloc[1].tolist() == ["3", "", ""]


def test_a_quote_that_never_ends_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: EOF inside string starting at row 6"):
        whole(written(tmp_path, "a,y\n" + lines(5) + '"1,1\n' + lines(5)))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_chunk_never_holds_more_than_its_rows(tmp_path: Path, name: str) -> None:
    rows = 2 * CHUNK_ROWS + 3
    frame = pd.DataFrame({"a": range(rows), "y": [0] * rows})
    if name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    else:
        frame.to_parquet(tmp_path / name, index=False, row_group_size=rows)
    chunks = list(open_table(tmp_path / name, None).chunks(["a"]))
    assert max(map(len, chunks)) <= CHUNK_ROWS
    assert sum(map(len, chunks)) == rows
    assert pd.concat(chunks)["a"].tolist() == list(range(rows))


@given(
    texts=st.lists(st.sampled_from(["x", "a b", "two\n\nlines", "a,b", 'a "b"']), max_size=12),
    skip=st.integers(0, 14),
    group=st.integers(1, 5),
)
def test_skipping_rows_gives_the_tail(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], skip: int, group: int
) -> None:
    folder = tmp_path_factory.mktemp("skip")
    frame = pd.DataFrame({"a": list(range(len(texts))), "text": texts})
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet", index=False, row_group_size=group)
    expected = list(frame.itertuples(index=False, name=None))[skip:]
    for name in ("t.csv", "t.parquet"):
        tail = [
            (int(row.a), row.text)
            for chunk in open_table(folder / name, None).chunks(["a"], skip)
            for row in chunk.itertuples(index=False)
        ]
        assert tail == expected


@pytest.mark.parametrize("skip", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 5])
def test_skipping_across_chunks_gives_the_tail(tmp_path: Path, skip: int) -> None:
    rows = CHUNK_ROWS + 10
    frame = pd.DataFrame({"a": range(rows), "y": [0] * rows})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    for name in ("t.csv", "t.parquet"):
        assert whole(tmp_path / name, ["a"], skip)["a"].tolist() == list(range(skip, rows))


def test_a_blank_line_is_not_counted_as_a_row_that_was_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, "a,y\n0,0\n\n1,1\n\n2,0\n3,1\n")
    assert whole(path)["a"].tolist() == ["0", "1", "2", "3"]
    assert whole(path, skip=2)["a"].tolist() == ["2", "3"]


def test_a_quoted_newline_after_an_empty_field_is_one_row_that_was_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,text,y\n,"two\nlines",0\n1,x,1\n2,x,0\n')
    assert whole(path)["text"].tolist() == ["two\nlines", "x", "x"]
    assert whole(path, skip=1)["a"].tolist() == ["1", "2"]


def test_parquet_decimals_come_as_numbers_and_booleans_as_in_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "flag": pa.array([True, None, False]),
            "amount": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    frame = whole(tmp_path / "t.parquet")
    assert texts(frame["flag"]).tolist() == ["True", None, "False"]
    assert numbers(frame["amount"]).tolist() == pytest.approx([1.5, np.nan, 2.25], nan_ok=True)


def test_parquet_categories_come_as_their_values(tmp_path: Path) -> None:
    frame = pd.DataFrame({"kind": pd.Categorical(["web", "shop", None, "web"])})
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    column = whole(tmp_path / "t.parquet")["kind"]
    assert column.isna().tolist() == [False, False, True, False]
    assert column.dropna().tolist() == ["web", "shop", "web"]


def test_an_index_that_pandas_stored_in_parquet_is_a_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=pd.Index([7, 3, 5], name="id"))
    frame.to_parquet(tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet", None)
    assert table.columns == ["a", "id"]
    assert list(next(table.chunks(None)).columns) == ["a", "id"]


@pytest.mark.parametrize("keep", [4, 7, 60, -1])
def test_a_parquet_file_that_was_cut_is_refused(tmp_path: Path, keep: int) -> None:
    pd.DataFrame({"a": range(100)}).to_parquet(tmp_path / "t.parquet")
    path = written(tmp_path, (tmp_path / "t.parquet").read_bytes()[:keep], "cut.parquet")
    with pytest.raises(DataError, match=r"cut\.parquet: not a readable Parquet file"):
        open_table(path, None)


def test_a_parquet_file_with_a_damaged_page_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [x * 0.37 for x in range(1000)]}).to_parquet(tmp_path / "t.parquet")
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[20:70] = b"\xff" * 50
    path = written(tmp_path, bytes(data), "damaged.parquet")
    with pytest.raises(DataError, match=r"damaged\.parquet: damaged Parquet file"):
        whole(path)


def parquet_bytes(folder: Path) -> bytearray:
    """A whole Parquet file as pandas writes it."""
    pd.DataFrame({"a": range(100), "kind": ["web", "shop"] * 50}).to_parquet(folder / "t.parquet")
    return bytearray((folder / "t.parquet").read_bytes())


def test_a_parquet_file_with_a_damaged_footer_is_refused(tmp_path: Path) -> None:
    data = parquet_bytes(tmp_path)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 20] = b"\xff" * 20
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable Parquet file"):
        open_table(written(tmp_path, bytes(data), "bad.parquet"), None)


@pytest.mark.parametrize("damage", [b"{[", b"\xff\xff"])
def test_damage_to_what_pandas_stored_beside_the_columns_is_a_data_error(
    tmp_path: Path, damage: bytes
) -> None:
    data = parquet_bytes(tmp_path)
    place = data.index(b'{"index_columns"')
    data[place : place + len(damage)] = damage
    path = written(tmp_path, bytes(data), "odd.parquet")
    with pytest.raises(DataError, match="damaged Parquet file"):
        whole(path)


def test_parquet_files_of_any_damaged_byte_are_read_or_refused(tmp_path: Path) -> None:
    data = parquet_bytes(tmp_path)
    refused = 0
    for place in range(4, len(data) - 4, 11):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        path = written(tmp_path, bytes(changed), "changed.parquet")
        try:
            whole(path)
        except DataError:
            refused += 1
    assert refused


def test_a_parquet_file_is_let_go_of_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    rows = pd.DataFrame({name: np.random.default_rng(1).random(100_000) for name in "abcd"})
    rows.to_parquet(path, index=False, row_group_size=5_000)
    before, most = pa.total_allocated_bytes(), 0
    for _ in ParquetTable(path).chunks(None):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size / 2
