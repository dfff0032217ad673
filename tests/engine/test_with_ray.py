"""What is done by a Ray cluster, on one of two nodes of loopback; `.ci/engines` installs Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.cli.test_run import make_table
from tests.registry.stores import free_port, postgres_server
from tests.serve.conftest import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: .ci/engines"),
]
ROOT = Path(__file__).parents[2]
MAIN = "from selfheal_cli.cli.main import main; main()"
NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster()
for _ in range(2):
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=100_000_000)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with a model and rows."""
    folder = tmp_path_factory.mktemp("engine")
    shutil.copy(store_template, folder / "mlflow.db")
    make_table(folder / "t.csv")
    run(folder, "run", "t.csv", "--target", "label", "--no-plots", "--batches", "2",
        "--recipe", "article", "--model", "pay")  # fmt: skip
    frame = make_table(folder / "made.csv", 25_000)
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "parts").mkdir()
    frame[:9_000].to_parquet(folder / "parts/a.parquet", index=False)
    frame[9_000:].to_parquet(folder / "parts/b.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def address() -> Any:
    """Of a cluster of two nodes."""
    with subprocess.Popen(
        [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    ) as nodes:  # fmt: skip
        assert nodes.stdout is not None
        yield nodes.stdout.readline().strip()
        nodes.communicate("")


@pytest.fixture(scope="module")
def log() -> Iterator[str]:
    """An empty log that replicas share."""
    with postgres_server() as server:
        server.execute("CREATE DATABASE log")
        yield server.uri("log")


def run(folder: Path, *arguments: str, address: str = "", code: int = 0) -> Any:
    own = {"RAY_ADDRESS": address, "OMP_NUM_THREADS": "1", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], cwd=folder, env=os.environ | own,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_cluster_scores_each_row_once_with_the_same_bytes(work: Path, address: str) -> None:
    for rows, output in (("parts", "folder.parquet"), ("rows.csv", "text.csv")):
        job = ("score", rows, "--part-rows", "8000", "--json", "--model", "pay")
        run(work, *job, f"own-{output}")
        told = json.loads(run(work, *job, output, "--engine", "ray", address=address).stdout)
        assert told["rows"] == 25_000
        assert (work / output).read_bytes() == (work / f"own-{output}").read_bytes()


def test_a_comparison_on_a_cluster_has_the_figures_of_this_machine(
    work: Path, address: str
) -> None:
    asked = ("compare", "t.csv", "--target", "label", "--batches", "2", "--recipes",
             "article", "--peers", "none", "--jobs", "2", "--json")  # fmt: skip
    one, other = (
        json.loads(run(work, *asked, *more, address=address).stdout)
        for more in ((), ("--backend", "ray"))
    )
    for mine, theirs in zip(one["results"], other["results"], strict=True):
        assert mine["by_batch"] == theirs["by_batch"]
        assert steady(mine["figures"]) == steady(theirs["figures"])


def steady(figures: dict[str, float]) -> dict[str, float]:
    """Those that are not of the clock and the machine."""
    moving = ("seconds", "processor_seconds", "memory_mb")
    return {k: v for k, v in figures.items() if k not in moving and "per_second" not in k}


def test_replicas_of_ray_serve_answer_take_labels_and_end_by_sigterm(work: Path, log: str) -> None:
    port = free_port()
    asked = ("serve", "pay", "--engine", "ray", "--workers", "2", "--port", str(port), "--log", log)
    own = {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": ""}
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, *asked], cwd=work, env=os.environ | own,
        stderr=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        try:
            assert serving.stderr is not None
            said = next(line for line in serving.stderr if "is served" in line)
            assert "is served by Ray Serve at" in said
            url = f"http://127.0.0.1:{port}"
            body = {
                "dataframe_split": {"columns": ["amount", "kind", "age"], "data": [[10, "a", 30]]}
            }
            for number in range(10):
                named = {"x-request-id": f"r{number}"}
                answer = requests.post(f"{url}/invocations", json=body, headers=named, timeout=30)
                assert (answer.status_code, answer.headers["x-selfheal-request-id"]) == (
                    200, f"r{number}"
                )  # fmt: skip
            labels = [{"request_id": f"r{number}", "labels": ["yes"]} for number in range(10)]

            def tell() -> int:
                told = requests.post(f"{url}/feedback", json={"labels": labels}, timeout=30)
                return int(told.json()["repeated"])

            # each is joined to its row, whichever replica answered that
            until(lambda: tell() == 10)
            shown = json.loads(run(work, "status", url, "--json").stdout)
            assert len(shown["replicas"]) == 2
        finally:
            serving.terminate()
            serving.communicate()
    assert serving.returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/ping", timeout=5)


@pytest.mark.filterwarnings("ignore")  # of Ray's own use of pydantic
def test_serve_reads_kuberays_configuration() -> None:
    from ray.serve.schema import ServeDeploySchema

    manifest = yaml.safe_load((ROOT / "deploy/kuberay.yaml").read_text())
    told = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    (asked,) = ServeDeploySchema.model_validate(told).applications
    assert asked.name == "fraud"


def test_too_few_cpus_and_a_cluster_that_is_not_there_are_a_line_within_half_a_minute(
    work: Path, address: str
) -> None:
    asked = ("compare", "t.csv", "--target", "label", "--jobs", "9", "--backend", "ray")
    said = run(work, *asked, address=address, code=3).stderr
    assert "has 2 free of 2 CPUs, and 9 are needed" in said
    begun = time.monotonic()
    asked = ("score", "rows.csv", "none.csv", "--model", "pay", "--engine", "ray")
    said = run(work, *asked, address="127.0.0.1:9", code=4).stderr
    assert "the Ray cluster at 127.0.0.1:9 cannot be used: no answer within 20 s" in said
    assert time.monotonic() - begun < 60  # with the start of two programs
    assert len(said.splitlines()) == 1
