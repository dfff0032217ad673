"""``selfheal run --segment-by``: what is said, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.api.report import report_of
from selfheal_cli.events import types as events
from selfheal_cli.events.archive import find_run
from selfheal_cli.events.log import read
from tests.conftest import Invoke

SHARED = ("--target", "y", "--no-plots", "--set", "network.epochs=1")


def table(rows: int = 2_400, seed: int = 0) -> pd.DataFrame:
    """Ten countries, of which DE moves in ``b`` after half of the rows."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 2))
    codes = draw.integers(0, 10, rows)
    x[(codes == 3) & (np.arange(rows) > rows / 2), 1] += 2.5
    y = x[:, 0] + draw.standard_normal(rows) > 0
    names = np.array(["AT", "BE", "CH", "DE", "ES", "FR", "GB", "HU", "IT", "LU"], dtype=object)
    countries = names[codes]
    countries[::50] = None
    return pd.DataFrame(
        {"a": x[:, 0], "b": x[:, 1], "country": countries,
         "payment": [f"p{row}" for row in range(rows)], "y": y.astype(int)}
    )  # fmt: skip


@pytest.mark.slow
def test_the_segment_that_drifts_is_named_in_table_document_report_and_log(
    workdir: Path, invoke: Invoke
) -> None:
    table().to_csv("rows.csv", index=False)
    said = invoke("run", "rows.csv", *SHARED, "--segment-by", "country").output
    assert "segments-drifted in batch" in said
    assert "country DE: b by" in said
    assert "country DE by itself:" in said
    assert "of all rows" in said
    assert "Segments: 1 of 10 segments drifted; of none: 36 rows without a value" in said
    log = find_run("latest")
    assert log is not None
    (drifted,), (ranked,) = (
        [one for one in read(log) if isinstance(one, kind)]
        for kind in (events.SegmentsDrifted, events.SegmentsRanked)
    )
    assert [(one["segment"], one["column"]) for one in drifted.segments] == [("DE", "b")]
    assert drifted.segments[0]["since"] == drifted.batch
    assert ranked.drifted[0]["effect"] > 0.3
    assert ranked.slices[0]["segment"] == "DE"
    assert sum(one["rows"] for one in ranked.slices) + ranked.unkeyed == 1_800
    assert all(one["labelled"] == one["rows"] for one in ranked.slices)
    assert ranked.whole["b"] < ranked.drifted[0]["effect"]
    page = report_of(log.parent.name).path.read_text()
    assert page.count('<th scope="row">DE</th>') == 2  # among those that drifted, and the slices
    # a column that is no feature tells segments apart as well, and says so in the document
    told = json.loads(
        invoke("run", "rows.csv", *SHARED, "--segment-by", "country", "--drop", "country",
               "--json").stdout
    )  # fmt: skip
    assert [one["segment"] for one in told["segments"]["drifted"]] == ["DE"]
    assert told["config"]["segments"]["by"] == "country"
    assert told["config"]["policy"]["segments"] == {"false_discovery_rate": 0.05, "level": 0.95}


@pytest.mark.slow
def test_a_run_without_segments_says_nothing_of_them(workdir: Path, invoke: Invoke) -> None:
    table(600).to_csv("rows.csv", index=False)
    told = json.loads(invoke("run", "rows.csv", *SHARED, "--batches", "1", "--json").stdout)
    assert "segments" not in told
    assert "segments" not in told["config"]
    assert "segments" not in told["config"]["policy"]


@pytest.mark.parametrize(
    ("by", "what"),
    [
        ("contry", "no column 'contry'; did you mean 'country'?; columns: a, b, country"),
        ("y", "segments.by = 'y' is the target; a segment is known before the label is"),
        ("payment", "'payment' has 600 values in 600 training rows: it names rows, not segments"),
        ("a", "'a' has 600 values in 600 training rows: it names rows"),
        ("empty", "segments.by = 'empty': the training rows have no value in it"),
    ],
)
def test_a_column_that_makes_no_segments_is_refused_before_anything_is_kept(
    workdir: Path, invoke: Invoke, by: str, what: str
) -> None:
    table().assign(empty="").to_csv("rows.csv", index=False)
    said = invoke("run", "rows.csv", *SHARED, "--drop", "empty", "--segment-by", by, expect=3)
    assert what in " ".join(said.stderr.split())
    assert find_run("latest") is None or not any(
        isinstance(one, events.ModelTrained) for one in read(find_run("latest") or Path())
    )


def test_more_segments_than_the_bound_are_refused_and_the_synthetic_stream_has_none(
    workdir: Path, invoke: Invoke
) -> None:
    table().to_csv("rows.csv", index=False)
    most = ("--segment-by", "country", "--set", "segments.most=4")
    said = invoke("run", "rows.csv", *SHARED, *most, expect=3).stderr
    assert "has 10 values in 600 training rows; at most 4 segments" in " ".join(said.split())
    said = invoke("run", "--segment-by", "country", expect=3).stderr
    assert "segments.by = 'country' is not a column of the rows" in " ".join(said.split())
