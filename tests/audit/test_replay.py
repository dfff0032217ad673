"""A version is made again from its run's rows, or it is said why that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import Invoke


@pytest.mark.parametrize("version", [1, 2, 9])
def test_a_version_comes_out_the_same(in_short_run: Path, invoke: Invoke, version: int) -> None:
    rerun = json.loads(invoke("audit", "--replay", str(version), "--json").stdout)
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    tags = client.get_model_version("fraud", str(version)).tags
    assert rerun["sha256"] == tags["selfheal.sha256"]
    assert rerun["batches"] == int(tags["selfheal.batch"])


def test_a_version_of_other_bytes_is_found(short_copy: Path, invoke: Invoke) -> None:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    ids = [
        client.get_model_version("fraud", number).source.removeprefix("models:/")
        for number in ("5", "3")
    ]
    ours, other = (
        next(Path("mlruns").rglob(f"{one}/artifacts/adapter.safetensors")) for one in ids
    )
    ours.write_bytes(other.read_bytes())
    assert "healing again gives" in invoke("audit", "--replay", "5", expect=4).stderr


def a_table() -> list[str]:
    """`rows.csv`, here; its lines."""
    rows = ["a,b,y"] + [f"{n % 7},{n % 5},{int(n % 7 > 3)}" for n in range(800)]
    Path("rows.csv").write_text("\n".join(rows) + "\n")
    return rows


def test_your_own_rows_must_be_there(workdir: Path, forked_worker: None, invoke: Invoke) -> None:
    rows = a_table()
    every = ("--set", "policy.publish_change=0", "--set", "policy.publish_share=1")
    options = ("--target", "y", "--batches", "5", "--no-plots", "--set", "heal.pre_heal=version")
    invoke("run", "rows.csv", *options, *every, "--heal-mode", "async")
    model = ("--model-name", "rows")
    assert "comes out the same" in invoke("audit", "--replay", "3", *model).stdout
    Path("rows.csv").rename("gone.csv")
    assert "rows.csv" in invoke("audit", "--replay", "3", *model, expect=3).stderr
    Path("rows.csv").write_text("\n".join([*rows[:201], *rows[201:][::-1]]) + "\n")
    assert "have changed since" in invoke("audit", "--replay", "3", *model, expect=4).stderr


def test_rows_that_were_recorded_stay_when_the_table_is_gone_in_the_folder_and_in_the_registry(
    workdir: Path, invoke: Invoke
) -> None:
    a_table()
    options = ("--target", "y", "--batch-size", "30", "--no-plots", "--record-rows")
    invoke("run", "rows.csv", *options)
    Path("rows.csv").unlink()
    model = ("--model-name", "rows")
    assert "comes out the same" in invoke("audit", "--replay", "3", *model).stdout
    (kept,) = Path("mlruns/selfheal/runs").glob("*/rows.csv")
    kept.unlink()
    assert "comes out the same" in invoke("audit", "--replay", "3", *model).stdout
    invoke("rollback", "--to-best", "--revalidate", "3", "--dry-run", *model)


def test_rows_are_recorded_of_a_table_alone(workdir: Path, invoke: Invoke) -> None:
    assert "--record-rows needs a DATA file" in invoke("run", "--record-rows", expect=2).stderr
