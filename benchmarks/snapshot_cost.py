"""Seconds a snapshot takes: ours, the five bare client calls that a version takes at the least, and
MLflow's own ``log_model`` as its documentation shows it.

All of them register a version of the same network in the same SQLite store, in a temporary folder.
The five bare calls are given ours's tags, figures and files, which lie ready in a folder: what ours
costs beyond them is making the files, and the link from the logged model to its version. Making the
store is not counted.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric
from rich.console import Console
from rich.table import Table

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.metrics import score
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import make_base, pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.records import Evaluation, Phase, Rows, Snapshot, digest
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.sources.synthetic import SyntheticSource

OURS = "selfheal: MlflowRegistry.add_version"
BARE = "five bare client calls"
Take = Callable[[], object]  # takes one snapshot
Seconds = tuple[float, float]  # by the clock, and of the processor


@dataclass(frozen=True)
class Wanted:
    """What is to be registered, and where."""

    registry: MlflowRegistry
    lineage: Lineage
    snapshot: Snapshot
    adapter: bytes


def wanted(network: SelfHealingNetwork, source: SyntheticSource) -> Wanted:
    """One snapshot in a new run."""
    registry = MlflowRegistry("sqlite:///mlflow.db", create=True)
    run_id = registry.begin_run("ours", {}, {})
    document = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
    }
    base = registry.store_base(run_id, make_base(network, {}, document))
    lineage = Lineage("ours", run_id, base, "article", "full", "1")
    adapter, rows = pack(network.adapter.state_dict()), source.held_out()["drifted"]
    scores = score(network.predict(rows.x), rows.y, 0.5)
    snapshot = Snapshot(
        id="s1",
        phase=Phase.POST_HEAL,
        batch=1,
        sha256=digest(adapter),
        scores=scores,
        evaluation=Evaluation.IN_SAMPLE,
        reason="benchmark",
        threshold=0.5,
        metrics=scores.figures(),
    )
    return Wanted(registry, lineage, snapshot, adapter)


def ours(one: Wanted) -> Take:
    """What the registry's writer does for one snapshot."""
    return lambda: one.registry.add_version(one.lineage, one.snapshot, one.adapter, None)


def bare(one: Wanted) -> Take:
    """The least that MLflow can be asked for a version: nothing checked, nothing linked."""
    number = one.registry.add_version(one.lineage, one.snapshot, one.adapter, None).version
    client, run_id = MlflowClient(one.registry.uri), one.lineage.run_id
    source = str(client.get_model_version(one.lineage.model, str(number)).source)
    folder = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    experiment = client.get_run(run_id).info.experiment_id
    tags, figures = one.lineage.tags(one.snapshot, None), one.snapshot.metrics
    files = urlsplit(folder).path

    def take() -> None:
        model = client.create_logged_model(experiment, "bare", run_id, tags=tags)
        client.log_model_artifacts(model.model_id, files)
        client.finalize_logged_model(model.model_id, "READY")
        at_ms = model.creation_timestamp
        metrics = [Metric(k, v, at_ms, 1, model_id=model.model_id) for k, v in figures.items()]
        client.log_batch(run_id, metrics=metrics)
        source = f"models:/{model.model_id}"
        client.create_model_version(one.lineage.model, source, run_id=run_id, tags=tags)

    return take


def documented(network: SelfHealingNetwork, rows: Rows) -> Take:
    """``log_model`` with a registered name and an input example: requirements are inferred."""
    import mlflow.pytorch  # late, since the registry's package says first what it may report

    def take() -> None:
        with mlflow.start_run(), redirect_stderr(io.StringIO()):
            mlflow.pytorch.log_model(
                network, name="model", registered_model_name="log_model", input_example=rows.x[:2]
            )

    return take


def hastened(network: SelfHealingNetwork) -> Take:
    """The same, told its requirements and to pickle: fast, but loading it runs what is in it."""
    import mlflow.pytorch

    def take() -> None:
        with mlflow.start_run(), redirect_stderr(io.StringIO()):
            mlflow.pytorch.log_model(
                network,
                name="model",
                registered_model_name="pickled",
                pip_requirements=["torch"],
                serialization_format="pickle",
            )

    return take


@contextmanager
def own_folder() -> Iterator[None]:
    """Work in a temporary folder, so that no store of the user's is touched."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def measure(ways: dict[str, tuple[Take, int]], rounds: int) -> dict[str, list[Seconds]]:
    """Median seconds a snapshot, by way and round; within a round the ways take turns."""
    timings: dict[str, list[Seconds]] = {name: [] for name in ways}
    for number in range(-1, rounds):  # the first round warms up
        taken: dict[str, list[Seconds]] = {name: [] for name in ways}
        for turn in range(max(repeats for _, repeats in ways.values())):
            for name, (take, repeats) in ways.items():
                if turn < repeats:
                    start, worked = time.perf_counter(), time.process_time()
                    take()
                    spent = time.perf_counter() - start, time.process_time() - worked
                    taken[name].append(spent)
        if number >= 0:
            for name, seconds in taken.items():
                elapsed, computed = np.median(seconds, axis=0)
                timings[name].append((float(elapsed), float(computed)))
    return timings


def lay_out(timings: dict[str, list[Seconds]]) -> Table:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""
    table = Table(title=f"One snapshot: medians over {len(timings[OURS])} rounds")
    table.add_column("way", no_wrap=True)
    for title in ("seconds", "times bare", "of the processor", "times bare"):
        table.add_column(title, justify="right")
    for name, rounds in timings.items():
        own, bare = np.array(rounds), np.array(timings[BARE])
        cells = []
        for which in (0, 1):
            seconds, ratio = np.median(own[:, which]), np.median(own[:, which] / bare[:, which])
            cells += [f"{seconds:.4f}", f"{ratio:.2f}"]
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Make a store, measure, print."""
    parser = argparse.ArgumentParser(description="Seconds a snapshot takes.")
    parser.add_argument("--rounds", type=int, default=4, help="rounds that count")
    parser.add_argument("--repeats", type=int, default=20, help="of the fast ways in a round")
    parser.add_argument("--bare", action="store_true", help="leave log_model out")
    options = parser.parse_args()
    use_one_thread()
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=1)
    network = SelfHealingNetwork.build(Architecture(source.encoding.width, 64))
    network.freeze()
    with own_folder():
        one = wanted(network, source)
        ways = {
            BARE: (bare(one), options.repeats),
            OURS: (ours(one), options.repeats),
        }
        if not options.bare:
            clean = source.held_out()["clean"]
            pickled = (hastened(network), options.repeats)
            ways["log_model, requirements given, pickle"] = pickled
            ways["log_model as documented"] = (documented(network, clean), 1)
        timings = measure(ways, options.rounds)
    Console(width=120).print(lay_out(timings))


if __name__ == "__main__":
    main()
