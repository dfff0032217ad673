"""Memory of a whole run by its number of batches: the largest that its process ever had.

Each run is a process of its own in a folder of its own, with batches of 10 rows, all files and
pictures. Without heals it is the stream, the log, the folding and the files; with them also two
versions a heal.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

NEVER = "fidi_threshold: 1000000000\nconflict_min: 10000000\n"
KINDS = {"heals off": ("--policy", "never.yaml"), "a heal a batch": ("--recipe", "anchored")}


def largest(batches: int, *options: str) -> float:
    """MB of a run's largest resident set."""
    command = [str(Path(sys.executable).with_name("selfheal")), "run", "--batches", str(batches),
               "--batch-size", "10", *options]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "never.yaml").write_text(NEVER, encoding="utf-8")
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return usage.ru_maxrss / 1e3


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description="Largest memory of a run by number of batches.")
    parser.add_argument("--sizes", default="1000,10000", help="batches without heals")
    parser.add_argument("--healed", default="100,1000", help="batches with a heal each")
    asked = parser.parse_args()
    table = Table(title="Largest resident set of a whole run")
    for title in ("kind", "batches", "MB", "times the first"):
        table.add_column(title, justify="left" if title == "kind" else "right", no_wrap=True)
    for (kind, options), sizes in zip(KINDS.items(), (asked.sizes, asked.healed), strict=True):
        first = 0.0
        for size in [int(text) for text in sizes.split(",") if text]:
            peak = largest(size, *options)
            first = first or peak
            table.add_row(kind, f"{size:,}", f"{peak:.0f}", f"{peak / first:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
