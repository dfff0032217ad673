"""A rolling upgrade: replicas of an older release and of this one on one log and one registry.

The older one trains, serves and heals; a replica of this one comes beside it, then the older ones
are replaced one by one, and at last one of the older release comes back beside this one. All the
while rows are asked and labels told, each at a replica by lot. Exit code 1 unless no request failed
that was asked again, each row is in the log once, each label was learned from once, the history of
all machines holds, and the older release reads, or refuses in one line, what this one wrote.

Needs a checkout of the older release, as of `git worktree add OLD COMMIT`, and two empty databases:
``python benchmarks/two_releases.py OLD postgresql://USER@HOST/LOG postgresql://USER@HOST/REGISTRY``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machines import Cluster, _learned, _missing, _requests, audited
from servers import body_of
from serving_load import MODEL, registered, require

READS = (("history", "--limit", "5"), ("snapshots",), ("doctor",), ("status", "--model", MODEL))


@contextmanager
def release(checkout: str) -> Iterator[None]:
    """What is started meanwhile is of that checkout."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = checkout or before
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def ask(cluster: Cluster, body: bytes, phase: str, count: int) -> None:
    """Rows and labels of a phase, and nothing left to heal on."""
    for number in range(count):
        cluster.ask(body, f"{phase}-{number}")
        cluster.tell(f"{phase}-{number}")
    cluster.drain()
    held = cluster.standing()
    print(f"{phase}: batch {held['batch']}, heals {held['heals']}, v{held['champion']['version']}",
          flush=True)  # fmt: skip


def replace(cluster: Cluster, number: int, checkout: str) -> None:
    """A replica ends, as by its orchestrator, and one of another release takes its place."""
    cluster.servers.pop(number)
    cluster.stacks.pop(number).close()
    with release(checkout):
        cluster.begin(number)


def come_back(cluster: Cluster, checkout: str) -> list[str]:
    """A replica of the older release beside those of this one; what it says where it refuses."""
    try:
        with release(checkout):
            cluster.begin(3)
    except SystemExit:
        said = (cluster.known.parent / "machine-3" / "server.log").read_text()
        return [line for line in said.splitlines() if line.strip()]
    return []


def reads(cluster: Cluster, checkout: str) -> Iterator[bool]:
    """What the older release says of what this one wrote: an answer, or one line."""
    work = cluster.known.parent / "machine-1"
    for command in READS:
        with release(checkout):
            done = subprocess.run(
                [sys.executable, "-c", "from selfheal_cli.cli.main import main; main()", *command,
                 "--tracking-uri", cluster.uri],
                cwd=work, env={**os.environ, "SELFHEAL_LOG": cluster.log}, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = f"exit {done.returncode} {lines[-1] if done.returncode and lines else ''}"
        broke = "Traceback" in done.stderr
        yield require(f"the older release breaks at '{command[0]}'", broke, 0, said)


def main() -> None:
    """One step of the upgrade after the other, then look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", help="checkout of the older release")
    parser.add_argument("log", help="URI of an empty database")
    parser.add_argument("registry", help="URI of another one")
    parser.add_argument("--requests", type=int, default=30, help="in each of the five phases")
    options = parser.parse_args()
    count = options.requests
    with tempfile.TemporaryDirectory() as folder:
        with release(options.old):
            known, _, uri = registered(Path(folder), options.registry)
        cluster = Cluster(known, uri, options.log, options.log)
        try:
            with release(options.old):
                cluster.begin(0)
                cluster.begin(1)
            body = body_of(cluster.servers[0].url, MODEL, 20)
            ask(cluster, body, "older", count)
            cluster.begin(2)
            ask(cluster, body, "beside", count)
            replace(cluster, 0, "")
            ask(cluster, body, "healer-replaced", count)
            replace(cluster, 1, "")
            ask(cluster, body, "upgraded", count)
            refused = come_back(cluster, options.old)
            ask(cluster, body, "back-beside", count)
            names = _requests(cluster)
            checks = [
                require("lines in which the older release refuses", len(refused), 1, refused[-1:]),
                require("requests that failed", len(cluster.failures), 0, cluster.failures[:3]),
                require("rows that are not in the log", _missing(cluster), 0),
                require("requests that are in the log twice", len(names) - len(set(names)), 0),
                *_learned(cluster, 5 * count),
                *reads(cluster, options.old),
            ]
        finally:
            cluster.end()
        checks.append(require("the audit of all machines' history", audited(cluster), 0))
    sys.exit(0 if all(checks) else 1)


if __name__ == "__main__":
    main()
