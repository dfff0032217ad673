"""One pass over a whole table: its kinds, and the first mistake in it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.config import TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.files import open_table
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.profile import Profile, profile
from selfheal_cli.sources.rejects import Rejects
from selfheal_cli.sources.table_file import CHUNK_ROWS, nearest
from selfheal_cli.sources.values import as_numbers


def profiled(path: Path, target: str = "y", **values: object) -> Profile:
    """The profile of a file."""
    settings = TableSettings.model_validate({"path": path, "target": target, **values})
    return profile(open_table(path, None), settings, Rejects(settings.max_rejects))


def csv(folder: Path, content: str) -> Path:
    """A CSV file."""
    path = folder / "t.csv"
    path.write_text(content, encoding="utf-8")
    return path


def parquet(folder: Path, frame: pd.DataFrame) -> Path:
    """A Parquet file."""
    path = folder / "t.parquet"
    frame.to_parquet(path, index=False)
    return path


def test_rows_kinds_and_classes_are_those_of_the_whole_file(tmp_path: Path) -> None:
    table_profile = profiled(csv(tmp_path, "kind,v,y\nweb,1,no\nshop,,no\n,2.5,yes\n"))
    assert (table_profile.rows, table_profile.numeric, table_profile.text) == (3, ("v",), ("kind",))
    assert table_profile.target.counts == Counter({"no": 2, "yes": 1})
    assert table_profile.times is None


@pytest.mark.parametrize("where", ["target", "drop", "categorical", "time", "label_time"])
def test_a_column_that_is_not_there_is_named_with_the_nearest_one(
    tmp_path: Path, where: str
) -> None:
    path = csv(tmp_path, "amount,kind,y\n1,a,0\n2,b,1\n")
    names = {
        "target": {"target": "amout"},
        "drop": {"drop": ("amout",)},
        "categorical": {"categorical": ("amout",)},
        "time": {"time": "amout"},
        "label_time": {"time": "amount", "label_time": "amout"},
    }
    with pytest.raises(
        DataError, match=r"t\.csv: no column 'amout'; did you mean 'amount'\?; columns: amount, k"
    ):
        profiled(path, **names[where])


def test_no_name_is_offered_where_none_is_near() -> None:
    assert nearest("target", ["x1", "x2"]) == ""
    assert nearest("amout", ["kind", "amount"]) == "; did you mean 'amount'?"


def test_a_target_that_is_also_dropped_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'y' is both the target and dropped"):
        profiled(csv(tmp_path, "a,y\n1,0\n2,1\n"), drop=("y",))


@pytest.mark.parametrize("values", [{"time": "y"}, {"time": "a", "label_time": "y"}])
def test_a_target_that_is_also_a_time_is_refused(tmp_path: Path, values: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"t\.csv: 'y' is both the target and a time"):
        profiled(csv(tmp_path, "a,v,y\n1,1,0\n2,2,1\n"), **values)


def test_times_are_no_features_and_may_be_of_a_timestamp_type(tmp_path: Path) -> None:
    days = pd.date_range("2026-01-01", periods=4)
    frame = pd.DataFrame({"at": days, "late": days, "v": [1, 2, 3, 4], "y": [0, 1, 0, 1]})
    table_profile = profiled(parquet(tmp_path, frame), time="at", label_time="late")
    assert (table_profile.numeric, table_profile.text) == (("v",), ())
    assert table_profile.times is not None


def test_a_table_of_nothing_but_the_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no feature column is left beside the target 'y'"):
        profiled(csv(tmp_path, "a,y\n1,0\n2,1\n"), drop=("a",))


@pytest.mark.parametrize("content", ["a,y\n", "a,y"])
def test_a_header_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv: no rows below the header"):
        profiled(csv(tmp_path, content))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.array([], dtype=float), "y": np.array([], dtype=int)})
    with pytest.raises(DataError, match="no rows below the header"):
        profiled(parquet(tmp_path, frame))


@pytest.mark.parametrize("row", [1, 3, CHUNK_ROWS, CHUNK_ROWS + 7])
def test_a_missing_target_names_row_and_column(tmp_path: Path, row: int) -> None:
    content = "".join(f"1,{number % 2}\n" for number in range(row - 1))
    with pytest.raises(DataError, match=rf"row {row}, column 'y': the target is missing"):
        profiled(csv(tmp_path, f"a,y\n{content}1,\n1,1\n"), reject_misfits=False)


@pytest.mark.parametrize("row", [2, CHUNK_ROWS + 7])
def test_a_text_in_a_numeric_column_names_row_column_and_value(tmp_path: Path, row: int) -> None:
    content = "".join(f"{number},{number % 2}\n" for number in range(row - 1))
    with pytest.raises(
        DataError,
        match=rf"row {row}, column 'a': 'n/k' is not a number; .*--categorical a or --drop a",
    ):
        profiled(
            csv(tmp_path, f"a,y\n{content}n/k,1\n5,0\nlater,1\n6,1\n7,0\n"), reject_misfits=False
        )


def test_a_few_misfits_among_many_rows_are_put_aside_and_counted_by_reason(tmp_path: Path) -> None:
    content = "".join(f"{number},{number % 2}\n" for number in range(200))
    path = csv(tmp_path, f"a,y\nn/k,1\n{content}5,\nlater,rare\n6,NA\n7,0\n")
    rejects = Rejects(4)
    found = profile(open_table(path, None), TableSettings(path=path, target="y"), rejects)
    assert (found.rows, found.numeric, dict(found.target.counts)) == (
        201,
        ("a",),
        {"0": 101, "1": 100},
    )
    assert rejects.notes() == {
        "lines put aside (rejects.ndjson)": 4,
        "put aside: column 'a' holds no number": 2,
        "put aside: column 'y' has no label": 2,
    }
    assert [found.table.place(row) for row in (1, 200, 201)] == [
        f"{path}: row {row}" for row in (2, 201, 205)
    ]
    rejects.to(tmp_path)
    told = [json.loads(line) for line in (tmp_path / "rejects.ndjson").read_text().splitlines()]
    assert [one["number"] for one in told] == [1, 202, 203, 204]
    assert told[2]["reason"] == "column 'a': 'later' is not a number"
    assert json.loads(told[2]["line"]) == {"a": "later", "y": "rare"}


@pytest.mark.parametrize("skip", [0, 1, 150, 201, 202])
def test_rows_that_are_left_are_read_from_any_place_on(tmp_path: Path, skip: int) -> None:
    numbers = [str(number) for number in range(250)]
    for gone in (0, 1, 202, 203, 249):
        numbers[gone] = "x"
    path = csv(tmp_path, "a,y\n" + "".join(f"{one},{n % 2}\n" for n, one in enumerate(numbers)))
    left = [float(one) for one in numbers if one != "x"]
    read = [float(v) for chunk in profiled(path).table.chunks(["a"], skip) for v in chunk["a"]]
    assert read == left[skip:]


def test_too_many_misfits_end_the_look_naming_one(tmp_path: Path) -> None:
    content = "".join(f"{number},{number % 2}\n" for number in range(900))
    path = csv(tmp_path, f"a,y\n{content}" + "x,1\n" * 4)
    with pytest.raises(
        DataError, match=r"row 904, column 'a': 'x' is not a number; 4 .*max_rejects 3"
    ):
        profiled(path, max_rejects=3)
    many = csv(tmp_path, f"a,y\n{content}" + "x,1\n" * 101)
    with pytest.raises(DataError, match=r"row 901, column 'a': 'x' .* --categorical a"):
        profiled(many, max_rejects=1_000)


@pytest.mark.parametrize("value", ["inf", "-inf", "Infinity", "1e400"])
def test_an_infinite_value_is_a_number_and_refuses_no_table(tmp_path: Path, value: str) -> None:
    table_profile = profiled(csv(tmp_path, f"a,y\n1,0\n{value},1\n"))
    assert (table_profile.rows, table_profile.numeric) == (2, ("a",))


def test_by_the_contract_of_old_an_infinite_value_names_row_and_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.0, 1.0, -np.inf], "y": [0, 1, 0]})
    path = parquet(tmp_path, frame)
    with pytest.raises(DataError, match="row 3, column 'a': an infinite value"):
        profile(open_table(path, None, 1), TableSettings(path=path, target="y"), Rejects(1))


def test_a_column_of_mostly_text_is_text(tmp_path: Path) -> None:
    table_profile = profiled(csv(tmp_path, "a,v,y\n1,5,0\nx,6,1\ny,7,0\n"))
    assert (table_profile.numeric, table_profile.text) == (("v",), ("a",))


def test_a_column_declared_categorical_may_hold_numbers(tmp_path: Path) -> None:
    path = csv(tmp_path, "zone,v,y\n1,5,0\n2,6,1\nx,7,0\n")
    table_profile = profiled(path, categorical=("zone",))
    assert (table_profile.numeric, table_profile.text) == (("v",), ("zone",))


def test_a_dropped_column_may_hold_anything(tmp_path: Path) -> None:
    table_profile = profiled(csv(tmp_path, "a,v,y\n1,5,0\n2,6,1\nx,7,0\ninf,8,1\n"), drop=("a",))
    assert (table_profile.numeric, table_profile.text, table_profile.rows) == (("v",), (), 4)


def test_a_timestamp_column_is_text_as_in_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"at": pd.date_range("2026-01-01", periods=4), "y": [0, 1, 0, 1]})
    assert profiled(parquet(tmp_path, frame)).text == ("at",)


def test_a_column_of_durations_is_refused_with_its_type(tmp_path: Path) -> None:
    frame = pd.DataFrame({"at": pd.to_timedelta([1, 2, 3, 4], unit="s"), "y": [0, 1, 0, 1]})
    with pytest.raises(DataError, match=r"column 'at' holds timedelta.*give --drop at or convert"):
        profiled(parquet(tmp_path, frame))


def test_a_timestamp_column_may_be_dropped(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"at": pd.date_range("2026-01-01", periods=4), "v": [1, 2, 3, 4], "y": [0, 1, 0, 1]}
    )
    assert profiled(parquet(tmp_path, frame), drop=("at",)).numeric == ("v",)


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"many": [[1], [2]], "y": [0, 1]})
    with pytest.raises(DataError, match="column 'many' holds nested values; numbers and text"):
        profiled(parquet(tmp_path, frame))


def test_a_csv_column_without_any_value_is_numeric(tmp_path: Path) -> None:
    assert profiled(csv(tmp_path, "a,v,y\n,1,0\n,2,1\n")).numeric == ("a", "v")


def test_a_parquet_column_without_any_value_is_as_in_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [None, None], "v": [1, 2], "y": [0, 1]})
    assert profiled(parquet(tmp_path, frame)).numeric == ("a", "v")


def test_numbers_written_as_text_in_parquet_are_numbers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["1", "2.5", None], "y": [0, 1, 0]})
    assert profiled(parquet(tmp_path, frame)).numeric == ("a",)


def test_as_numbers_is_nan_where_there_is_no_number() -> None:
    numbers = as_numbers(pd.Series(["1", " 2.5 ", "x", None, "1e400"], dtype="str"))
    np.testing.assert_array_equal(numbers[:4], [1.0, 2.5, np.nan, np.nan])
    assert not np.isfinite(numbers[4])  # pandas 2 says NaN; either counts as missing


def test_target_values_lose_the_spaces_around_them() -> None:
    assert as_text(pd.Series([" yes", "yes ", "no"])).tolist() == ["yes", "yes", "no"]


def test_whole_floats_and_integers_are_one_class() -> None:
    assert as_text(pd.Series([0.0, 1.0])).tolist() == as_text(pd.Series([0, 1])).tolist()
    assert as_text(pd.Series([0.0, 0.5])).tolist() == ["0", "0.5"]


def test_whole_floats_and_integers_are_one_class_in_csv_too(tmp_path: Path) -> None:
    assert set(profiled(csv(tmp_path, "a,y\n1,0\n2,1\n3,1.0\n")).target.counts) == {"0", "1"}


def test_a_class_has_one_name_in_every_chunk(tmp_path: Path) -> None:
    half = np.tile([0.0, 0.5], 50)
    frame = pd.DataFrame({"y": np.concatenate([np.zeros(CHUNK_ROWS), half])})
    frame["v"] = np.arange(len(frame))
    assert set(profiled(parquet(tmp_path, frame)).target.counts) == {"0", "0.5"}
