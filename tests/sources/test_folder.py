"""A folder of Parquet parts: their order, and the first part that does not agree."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from selfheal_cli.errors import DataError
from selfheal_cli.sources.parquet import ParquetFolder
from selfheal_cli.sources.table_file import CHUNK_ROWS
from tests.sources.kinds import opened, plain, written


def parts(folder: Path, **frames: pd.DataFrame) -> Path:
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def test_parts_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    frame = plain(3 * CHUNK_ROWS)
    cuts = {"p10": frame[:5], "p2": frame[5:9], "p1": frame[9:]}
    table = ParquetFolder(parts(tmp_path, **cuts))
    read = [value for chunk in table.chunks(["number"]) for value in chunk["number"]]
    assert read == [*range(9, len(frame)), *range(5), *range(5, 9)]


@pytest.mark.parametrize("skip", [0, 4, 5, 6, 9, 14, 15, 99])
def test_rows_are_passed_over_across_parts(skip: int, tmp_path: Path) -> None:
    frame = plain(15)
    table = ParquetFolder(parts(tmp_path, a=frame[:5], b=frame[5:9], c=frame[9:]))
    read = [value for chunk in table.chunks(["number"], skip) for value in chunk["number"]]
    assert read == list(range(skip, 15))


def test_a_mistake_is_told_by_its_part_and_its_row_there(tmp_path: Path) -> None:
    frame = plain(95).assign(kind=[str(n) for n in range(95)])
    frame.loc[71, "kind"] = "much"
    strict = {"reject_misfits": False}
    settings = written("folder", frame, tmp_path).model_copy(update=strict)
    with pytest.raises(DataError, match=r"b\.parquet: row 41, column 'kind': 'much' is not a numb"):
        opened(settings)


def test_parts_must_agree_in_columns_types_and_order(tmp_path: Path) -> None:
    frame = plain(20)
    for number, (other, message) in enumerate(
        [
            (frame.drop(columns="wave"), r"b\.parquet: no column 'wave', which a\.parquet has"),
            (frame.assign(more=1), r"b\.parquet: column 'more' is not in a\.parquet"),
            (frame.assign(number="x"), r"b\.parquet: column 'number' holds .*string, in a\.parq"),
            (frame[["wave", "number", "kind", "y"]], r"b\.parquet: its columns are in another or"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(DataError, match=message):
            ParquetFolder(parts(folder, a=frame, b=other))


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file in the folder is named \*\.parquet"):
        ParquetFolder(tmp_path)


def test_it_is_kept_as_one_file(tmp_path: Path) -> None:
    frame = plain(15)
    table = ParquetFolder(parts(tmp_path, a=frame[:5], b=frame[5:]))
    table.keep(tmp_path / "kept")
    assert pd.read_parquet(tmp_path / "kept").equals(frame)
