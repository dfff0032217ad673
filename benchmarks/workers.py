"""One scoring process against two behind one port: requests a second, and a processor's second.

Both servers stand beside each other on loopback, healing off, and take turns: a round asks each for
`--seconds` with wrk (Debian: apt-get install wrk), `--callers` connections, one row a request. The
processor's time is that of the scoring processes alone; what the load generator took of all cores
meanwhile is printed beside it. Needs a folder in which ``selfheal run`` has registered the model.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from servers import Server, ask, body_of, selfheal_server

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Turn:
    """Requests a second, requests a second of the scoring processes' time, the load generator's
    share of all cores, and the median and 99th percentile of an answer in milliseconds.
    """

    rate: float
    per_second: float
    asking: float
    p50: float
    p99: float


def main() -> None:
    """Take turns, print medians and ratios of the paired rounds."""
    options = _options()
    turns: dict[int, list[Turn]] = {1: [], options.workers: []}
    with ExitStack() as stack:
        servers = {count: stack.enter_context(_serving(options, count)) for count in turns}
        body = body_of(servers[1].url, options.model, 1)
        for server in servers.values():
            ask(server.url, body, 1.0, callers=options.callers)  # warm
        for _ in range(options.rounds):
            for count, server in servers.items():
                turns[count].append(_turn(server, body, options))
    _print(turns, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where 'selfheal run' was run")
    parser.add_argument("--model", default="fraud")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    return given


@contextmanager
def _serving(options: argparse.Namespace, count: int) -> Iterator[Server]:
    uri = f"sqlite:///{options.folder / 'mlflow.db'}"
    more = ("--no-heal", *(("--workers", str(count)) if count > 1 else ()))
    with (
        tempfile.TemporaryDirectory() as workspace,
        selfheal_server(options.model, uri, options.folder, Path(workspace), *more) as server,
    ):
        while len(_scoring(server)) < count:
            pass
        yield server


def _turn(server: Server, body: bytes, options: argparse.Namespace) -> Turn:
    before, asked = _seconds(server), _children()
    measured = ask(server.url, body, options.seconds, callers=options.callers)
    took, asking = _seconds(server) - before, _children() - asked
    if measured.failed:
        raise SystemExit(f"{measured.failed} requests failed")
    cores = (os.cpu_count() or 1) * options.seconds
    return Turn(measured.rate, measured.answered / took, asking / cores, measured.p50, measured.p99)


def _scoring(server: Server) -> list[int]:
    """The processes that score: the server itself, or its workers."""
    tasks = Path(f"/proc/{server.pid}/task").glob("*/children")
    children = [int(pid) for one in tasks for pid in one.read_text().split()]
    workers = [pid for pid in children
               if b"serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]  # fmt: skip
    return workers or [server.pid]


def _seconds(server: Server) -> float:
    """Of the processor, that its scoring processes have taken."""
    total = 0
    for pid in _scoring(server):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _print(turns: dict[int, list[Turn]], options: argparse.Namespace) -> None:
    table = Table("processes", "requests/s", "per CPU second", "p50 ms", "p99 ms", "asking")
    for count, each in turns.items():
        figures = [median(getattr(one, name) for one in each)
                   for name in ("rate", "per_second", "p50", "p99", "asking")]  # fmt: skip
        rate, per_second, p50, p99, asking = figures
        table.add_row(str(count), f"{rate:,.0f}", f"{per_second:,.0f}", f"{p50:.2f}", f"{p99:.2f}",
                      f"{asking:.0%}")  # fmt: skip
    console = Console()
    console.print(table)
    for name, said in (("rate", "requests/s"), ("per_second", "requests per CPU second")):
        pairs = zip(turns[options.workers], turns[1], strict=True)
        ratios = sorted(getattr(many, name) / getattr(one, name) for many, one in pairs)
        console.print(
            f"{said}, {options.workers} to 1: {median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds), "
            f"load {os.getloadavg()[0]:.1f} at the end"
        )


if __name__ == "__main__":
    main()
