"""Plain ``mlflow.pyfunc.spark_udf`` on a healed version; `.ci/engines` installs pyspark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.cli.test_run import make_table
from tests.engine.test_with_ray import run

SPARK = """
import json, sys
import mlflow
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
rows = spark.read.option("header", True).option("inferSchema", True).csv("rows.csv")
names = ("amount", "kind", "age")
score = mlflow.pyfunc.spark_udf(
    spark, "models:/pay@champion", result_type="double", env_manager="local")
label = mlflow.pyfunc.spark_udf(
    spark, "models:/pay@champion", result_type="string", env_manager="local",
    params={"output": "label"})
asked = rows.select("id", score(*names).alias("score"), label(*names).alias("label"))
print("ROWS", json.dumps([list(row) for row in asked.orderBy("id").collect()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("pyspark") is None, reason="pyspark is not installed: .ci/engines")
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not there")
def test_spark_scores_rows_as_the_command_does(tmp_path: Path, store_template: Path) -> None:
    shutil.copy(store_template, tmp_path / "mlflow.db")
    make_table(tmp_path / "t.csv")
    run(tmp_path, "run", "t.csv", "--target", "label", "--no-plots", "--batches", "2",
        "--recipe", "article", "--model", "pay")  # fmt: skip
    frame = make_table(tmp_path / "made.csv", 3_000)
    frame.insert(0, "id", range(len(frame)))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    run(tmp_path, "score", "rows.csv", "own.csv", "--model", "pay")
    own = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SPARK], cwd=tmp_path, env=os.environ | own, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("ROWS "))
    spark = pd.DataFrame(
        json.loads(told.removeprefix("ROWS ")), columns=["id", "score", "decision"]
    )
    expected = pd.read_csv(tmp_path / "own.csv")
    assert spark["id"].tolist() == expected["id"].tolist()
    # a batch of another length may round the last bit of a 32-bit number otherwise
    np.testing.assert_allclose(spark["score"], expected["score"], rtol=0, atol=1e-6)
    assert spark["decision"].tolist() == expected["decision"].tolist()
