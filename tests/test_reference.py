"""`--recipe article` gives the figures of the article's own program, to the digit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Invoke

REFERENCE = Path(__file__).parent / "reference"
STAGES = {
    "clean": (0.929, 0.7842, 0.7267, 0.7543, 109, 820, 30, 41),
    "clean_plain": (0.938, 0.8056, 0.7733, 0.7891, 116, 822, 28, 34),
    "unhealed": (0.446, 0.1939, 0.8533, 0.3160, 128, 318, 532, 22),
    "shadow": (0.446, 0.1939, 0.8533, 0.3160, 128, 318, 532, 22),
    "healed": (0.724, 0.2237, 0.3400, 0.2698, 51, 673, 177, 99),
}
FIGURES = ("accuracy", "precision", "recall", "f1", "tp", "tn", "fp", "fn")


def stage(results: dict[str, Any], key: str) -> tuple[float, ...]:
    """The figures of one line of the results table, as the reference prints them."""
    line = next(line for line in results["stages"] if line["key"] == key)
    return tuple(round(line[name], 4) for name in FIGURES)


def results_of(folder: Path) -> dict[str, Any]:
    """The last event of the only run in a folder."""
    (log,) = (folder / "mlruns" / "selfheal" / "runs").glob("*/events.jsonl")
    finished: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])["data"]
    return finished


def test_every_batch_is_the_references_to_the_character(in_article_run: Path) -> None:
    reference = (REFERENCE / "batches.csv").read_text().splitlines()
    ours = Path("monitoring_export/metrics.csv").read_text().splitlines()
    assert len(ours) == len(reference)
    for expected, line in zip(reference, ours, strict=True):
        assert line.startswith(f"{expected},")


def test_every_snapshot_is_the_references_in_the_registry(
    in_article_run: Path, invoke: Invoke
) -> None:
    listed = json.loads(invoke("snapshots", "--json").stdout)
    ours = {
        version["version"]: (
            str(version["batch"]),
            f"{version['metrics']['accuracy']:.3f}",
            f"{version['metrics']['f1']:.3f}",
            version["phase"],
        )
        for version in listed
    }
    with (REFERENCE / "snapshots.csv").open() as stream:
        expected = {int(row.pop("version")): tuple(row.values()) for row in csv.DictReader(stream)}
    assert ours == expected


@pytest.mark.parametrize("key", STAGES)
def test_the_results_table_is_the_references(in_article_run: Path, key: str) -> None:
    assert stage(results_of(in_article_run), key) == STAGES[key]


def test_calibration_and_drift_of_v14_are_the_references(in_article_run: Path) -> None:
    output = Path("output.txt").read_text()
    assert "FIDI watches V14: mean -0.363, standard deviation 1.323, threshold 1" in output
    assert "V14 in clean rows: mean -0.377; rules fire on 18.8 %" in output
    assert "V14 in drifted rows: mean -2.261; rules fire on 77.4 %" in output
    assert "13,250 parameters, 8,321 of them in the adapter" in output
    assert "Backbone and head are unchanged by every heal (checked by sha256)" in output


def test_the_article_has_25_heals_no_rollback_and_best_v21(in_article_run: Path) -> None:
    output = Path("output.txt").read_text()
    assert "25 heals, 0 rollbacks, 51 versions" in output
    assert "best post-heal v21 (batch 10, accuracy 0.710, F1 0.408 on 100 rows)" in output


@pytest.mark.parametrize(
    ("drift", "restored", "final", "unhealed"),
    [
        (
            "2.2",
            {22: 21, 23: 21, 24: 21},
            (0.701, 0.2055, 0.3467, 0.2581),
            (0.446, 0.1939, 0.8533, 0.3160),
        ),
        (
            "3.5",
            {5: 3, 6: 3, 7: 11, 8: 11, 9: 11, 10: 17, 11: 17, 12: 17}
            | dict.fromkeys(range(18, 23), 23),
            (0.507, 0.0680, 0.1800, 0.0987),
            (0.180, 0.1382, 0.8533, 0.2379),
        ),
    ],
)
def test_the_drills_roll_back_where_the_reference_does(
    workdir: Path,
    invoke: Invoke,
    drift: str,
    restored: dict[int, int],
    final: tuple[float, ...],
    unhealed: tuple[float, ...],
) -> None:
    result = invoke(
        "run", "--drift-strength", drift, "--rollback-f1-drop", "0.03", "--no-plots", "--json"
    )
    document = json.loads(result.stdout)
    assert {
        row["batch_idx"]: row["restored_version"]
        for row in document["batches"]
        if row["rolled_back"]
    } == restored
    assert stage(document["results"], "healed")[:4] == final
    assert stage(document["results"], "unhealed")[:4] == unhealed
    assert document["results"]["base_unchanged"] is True
