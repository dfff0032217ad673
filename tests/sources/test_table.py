"""A file as a source: its parts, its batches, its encoding, its counts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import TableSettings
from selfheal_cli.errors import DataError
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources import table as table_module
from selfheal_cli.sources.encoding import CategoricalColumn, Encoding, NumericColumn
from selfheal_cli.sources.files import open_table
from selfheal_cli.sources.fit import MAX_CATEGORIES
from selfheal_cli.sources.table import BLOCK_ROWS, TableSource
from selfheal_cli.sources.table_file import CHUNK_ROWS

KINDS = ("web", "shop", "phone")
KNOWN_FILES = ("csv", "parquet")


def opened(
    path: Path, *, batch_size: int = 10, batches: int | None = None, **values: object
) -> TableSource:
    """A source over a file whose target is ``y``."""
    table = TableSettings.model_validate({"path": path, "target": "y", **values})
    return TableSource(
        table, open_table(path, table.separator), batch_size=batch_size, batches=batches
    )


def plain(rows: int) -> pd.DataFrame:
    """Rows that tell their own number, two classes, a text and some missing values."""
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "number": number.astype(float),
            "wave": np.where(number % 7 == 3, np.nan, np.sin(number)),
            "kind": [None if n % 11 == 5 else KINDS[n % 3] for n in number],
            "y": number % 2,
        }
    )


def saved(folder: Path, frame: pd.DataFrame, name: str = "t.csv") -> Path:
    """The frame as CSV or Parquet, by its name."""
    path = folder / name
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def same_rows(first: Rows, second: Rows) -> bool:
    """Inputs, labels and raw columns are the same, missing values included."""
    return (
        np.array_equal(first.x, second.x)
        and np.array_equal(first.y, second.y)
        and first.columns.keys() == second.columns.keys()
        and all(
            pd.Series(first.columns[name]).equals(pd.Series(second.columns[name]))
            for name in first.columns
        )
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    """The same batches, by index and rows."""
    return [batch.index for batch in first] == [batch.index for batch in second] and all(
        same_rows(one.rows, other.rows) for one, other in zip(first, second, strict=True)
    )


def numbers(batches: list[Batch]) -> list[float]:
    """Which rows of `plain` the batches hold."""
    return [float(value) for batch in batches for value in batch.rows.columns["number"]]


def test_every_row_is_either_trained_on_or_streamed_in_order(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(95)), train_fraction=0.3)
    trained = np.concatenate([rows.columns["number"] for rows in source.training()])
    assert trained.tolist() == list(range(28))
    assert numbers(list(source.batches())) == list(range(28, 95))


def test_the_last_partial_batch_is_kept(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(95)), train_fraction=0.3)
    assert source.batch_count == 7
    assert [len(batch.rows) for batch in source.batches()] == [10] * 6 + [7]
    assert [batch.index for batch in source.batches()] == list(range(1, 8))


def test_batches_run_across_the_chunks_of_the_file(tmp_path: Path) -> None:
    rows = 2 * CHUNK_ROWS + 500
    source = opened(saved(tmp_path, plain(rows)), batch_size=3_000, train_fraction=0.2)
    start = int(rows * 0.2)
    streamed = list(source.batches())
    assert {len(batch.rows) for batch in streamed[:-1]} == {3_000}
    assert numbers(streamed) == list(range(start, rows))


def test_fewer_batches_can_be_asked_for_but_not_more(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(95))
    few, many = opened(path, batches=2), opened(path, batches=500)
    assert (few.batch_count, many.batch_count) == (2, 8)
    assert same(list(few.batches()), list(many.batches())[:2])


@given(
    rows=st.integers(24, 90),
    batch_size=st.integers(2, 12),
    start=st.integers(1, 50),
    asked=st.none() | st.integers(1, 9),
    suffix=st.sampled_from(["csv", "parquet"]),
)
def test_batches_from_a_start_equal_the_tail_of_all_batches(
    rows: int, batch_size: int, start: int, asked: int | None, suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder), plain(rows), f"t.{suffix}")
        source = opened(path, batch_size=batch_size, batches=asked, train_fraction=0.5)
        start = min(start, source.batch_count + 1)
        assert same(list(source.batches(start)), list(source.batches())[start - 1 :])


def test_there_is_nothing_past_the_last_batch(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(95)), batches=2)
    assert list(source.batches(3)) == []
    assert list(source.batches(4)) == []


def test_blank_lines_do_not_bring_training_rows_into_the_stream(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(95))
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    spaced = [line + "\n" if number < 10 else line for number, line in enumerate(lines)]
    path.write_text("".join([header, *spaced]), encoding="utf-8")
    source = opened(path, train_fraction=0.3)
    assert numbers(list(source.batches())) == list(range(28, 95))


def test_a_quoted_newline_after_an_empty_field_is_skipped_whole(tmp_path: Path) -> None:
    frame = plain(80).assign(kind="two\nlines")[["wave", "kind", "number", "y"]]
    frame.loc[3, "wave"] = np.nan
    source = opened(saved(tmp_path, frame))
    assert numbers(list(source.batches())) == list(range(20, 80))


def test_training_may_be_asked_for_again(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(60)))
    first, second = list(source.training()), list(source.training())
    assert len(first) == len(second) == 1
    assert same_rows(first[0], second[0])


def test_a_long_training_part_comes_in_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BLOCK_ROWS > CHUNK_ROWS
    monkeypatch.setattr(table_module, "BLOCK_ROWS", 2 * CHUNK_ROWS)
    rows = 5 * CHUNK_ROWS
    source = opened(saved(tmp_path, plain(rows), "t.parquet"), train_fraction=0.9)
    blocks = list(source.training())
    assert [len(block) for block in blocks] == [2 * CHUNK_ROWS, 2 * CHUNK_ROWS, CHUNK_ROWS // 2]
    joined = np.concatenate([block.columns["number"] for block in blocks])
    assert joined.tolist() == list(range(int(rows * 0.9)))


def test_csv_and_parquet_of_the_same_rows_give_the_same_source(tmp_path: Path) -> None:
    frame = plain(2 * CHUNK_ROWS)
    options = {"batch_size": 500, "train_fraction": 0.4}
    csv = opened(saved(tmp_path, frame, "t.csv"), **options)
    parquet = opened(saved(tmp_path, frame, "t.parquet"), **options)
    assert csv.encoding.names == parquet.encoding.names == ["number", "wave", "kind"]
    assert csv.labels == parquet.labels == ("0", "1")
    for one, other in zip(csv.batches(), parquet.batches(), strict=True):
        np.testing.assert_allclose(one.rows.x, other.rows.x, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(one.rows.y, other.rows.y)
    assert csv.notes() == parquet.notes()


TABLES = st.lists(
    st.tuples(
        st.none() | st.floats(-1e6, 1e6, allow_subnormal=False),
        st.none() | st.sampled_from(["a", "b c", "quoted, comma", "two\nlines", 'a "b"']),
        st.booleans(),
    ),
    min_size=8,
    max_size=30,
)


@given(table=TABLES)
def test_csv_and_parquet_of_the_same_table_give_the_same_x_and_y(
    table: list[tuple[float | None, str | None, bool]],
) -> None:
    start: list[tuple[float, str, bool]] = [(1.0, "a", False), (2.0, "a", True)] * 8
    frame = pd.DataFrame([*start, *table], columns=["v", "kind", "yes"])
    frame = frame.assign(y=frame.pop("yes").map({True: "yes", False: "no"}))
    frame.insert(0, "place", range(len(frame)))
    with tempfile.TemporaryDirectory() as folder:
        sources = [
            opened(saved(Path(folder), frame, name), batch_size=4, train_fraction=0.5)
            for name in ("t.csv", "t.parquet")
        ]
        for one, other in zip(*(source.batches() for source in sources), strict=True):
            np.testing.assert_allclose(one.rows.x, other.rows.x, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(one.rows.y, other.rows.y)
        assert sources[0].notes() == sources[1].notes()


def test_integers_declared_categorical_are_the_same_in_csv_and_parquet(tmp_path: Path) -> None:
    frame = plain(80).assign(zone=[1, 2, 3, 4] * 20).drop(columns=["kind"])
    csv = opened(saved(tmp_path, frame, "t.csv"), categorical=("zone",))
    parquet = opened(saved(tmp_path, frame, "t.parquet"), categorical=("zone",))
    for one, other in zip(csv.batches(), parquet.batches(), strict=True):
        np.testing.assert_allclose(one.rows.x, other.rows.x, rtol=1e-6, atol=1e-6)


def test_whole_float_targets_have_the_same_labels_in_csv_and_parquet(tmp_path: Path) -> None:
    frame = plain(80).astype({"y": float})
    csv, parquet = (opened(saved(tmp_path, frame, f"t.{kind}")) for kind in ("csv", "parquet"))
    assert csv.labels == parquet.labels


@pytest.mark.parametrize("column", ["y", "flag"])
def test_booleans_are_the_same_in_csv_and_parquet(tmp_path: Path, column: str) -> None:
    frame = plain(80).assign(**{column: [True, False, False, True] * 20})
    csv, parquet = (opened(saved(tmp_path, frame, f"t.{kind}")) for kind in ("csv", "parquet"))
    assert csv.labels == parquet.labels
    assert csv.encoding.width == parquet.encoding.width


def test_timestamps_declared_categorical_are_the_same_in_csv_and_parquet(tmp_path: Path) -> None:
    days = pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"] * 20)
    frame = plain(80).assign(day=days)
    csv, parquet = (
        opened(saved(tmp_path, frame, f"t.{kind}"), categorical=("day",))
        for kind in ("csv", "parquet")
    )
    for one, other in zip(csv.batches(), parquet.batches(), strict=True):
        np.testing.assert_allclose(one.rows.x, other.rows.x, rtol=1e-6, atol=1e-6)


def odd_texts(rows: int) -> pd.DataFrame:
    """Texts with spaces around them, and texts that could be numbers."""
    return plain(rows).assign(kind=[" web", "shop ", "1.0", "x"] * (rows // 4))


def test_odd_texts_are_the_same_in_csv_and_parquet(tmp_path: Path) -> None:
    csv, parquet = (opened(saved(tmp_path, odd_texts(80), f"t.{kind}")) for kind in KNOWN_FILES)
    assert csv.encoding.columns[2] == parquet.encoding.columns[2]
    assert csv.notes() == parquet.notes()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_caller_s_frame_of_the_same_rows_gives_the_same_inputs(
    tmp_path: Path, suffix: str
) -> None:
    frame = odd_texts(80)
    source = opened(saved(tmp_path, frame, f"t.{suffix}"))
    streamed = np.concatenate([batch.rows.x for batch in source.batches()])
    raw = source.encoding.raw(frame.iloc[20:])
    np.testing.assert_array_equal(source.encoding.encode(raw), streamed)


def test_the_encoding_is_that_of_the_training_part(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(100)), train_fraction=0.4)
    wave = plain(40)["wave"].dropna()
    number, waves, kind = source.encoding.columns
    assert isinstance(number, NumericColumn)
    assert isinstance(waves, NumericColumn)
    assert (number.mean, number.sd) == pytest.approx((19.5, np.arange(40).std()))
    assert (waves.mean, waves.sd) == pytest.approx((wave.mean(), wave.std(ddof=0)))
    assert kind == CategoricalColumn(name="kind", categories=("phone", "shop", "web"))


def test_changing_later_rows_does_not_change_the_encoding(tmp_path: Path) -> None:
    frame = plain(100)
    later = frame.copy()
    later.loc[40:, "number"] *= -1_000
    later.loc[40:, "kind"] = "another"
    before = opened(saved(tmp_path, frame, "before.csv"), train_fraction=0.4)
    after = opened(saved(tmp_path, later, "after.csv"), train_fraction=0.4)
    assert after.encoding == before.encoding
    frame.loc[39, "number"] *= -1_000
    earlier = opened(saved(tmp_path, frame, "earlier.csv"), train_fraction=0.4)
    assert earlier.encoding != before.encoding


def test_training_inputs_are_standardised(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(400)), train_fraction=0.5)
    x = np.concatenate([rows.x for rows in source.training()])
    np.testing.assert_allclose(x[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(x[:, 0].std(), 1, atol=1e-5)
    np.testing.assert_array_equal(x[:, 2:].sum(axis=1), np.ones(200))


def test_missing_values_and_unseen_categories_of_the_stream_are_counted(tmp_path: Path) -> None:
    frame = plain(80)
    frame["wave"] = np.sin(frame["number"])
    frame["kind"] = "web"
    frame.loc[3, "wave"] = np.nan  # in the training part: not counted
    frame.loc[[50, 60, 70], "wave"] = np.nan
    frame.loc[[51, 61], "kind"] = None
    frame.loc[55, "kind"] = "pigeon"
    source = opened(saved(tmp_path, frame), train_fraction=0.5)
    list(source.training())
    assert source.notes() == {}
    streamed = list(source.batches())
    assert source.notes() == {
        "missing values": 5,
        "unseen categories": 1,
        "values out of the training range": 40,  # of the column that counts on
    }
    x = np.concatenate([batch.rows.x for batch in streamed])
    assert x[10, 1] == 0.0  # the mean
    assert x[11, 2:].tolist() == [0.0, 1.0]
    assert x[15, 2:].tolist() == [0.0, 0.0]


def test_only_the_most_frequent_categories_have_an_input(tmp_path: Path) -> None:
    many = MAX_CATEGORIES + 6
    names = [f"k{number:03}" for number in range(many)]
    frame = pd.DataFrame({"kind": [*names, *names[6:]] * 2})
    frame["y"] = np.arange(len(frame)) % 2
    source = opened(saved(tmp_path, frame), train_fraction=0.5)
    (column,) = source.encoding.columns
    assert column == CategoricalColumn(name="kind", categories=tuple(names[6:]))


def test_a_constant_column_says_only_in_which_direction_it_moved(tmp_path: Path) -> None:
    frame = plain(80).assign(same=0.1)
    frame.loc[60:69, "same"] = 871.0
    frame.loc[70:, "same"] = 0.0
    source = opened(saved(tmp_path, frame), train_fraction=0.5)
    place = source.encoding.names.index("same")
    column = source.encoding.columns[place]
    assert isinstance(column, NumericColumn)
    assert (column.mean, column.sd, column.constant) == (pytest.approx(0.1, rel=1e-12), 1.0, True)
    assert not getattr(source.encoding.columns[0], "constant", True)
    position = sum(column.width for column in source.encoding.columns[:place])
    x = np.concatenate([batch.rows.x[:, position] for batch in source.batches()])
    assert x.tolist() == [0.0] * 20 + [1.0] * 10 + [-1.0] * 10


def test_a_column_that_is_empty_in_training_cannot_drown_a_row_later(tmp_path: Path) -> None:
    frame = plain(80)
    frame["new"] = np.where(frame["number"] < 40, np.nan, 871.0)
    source = opened(saved(tmp_path, frame), drop=("kind",), train_fraction=0.5)
    assert next(source.batches()).rows.x[:, 2].tolist() == [1.0] * 10


def test_values_too_large_for_an_input_are_missing_and_counted(tmp_path: Path) -> None:
    frame = plain(80).assign(huge=[1e200, 3.0] * 40)
    source = opened(saved(tmp_path, frame))
    rows = [batch.rows for batch in source.batches()]
    assert all(np.isfinite(part.x).all() for part in rows)
    assert np.isnan(rows[0].columns["huge"]).sum() == len(rows[0]) // 2
    streamed = sum(map(len, rows))
    assert source.notes()["numbers beyond 3.4e38, taken as missing"] == streamed // 2


def test_large_values_give_a_finite_encoding(tmp_path: Path) -> None:
    frame = plain(80).assign(huge=[1e38, -1e38] * 40)
    encoding = opened(saved(tmp_path, frame)).encoding
    assert Encoding.model_validate_json(encoding.model_dump_json()) == encoding


def test_dropped_columns_are_no_features(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(80)), drop=("wave", "kind"))
    assert source.encoding.names == ["number"]
    assert list(next(source.batches()).rows.columns) == ["number"]


def test_the_named_positive_is_one(tmp_path: Path) -> None:
    frame = plain(80)
    frame["y"] = np.where(frame["y"] == 1, "good", "bad")
    path = saved(tmp_path, frame)
    good, bad = opened(path, positive="good"), opened(path, positive="bad")
    assert (good.labels, bad.labels) == (("bad", "good"), ("good", "bad"))
    for one, other in zip(good.batches(), bad.batches(), strict=True):
        np.testing.assert_array_equal(one.rows.y, 1 - other.rows.y)
        np.testing.assert_array_equal(one.rows.y, (one.rows.columns["number"] % 2).astype(int))


def test_a_positive_that_the_target_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: '2' is not a value of the target; it has '0'"):
        opened(saved(tmp_path, plain(80)), positive="2")


@pytest.mark.parametrize(
    ("rows", "fraction", "trained"), [(30, 0.25, 7), (30, 0.75, 22), (9, 0.5, 4)]
)
def test_fewer_rows_than_one_batch_in_a_part_are_refused(
    tmp_path: Path, rows: int, fraction: float, trained: int
) -> None:
    with pytest.raises(
        DataError,
        match=rf"t\.csv: {rows} rows give {trained} to train on and {rows - trained} to stream; "
        "each part needs at least one batch of 10: .*train_fraction or a smaller --batch-size",
    ):
        opened(saved(tmp_path, plain(rows)), train_fraction=fraction)


def test_one_batch_in_each_part_is_enough(tmp_path: Path) -> None:
    assert opened(saved(tmp_path, plain(20)), train_fraction=0.5).batch_count == 1


def test_a_training_part_of_one_class_is_refused(tmp_path: Path) -> None:
    frame = plain(80)
    frame["y"] = np.where(frame["number"] < 50, "no", "yes")
    with pytest.raises(
        DataError, match=r"the first 20 rows hold only 'no' in 'y'; .*larger source.train_fraction"
    ):
        opened(saved(tmp_path, frame))


def test_mistakes_are_found_before_anything_is_streamed(tmp_path: Path) -> None:
    path = saved(tmp_path, plain(80))
    path.write_text(path.read_text(encoding="utf-8") + "80,x7,web,0\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 81, column 'wave': 'x7' is not a number"):
        opened(path, reject_misfits=False)


@pytest.mark.parametrize("at", [3, 40, 80])
def test_with_a_misfit_a_table_gives_the_batches_that_it_gives_without(
    tmp_path: Path, at: int
) -> None:
    path = saved(tmp_path, plain(80))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    without = opened(path)
    expected = [batch.rows.x.tolist() for batch in without.batches()]
    path.write_text("".join([*lines[: at + 1], "80,x7,web,0\n", *lines[at + 1 :]]), "utf-8")
    found = opened(path)
    assert [batch.rows.x.tolist() for batch in found.batches()] == expected
    assert [batch.rows.x.tolist() for batch in found.batches(3)] == expected[2:]
    assert found.notes()["put aside: column 'wave' holds no number"] == 1


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: no column 'label'"):
        opened(saved(tmp_path, plain(80)), target="label")


def test_a_file_without_a_header_is_asked_for_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("51.257,4.6,shop,-1.769,1e-3\n" * 80, "utf-8")
    with pytest.raises(DataError, match="is the first row a header"):
        opened(path, target="label")
    path.write_text("0,1,2,label_of\n1,2,3,0\n" * 40, "utf-8")
    with pytest.raises(DataError, match=r"columns: 0, 1, 2, label_of$"):
        opened(path, target="label")


def test_there_are_no_held_out_rows_and_no_known_limit(tmp_path: Path) -> None:
    source = opened(saved(tmp_path, plain(80)))
    assert source.held_out() == {}
    assert source.limit() is None
