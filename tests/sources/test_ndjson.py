"""Files with a JSON object a line: types, what is missing, and the first mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError
from selfheal_cli.sources.ndjson import NdjsonTable, as_frame, parse_object
from selfheal_cli.sources.table_file import CHUNK_ROWS
from selfheal_cli.sources.values import texts

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def table(folder: Path, *rows: Any) -> NdjsonTable:
    path = folder / "t.ndjson"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return NdjsonTable(path)


def read(table_file: NdjsonTable) -> list[dict[str, Any]]:
    return [row for chunk in table_file.chunks(None) for row in chunk.to_dict("records")]


@given(line=st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_any_bytes_are_an_object_or_a_reason(line: bytes) -> None:
    try:
        assert isinstance(parse_object(line), dict)
    except ValueError as exc:
        assert "\n" not in str(exc)


@given(row=st.dictionaries(st.text(max_size=5), SCALARS, max_size=5))
def test_an_object_of_scalars_comes_back(row: dict[str, Any]) -> None:
    line = json.dumps(row)
    assert parse_object(line.encode()) == json.loads(line)


def test_large_whole_numbers_are_not_rounded_into_one_another() -> None:
    frame = as_frame([{"id": 2**60}, {"id": 2**60 + 1}, {"id": None}], ["id"])
    assert texts(frame["id"]).tolist() == [str(2**60), str(2**60 + 1), None]


def test_null_and_absent_are_missing_values(tmp_path: Path) -> None:
    table_file = table(tmp_path, {"a": 1, "b": "x"}, {"a": None}, "", {"a": 2.5, "b": None})
    frame = next(table_file.chunks(None))
    assert frame["a"].isna().tolist() == [False, True, False]
    assert frame["b"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the file is empty"),
        (["soon", "later"], r"t\.ndjson: row 1: not JSON"),
        ([{"a": 1}, "soon", {"a": {"b": 1}}], r"t\.ndjson: row 2: not JSON"),
        ([{"": 1}], "column 1 has no name"),
        ([{f"c{n}": 1 for n in range(10_001)}], "10,001 columns; at most 10,000 are read"),
    ],
    ids=["empty", "none", "most", "no-name", "wide"],
)
def test_a_file_of_no_objects_is_told_with_its_first_row(
    rows: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(table(tmp_path, *rows))


def test_a_row_that_cannot_be_read_has_no_values_and_a_reason(tmp_path: Path) -> None:
    found = table(tmp_path, {"a": 1}, "soon", {"a": {"b": 1}}, {"a": 2}, {"a": 3})
    assert [row["a"] for row in read(found)] == [1, None, None, 2, 3]
    assert {row: one.reason for row, one in found.broken().items()} == {
        2: "not JSON (Expecting value at character 1)",
        3: "column 'a' holds an object; a number or a text is read",
    }


def test_a_column_that_ceases_or_begins_late_is_told(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 2}] * (CHUNK_ROWS + 10)
    found = table(tmp_path, *rows, {"a": 1}, {"a": 1, "b": 2, "c": 3})
    assert len(read(found)) == CHUNK_ROWS + 12
    ((row, broken),) = found.broken().items()
    assert (row, broken.kind) == (CHUNK_ROWS + 11, "column 'b' is missing")
    assert found.notes() == {
        f"columns that the first 8,192 rows lack, left out ('c' in row {CHUNK_ROWS + 12})": 1
    }


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.ndjson: no such file"):
        NdjsonTable(tmp_path / "none.ndjson")
