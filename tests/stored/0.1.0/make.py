"""Makes ``stored.tar.xz``: what selfheal 0.1.0 (commit 42dc2ba) stored, and what it said of it.

Run it by the code of that commit, in a checkout of it: ``PYTHONPATH=. python .../make.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import requests
import torch
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from tests.pipeline import faulty
from tests.pipeline.killed import go_on  # noqa: F401 - the checkout must be the old one

WORK = Path("/tmp/selfheal-0.1.0")  # noqa: S108 - stands in mlflow.db, replaced when unpacked
HERE = Path(__file__).parent
RUN = ("run", "--no-plots")
CLAIMS = (*RUN, "claims.csv", "--target", "settled", "--batches", "4")
MODULE = '''"""A network that somebody trained before."""

import torch
from torch import nn


class ScoringNet(nn.Module):
    def __init__(self, inputs=4, width=8):
        super().__init__()
        self.inputs, self.width = inputs, width
        self.register_buffer("mean", torch.full((inputs,), 0.5))
        self.first = nn.Linear(inputs, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        return self.out(torch.relu(self.first(x - self.mean))).squeeze(-1)
'''
SETTINGS = """# Own data, as of 0.1.0
model_name: claims
network: {hidden: 8, epochs: 3}
batch_size: 40
policy: {base: own, fidi_window: 6}
monitors: [psi]
heal: {recipe: anchored}
"""
POLICY = """description: An office's own.
fidi_threshold: 0.4
conflict_min: 2
rollback_f1_drop: 0.05
retention: {keep_best: 2, keep_last: 3, keep_days: 0}
"""


def tables() -> None:
    """Own data of two and of three classes, and rows for a wrapped network."""
    drawn = np.random.default_rng(5)
    n = 400
    amount = drawn.gamma(2.0, 40.0, n).round(2)
    days = drawn.integers(0, 60, n).astype(float)
    country = drawn.choice(["AT", "DE", "CH"], n)
    moved = np.arange(n) > n // 2
    settled = (amount * (1 + moved) + days + 30 * (country == "CH") > 140).astype(int)
    amount[::17], days[5::23] = np.nan, np.nan
    frame = pd.DataFrame({"amount": amount, "days": days, "country": country})
    frame.assign(settled=settled).to_csv("claims.csv", index=False)
    kind = np.where(frame["amount"].fillna(80) > 110, "large", np.where(days > 30, "old", "small"))
    frame.assign(kind=kind).to_csv("kinds.csv", index=False)
    x = drawn.standard_normal((n, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + 0.8 * moved > 0.5).astype(int)
    pd.DataFrame(x, columns=list("abcd")).assign(y=y).to_csv("wrapped.csv", index=False)


def wrapped_weights() -> None:
    """Weights of the network that is wrapped."""
    from safetensors.torch import save_file

    Path("scoring_net.py").write_text(MODULE)
    sys.path.append(str(WORK))
    import scoring_net

    torch.manual_seed(3)
    net = scoring_net.ScoringNet()
    frame = pd.read_csv("wrapped.csv")[:160]
    x = torch.tensor(frame[list("abcd")].to_numpy(np.float32))
    y = torch.tensor(frame["y"].to_numpy(np.float32))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(net(x), y).backward()
        optimiser.step()
    save_file(net.state_dict(), "scoring_net.safetensors")


def did(*arguments: str, code: int = 0) -> str:
    """A command in this process."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, (arguments, result.output, result.stderr, result.exception)
    return result.stdout


def killed(*arguments: str, batch: int, outbox: bool = False) -> None:
    """A command killed at a batch; with ``outbox`` the store took nothing after the first."""

    def full() -> None:
        faulty.limit_files((WORK / "mlflow.db").stat().st_size)

    def prepare() -> None:
        faulty.at_batch(batch, lambda: os.kill(os.getpid(), signal.SIGKILL))()
        if outbox:
            faulty.at_batch(1, full)()

    ended = faulty.in_child(*arguments, prepare=prepare)
    assert ended.code == -signal.SIGKILL, ended


