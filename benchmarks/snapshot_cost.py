"""Seconds a snapshot takes: ours, and MLflow's own ``log_model`` as its documentation shows it.

All of them register a version of the same network in the same SQLite store, in a temporary folder;
ours also logs the six figures that versions are ranked by. Making the store is not counted.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.model.network import Architecture, SelfHealingNetwork, use_one_thread
from selfheal_cli.monitor.prequential import score
from selfheal_cli.records import Evaluation, Phase, Rows, Snapshot, digest
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.mlflow_registry import MlflowRegistry
from selfheal_cli.snapshot import make_base, pack
from selfheal_cli.source.synthetic import SyntheticSource

OURS = "selfheal: MlflowRegistry.add_version"
Take = Callable[[], object]  # takes one snapshot


def ours(registry: MlflowRegistry, network: SelfHealingNetwork, source: SyntheticSource) -> Take:
    """What the registry's writer does for one snapshot."""
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
    return lambda: registry.add_version(lineage, snapshot, adapter, None)


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


def median_of(take: Take, repeats: int) -> float:
    """Median seconds of some snapshots in a row."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        take()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(ways: dict[str, tuple[Take, int]], rounds: int) -> dict[str, list[float]]:
    """Seconds a snapshot, by way and round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):  # the first round warms up
        for name, (take, repeats) in ways.items():
            seconds = median_of(take, repeats)
            if number >= 0:
                found[name].append(seconds)
    return found


def lay_out(found: dict[str, list[float]]) -> Table:
    """Medians over the rounds; a ratio is the median of the rounds' ratios."""
    table = Table(title=f"One snapshot: medians over {len(found[OURS])} rounds")
    table.add_column("way", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("times ours", justify="right")
    for name, seconds in found.items():
        ratio = np.median([own / other for own, other in zip(seconds, found[OURS], strict=True)])
        table.add_row(name, f"{np.median(seconds):.3f}", f"{ratio:.1f}")
    return table


def main() -> None:
    """Make a store, measure, print."""
    parser = argparse.ArgumentParser(description="Seconds a snapshot takes.")
    parser.add_argument("--rounds", type=int, default=4, help="rounds that count")
    parser.add_argument("--repeats", type=int, default=20, help="of the fast ways in a round")
    options = parser.parse_args()
    use_one_thread()
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=1)
    network = SelfHealingNetwork.build(Architecture(source.encoding.width, 64))
    network.freeze()
    with own_folder():
        registry = MlflowRegistry("sqlite:///mlflow.db")
        ways = {
            OURS: (ours(registry, network, source), options.repeats),
            "log_model, requirements given, pickle": (hastened(network), options.repeats),
            "log_model as documented": (documented(network, source.held_out()["clean"]), 1),
        }
        found = measure(ways, options.rounds)
    Console(width=120).print(lay_out(found))


if __name__ == "__main__":
    main()
