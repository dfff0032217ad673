"""How long do commands take that only read, beside importing MLflow's SQL store, which each must?

Whole processes, in turn, in a folder with a run of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

STORE = (
    "import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store"
)
COMMANDS = {  # with the most that each may take, in times of the import
    "champion": (1.2, ("champion",)),
    "snapshots": (1.2, ("snapshots",)),
    "history": (1.2, ("history",)),
    "show": (1.2, ("show", "1")),
    "doctor": (1.2, ("doctor",)),
    "rollback --by f1": (1.6, ("rollback", "--to-best", "--by", "f1", "--dry-run")),
    "rollback --to": (1.6, ("rollback", "--to", "1", "--dry-run")),
    "rollback --to-previous": (1.6, ("rollback", "--to-previous", "--dry-run")),
}


def seconds(*command: str) -> float:
    """Of a whole process in the working folder."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds by command, and those of the import."""
    selfheal = str(Path(sys.executable).with_name("selfheal"))
    taken: dict[str, list[float]] = {name: [] for name in ("import", *COMMANDS, "--help")}
    for _ in range(rounds):
        taken["import"].append(seconds(sys.executable, "-c", STORE))
        for name, (_, arguments) in COMMANDS.items():
            taken[name].append(seconds(selfheal, *arguments))
        taken["--help"].append(seconds(selfheal, "--help"))
    return taken


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description="Commands that only read.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        seconds(str(Path(sys.executable).with_name("selfheal")), "run", "--batches", "6")
        taken = measure(rounds)
    table = Table(title=f"Commands that only read ({rounds} rounds)")
    for name in ("what", "seconds", "of the import", "at most"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name, times in taken.items():
        ratio = np.median(np.array(times) / np.array(taken["import"]))
        most = f"{COMMANDS[name][0]:.1f}" if name in COMMANDS else ""
        table.add_row(name, f"{np.median(times):.2f}", f"{ratio:.2f}", most)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