def left_over(*arguments: str) -> None:
    """A run that ends while the store takes nothing: its outbox has work left."""

    def full() -> None:
        faulty.limit_files((WORK / "mlflow.db").stat().st_size)

    ended = faulty.in_child(*arguments, prepare=faulty.at_batch(1, full))
    assert "writes wait for the registry" in ended.output, ended


def by_program() -> None:
    """A module inside a service of one's own."""
    from selfheal_cli.api import SelfHealing

    frame = pd.read_csv("wrapped.csv")
    x, y = frame[list("abcd")].to_numpy(np.float32), frame["y"].to_numpy()
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    with SelfHealing(module, x[:150], y[:150], name="program", batch_size=50, mode="sync") as model:
        for at in range(150, 350, 50):
            assert model.observe(x[at : at + 50], y[at : at + 50])


def serve(requests_sent: int, *, first: int, kill: bool, before: str = "") -> str:
    """The server with its healer; asked, told labels, stopped or killed with rows not healed on."""
    command = [sys.executable, "-c", "from selfheal_cli.cli.main import main; main()", "serve",
               "claims", "--port", "0", "--max-wait", "1", "--batch-size", "40",
               "--heal-priority", "normal", "--key", "claim"]  # fmt: skip
    frame = pd.read_csv("claims.csv").drop(columns="settled")[200:]
    truth = pd.read_csv("claims.csv")["settled"][200:].astype(str).tolist()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(text for text in process.stderr if text.startswith("selfheal: 'claims' v"))
        url = line.split()[-1]
        for one in range(first, first + requests_sent):
            rows = frame[one * 20 : one * 20 + 20].assign(claim=range(one * 20, one * 20 + 20))
            body = {"dataframe_split": json.loads(rows.to_json(orient="split", index=False))}
            named = {"X-Request-Id": f"r{one}"}
            answer = requests.post(f"{url}/invocations", json=body, headers=named, timeout=30)
            assert answer.status_code == 200, answer.text
            labels = [{"request_id": f"r{one}", "labels": truth[one * 20 : one * 20 + 20]}]
            requests.post(f"{url}/feedback", json={"labels": labels}, timeout=30)
            if kill and one == first + 1:
                healed_on(url, 40, before)
        if kill:
            command = ["pgrep", "-P", str(process.pid)]
            children = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for child in children.stdout.split():
                os.kill(int(child), signal.SIGKILL)
            process.kill()
        else:
            before = healed_on(url, 20 * requests_sent)
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    return before


def healed_on(url: str, rows: int, before: str = "") -> str:
    """Wait until a healer, of another run than ``before``, has gone through so many."""
    for _ in range(600):
        told = requests.get(f"{url}/status", timeout=30).json()["standing"]
        if told and told["run_id"] != before and told["rows"] >= rows:
            return str(told["run_id"])
        time.sleep(0.1)
    raise RuntimeError("the healer did not come so far")


