"""A first file says of any columns what was seen and asked, and reads back as such."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import TableSettings
from selfheal_cli.settings.findings import ScaffoldOptions
from selfheal_cli.settings.resolve import resolve
from selfheal_cli.settings.scaffold import draft_synthetic, draft_table
from selfheal_cli.settings.sources import parse_document
from selfheal_cli.settings.telling import area, tell
from selfheal_cli.sources.files import open_table
from selfheal_cli.sources.inspection import (
    likely_ids,
    likely_targets,
    look_at,
    many_values,
    no_features,
)
from selfheal_cli.sources.table import TableSource

ROWS = 80
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)


def table(folder: Path, frame: pd.DataFrame) -> Path:
    """The rows as a Parquet file, which keeps any name."""
    path = folder / "rows.parquet"
    frame.to_parquet(path)
    return path


@given(names=st.lists(NAMES, min_size=4, max_size=4, unique=True))
def test_any_names_of_columns_come_back_from_the_file(names: list[str]) -> None:
    number, text, target, left_out = names
    frame = pd.DataFrame({
        number: np.arange(ROWS) % 13,
        text: ["a", "b: #c"] * (ROWS // 2),
        left_out: 1.5,
        target: np.where(np.arange(ROWS) % 13 > 8, "no", "yes"),
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = table(Path(folder), frame)
        draft = draft_table(path, path.as_posix(), ScaffoldOptions(target=target, drop=[left_out]))
        config = resolve([parse_document(draft.text, "selfheal.yaml")]).config
        source = config.source
        assert isinstance(source, TableSettings)
        assert (source.path, source.target, source.drop) == (path, target, (left_out,))
        assert source.positive == "yes"
        assert config.sensitive == number
        TableSource(
            source, open_table(source.path, None), batch_size=config.batch_size, batches=None
        )  # and a run can open it


def test_the_synthetic_draft_is_a_run_s_configuration() -> None:
    config = resolve([parse_document(draft_synthetic("s.json").text, "f.yaml")]).config
    bare = resolve([]).config
    assert config == bare.model_copy(update={"sensitive": "V14"})


def test_a_look_finds_kinds_ids_and_targets_over_many_chunks(tmp_path: Path) -> None:
    rows = 20_000  # more than two chunks
    frame = pd.DataFrame({
        "id": np.arange(rows),
        "shuffled": np.random.default_rng(1).permutation(rows),
        "Invoice No": np.random.default_rng(1).permutation(rows),
        "twice": np.r_[np.arange(rows - 1), 3],
        "at": pd.date_range("2026-01-01", periods=rows, freq="min").astype(str),
        "back": pd.date_range("2026-01-01", periods=rows, freq="min")[::-1].astype(str),
        "mixed": np.where(np.arange(rows) % 9 == 8, "x", "1"),
        "gap": np.where(np.arange(rows) >= 9_000, np.nan, np.arange(rows) % 2),
        "is_late": np.arange(rows) % 3 == 0,
        "y": np.arange(rows) % 2,
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    seen = {column.name: column for column in look_at(open_table(tmp_path / "t.csv", None))}
    assert {name: column.kind for name, column in seen.items()} == {
        "id": "number", "shuffled": "number", "Invoice No": "number", "twice": "number",
        "at": "time", "back": "time", "mixed": "number", "gap": "number",
        "is_late": "text", "y": "number",
    }  # fmt: skip
    assert (seen["at"].rising, seen["back"].rising) == (True, False)
    assert likely_ids(list(seen.values())) == ["id", "Invoice No"]
    assert likely_targets(list(seen.values()), 0.25)[:2] == ["y", "is_late"]
    assert (seen["gap"].first_missing, seen["gap"].missing) == (9_000, 11_000)
    assert seen["is_late"].first_rows == {"True": 0, "False": 1}
    assert (seen["id"].low, seen["id"].high, seen["id"].values) == (0, rows - 1, None)


def test_what_a_column_tells_is_the_area_under_its_roc_curve_on_later_rows(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 400)
    frame = pd.DataFrame({
        "weak": rng.normal(y * 0.5).round(1), "down": -(y + rng.normal(0, 0.1, 400)),
        "noise": rng.normal(size=400), "text": np.where(y == 1, "p", "q"),
        "name": [f"n{place // 2}" for place in rng.permutation(400)], "y": y,
    })  # fmt: skip
    settings_ = TableSettings(path=table(tmp_path, frame), target="y", train_fraction=0.9)
    opened = open_table(settings_.path, None)
    rows = next(TableSource(settings_, opened, batch_size=20, batches=None).training())
    areas = tell(rows, ["weak", "down", "noise"])
    assert set(list(areas)[:2]) == {"down", "text"}
    assert areas["weak"] == pytest.approx(roc_auc_score(y[180:360], frame["weak"][180:360]))
    assert areas["text"] == 1.0
    assert 0.4 < areas["noise"] < 0.6
    assert (
        areas["name"] < 0.65
    )  # though on the rows that it is learned from it would tell nearly all


def test_an_area_of_too_few_rows_says_nothing() -> None:
    assert area(np.arange(4.0), np.array([True, False, False, False])) == 0.5


def test_a_text_of_many_values_is_named_and_one_of_nearly_as_many_as_rows_is_an_identifier(
    tmp_path: Path,
) -> None:
    rows = 300
    frame = pd.DataFrame({
        "card": [f"c{place % 90}" for place in range(rows)],
        "shop": [f"s{place % 59}" for place in range(rows)],
        "reference": [f"r{place - place % 15 // 14}" for place in range(rows)],
        "seconds": 1_700_000_000 + np.arange(rows), "created_at": 1_700_000_000 + np.arange(rows),
    })  # fmt: skip
    seen = {one.name: one for one in look_at(open_table(table(tmp_path, frame), None))}
    assert many_values(seen["card"]).startswith("90 different values, of which the 64 most")
    assert likely_ids(list(seen.values())) == ["reference", "seconds"]
    assert seen["created_at"].kind == "time"
    left_out = no_features(list(seen.values()))
    assert left_out["card"] == "too many values: 90 in 300 rows"
    assert "shop" not in left_out
