"""``selfheal report``: the page of a run, from its log alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from selfheal_cli.events.log import read
from selfheal_cli.events.types import BatchScored, ModelTrained
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke


def test_the_latest_run_is_reported_beside_the_working_folder(
    article_copy: Path, invoke: Invoke
) -> None:
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    result = invoke("report")
    path = Path(f"report-{run.name[:8]}.html")
    assert result.stdout.strip() == f"Report of run {run.name} in {path}"
    text = path.read_text()
    assert "Healing helped accuracy and ROC AUC, and hurt F1" in text
    assert "accuracy (0.446 to 0.724)" in text
    assert "no model at all can expect more than accuracy 0.850 and F1 0.295" in text


def test_the_run_left_the_same_page_in_its_folder_and_with_its_artifacts(
    short_copy: Path, invoke: Invoke, tmp_path: Path
) -> None:
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    document = json.loads(invoke("report", run.name[:6], "--out", "a/b.html", "--json").stdout)
    assert document == {"run_id": run.name, "report": "a/b.html"}
    page = Path("a/b.html").read_bytes()
    assert page == Path("monitoring_export/report.html").read_bytes()
    (tmp_path / "kept").mkdir()
    kept = MlflowRegistry().run_file(run.name, "monitoring_export/report.html", tmp_path / "kept")
    assert kept.read_bytes() == page


def test_a_log_that_is_elsewhere_is_fetched(short_copy: Path, invoke: Invoke) -> None:
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    shutil.rmtree("mlruns/selfheal")
    invoke("report", run.name, "--out", "fetched.html")
    page = Path("monitoring_export/report.html").read_bytes()
    assert Path("fetched.html").read_bytes() == page


def test_without_any_run_it_says_so(empty_dir: Path, invoke: Invoke) -> None:
    assert "no run was made in this folder" in invoke("report", expect=4).stderr


def test_features_are_in_the_log_and_in_the_page(in_article_run: Path) -> None:
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    events = list(read(run / "events.jsonl"))
    (trained,) = [event.as_dict() for event in events if isinstance(event, ModelTrained)]
    names = [feature["name"] for feature in trained["features"]]
    assert names[0] == trained["sensitive"] == "V14"
    batches = [event.shifts for event in events if isinstance(event, BatchScored)]
    assert len(batches) == 25
    mean = sum(shifts[0] for shifts in batches) / 25
    assert -1.6 < mean < -1.2  # normals moved by 2.2, of a spread of 1.3
    assert all(abs(value) < 0.5 for shifts in batches for value in shifts[1:])
    page = Path("monitoring_export/report.html").read_text()
    assert all(f"<strong>{name}</strong>" in page for name in names)