def expected() -> dict[str, object]:
    """What 0.1.0 says of all that: scores of each version to the bit, lists, tables."""
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    rows = {
        "fraud": None, "interrupted": None, "unfinished": None,
        "claims": pd.read_csv("claims.csv").drop(columns="settled"),
        "late": pd.read_csv("claims.csv").drop(columns="settled"),
        "kinds": pd.read_csv("kinds.csv").drop(columns="kind"),
        "wrapped": pd.read_csv("wrapped.csv").drop(columns="y"),
    }  # fmt: skip
    rows["program"] = rows["wrapped"].set_axis([f"x{i}" for i in range(4)], axis=1)
    scores: dict[str, dict[str, list[list[float]]]] = {}
    models: dict[str, object] = {}
    for model in sorted(one.name for one in client.search_registered_models()):
        scores[model] = {}
        for entry in sorted(
            client.search_model_versions(f"name='{model}'"), key=lambda v: int(v.version)
        ):
            loaded = mlflow.pyfunc.load_model(f"models:/{model}/{entry.version}")
            table = rows[model]
            if table is None:
                names = loaded.metadata.get_input_schema().input_names()
                drawn = np.random.default_rng(2).standard_normal((30, len(names)))
                table = pd.DataFrame(drawn.astype(np.float32), columns=names)
            given = table[:30]
            found = np.asarray(loaded.predict(given), dtype=np.float32)
            decided = loaded.predict(given, params={"output": "label"})
            scores[model][entry.version] = {
                "sha256": hashlib.sha256(found.tobytes()).hexdigest(),
                "probabilities": found.reshape(30, -1).tolist(),
                "labels": list(decided),
            }
        models[model] = {
            "snapshots": json.loads(did("snapshots", "--model-name", model, "--json")),
            "champion": json.loads(did("champion", "--model-name", model, "--json")),
            "history": json.loads(did("history", "--model-name", model, "--json")),
        }
    runs = {}
    for log in sorted(Path("mlruns/selfheal/runs").glob("*/events.jsonl")):
        first = json.loads(log.open().readline())
        last = json.loads(log.read_text().splitlines()[-1])
        ended = any(json.loads(x)["kind"] == "run-finished" for x in log.read_text().splitlines())
        runs[log.parent.name] = {
            "model": first["data"]["model"], "kind": first["data"]["config"]["source"]["kind"],
            "finished": ended, "events": last["sequence"], "head": last["digest"],
        }  # fmt: skip
        if ended:
            did("export", log.parent.name, "--export-dir", "again", "--no-plots")
            runs[log.parent.name]["metrics.csv"] = Path("again/metrics.csv").read_text()
            shutil.rmtree("again")
    build = {
        "torch": version("torch"), "numpy": version("numpy"),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip
    return {"folder": str(WORK), "build": build, "scores": scores, "models": models, "runs": runs}


def make() -> None:
    """All of it, in one folder on one store."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    os.chdir(WORK)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    tables()
    wrapped_weights()
    Path("registry_policies").mkdir()
    Path("registry_policies/own.yaml").write_text(POLICY)
    small = ("--batch-size", "50", "--no-config")
    did(*RUN, *small, "--batches", "6")
    did("rollback", "--to-best", "--yes", "--reason", "by hand")
    Path("selfheal.yaml").write_text(SETTINGS)
    with closing(sqlite3.connect("mlflow.db")) as store, store:  # so that it is the largest file
        store.execute("CREATE TABLE padding AS SELECT zeroblob(30000000)")
    did(*CLAIMS)
    did(
        *RUN,
        "kinds.csv",
        "--target",
        "kind",
        "--batches",
        "3",
        "--model-name",
        "kinds",
        "--policy",
        "default",
    )
    did("wrap", "--from", "scoring_net:ScoringNet", "--weights", "scoring_net.safetensors",
        "--data", "wrapped.csv", "--drop", "y", "--as", "wrapped")  # fmt: skip
    did(*RUN, "wrapped.csv", "--target", "y", "--model", "wrapped", "--model-name", "wrapped",
        "--batches", "4")  # fmt: skip
    killed(*RUN, *small, "--batches", "6", "--model-name", "interrupted", batch=3)
    killed(*RUN, *small, "--batches", "6", "--model-name", "unfinished", batch=4, outbox=True)
    left_over(*CLAIMS, "--model-name", "late", "--no-wait")
    by_program()
    before = serve(6, first=0, kill=False)
    serve(3, first=6, kill=True, before=before)
    did("hold", "--model-name", "kinds", "--reason", "being looked at")
    with closing(sqlite3.connect("mlflow.db")) as store:
        with store:
            store.execute("DROP TABLE padding")
        store.execute("VACUUM")
    Path("expected.json").write_text(json.dumps(expected(), indent=1, default=str))
    shutil.rmtree("monitoring_export", ignore_errors=True)
    shutil.rmtree("again", ignore_errors=True)
    for name in ("__pycache__",):
        shutil.rmtree(name, ignore_errors=True)
    with tarfile.open(HERE / "stored.tar.xz", "w:xz", preset=9) as packed:
        packed.add(".", arcname=".")


if __name__ == "__main__":
    make()
