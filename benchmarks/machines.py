"""Three replicas in folders of their own, as on machines of their own, on one log in PostgreSQL.

Labels are told once, twice, late and before their row, each to a replica by lot; replicas are
killed under load; the healer that holds the lease is stopped beyond its end and goes on; the log is
away for a minute. Exit code 1 unless no request failed that was asked again as the docs say, each
row is in the log once but those in the memory of who was killed, each label was learned from once,
and who lost the lease wrote nothing.

Needs an empty database: ``python benchmarks/machines.py postgresql://USER@HOST/DATABASE``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from servers import EAGER, Server, body_of, free_port, selfheal_server
from serving_load import MODEL, registered, require, selfheal
from takeover import until

from selfheal_cli.events.archive import LOG_NAME
from selfheal_cli.events.log import read
from selfheal_cli.events.types import HealPublished, LabelsArrived, RowsTaken
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.postgres import PostgresDatabase
from selfheal_cli.spool.store import Spool

ROWS = 20  # a request
BATCH = 100  # rows, and labels that are learned from together
DRAIN_SECONDS = 900  # some 80,000 rows lie in the log when it comes back
CLASSES = ("normal", "fraud")


class Relay:
    """A port that leads to the database, and for a while to nowhere."""

    def __init__(self, host: str, port: int) -> None:
        self.away = False
        self.port = free_port()
        self._to = host, port
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._take, daemon=True).start()

    def cut(self) -> None:
        """End what is connected, and take nobody."""
        self.away = True
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _take(self) -> None:
        while True:
            caller, _ = self._listening.accept()
            if self.away:
                caller.close()
                continue
            with suppress(OSError):
                server = socket.create_connection(self._to)
                self._open += [caller, server]
                for pair in ((caller, server), (server, caller)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@dataclass
class Cluster:
    """The replicas, what was asked of them, and where they write."""

    known: Path
    uri: str
    log: str
    relayed: str
    servers: dict[int, Server] = field(default_factory=dict)
    stacks: dict[int, ExitStack] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    dice: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311

    def begin(self, number: int) -> None:
        """A replica, on a machine of its own or once more on that."""
        work = self.known.parent / f"machine-{number}"
        work.mkdir(exist_ok=True)
        (work / "eager.yaml").write_text(EAGER)
        (work / "mlruns" / "selfheal").mkdir(parents=True, exist_ok=True)
        stack = self.stacks[number] = ExitStack()
        self.servers[number] = stack.enter_context(
            selfheal_server(MODEL, self.uri, self.known, work, "--policy", "eager.yaml",
                            "--heal-priority", "normal", "--log", self.relayed)
        )  # fmt: skip

    def end(self) -> None:
        """All of them."""
        for stack in self.stacks.values():
            stack.close()

    def ask(self, body: bytes, name: str) -> bool:
        """Score, at another replica where one does not answer: as docs/scale.md says."""
        headers = {"content-type": "application/json", "x-request-id": name}
        for _ in range(30):
            server = self.dice.choice(list(self.servers.values()))
            with suppress(requests.RequestException):
                url = f"{server.url}/invocations"
                answer = requests.post(url, body, headers=headers, timeout=30)
                if answer.status_code == 200:
                    self.asked.append(name)
                    return True
            time.sleep(0.1)
        self.failures.append(name)
        return False

    def tell(self, name: str) -> None:
        """The labels of a request, at a replica by lot; again where they could not be kept."""
        labels = [CLASSES[(len(name) + place) % 2] for place in range(ROWS)]
        told = {"labels": [{"request_id": name, "labels": labels}]}
        for _ in range(600):
            server = self.dice.choice(list(self.servers.values()))
            with suppress(requests.RequestException):
                answer = requests.post(f"{server.url}/feedback", json=told, timeout=30)
                if answer.status_code == 200:
                    self.told.update(answer.json())
                    return
            time.sleep(0.1)
        self.failures.append(f"labels of {name}")

    def standing(self) -> dict[str, Any]:
        """What the healer says."""
        with closing(ControlChannel(PostgresDatabase(self.log, MODEL))) as channel:
            return channel.status(HEALER)[0]

    def drain(self) -> None:
        """Wait until the healer has seen everything."""
        until(
            lambda: self.standing().get("batch") and not self.standing().get("waiting", 1),
            DRAIN_SECONDS, look=0.5,
        )  # fmt: skip
        time.sleep(3)


def main() -> None:
    """One after the other, then look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", help="URI of an empty database")
    parser.add_argument(
        "--tracking-uri", default="",
        help="an empty store; one of SQLite may stay locked by who is stopped. [default: SQLite]",
    )  # fmt: skip
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--away", type=float, default=60.0, help="seconds")
    parser.add_argument("--stopped", type=float, default=75.0, help="seconds")
    options = parser.parse_args()
    where = urlsplit(options.log)
    relay = Relay(where.hostname or "127.0.0.1", where.port or 5432)
    user = where.netloc.rpartition("@")[0]
    relayed = where._replace(netloc=f"{user}@127.0.0.1:{relay.port}").geturl()
    with tempfile.TemporaryDirectory() as folder:
        known, _, uri = registered(Path(folder), options.tracking_uri)
        cluster = Cluster(known, uri, options.log, relayed)
        try:
            for number in range(3):
                cluster.begin(number)
            body = body_of(cluster.servers[0].url, MODEL, ROWS)
            checks = [
                *_labels(cluster, body, options.requests),
                *_kills(cluster, body, options.kills),
                *_away(cluster, relay, body, options.away),
                *_stopped(cluster, body, options.stopped),
                *_at_the_end(cluster),
            ]
        finally:
            cluster.end()
    sys.exit(0 if all(checks) else 1)


def _labels(cluster: Cluster, body: bytes, count: int) -> Iterator[bool]:
    """Each label once, twice, late, or before its row, at whichever replica."""
    late: list[str] = []
    begun = time.monotonic()
    for number in range(count):
        name, way = f"label-{number}", number % 4
        if way == 3:
            cluster.tell(name)
        cluster.ask(body, name)
        if way in (0, 1):
            cluster.tell(name)
        if way == 1:
            cluster.tell(name)
        if way == 2:
            late.append(name)
    cluster.drain()
    for name in late:
        cluster.tell(name)
    for number in range(10):  # labels count with the next batch
        cluster.ask(body, f"more-{number}")
    cluster.drain()
    print(f"{count} requests, labels told by lot, in {time.monotonic() - begun:.0f} s: "
          f"{dict(cluster.told)}")  # fmt: skip
    yield require("requests or labels that failed", len(cluster.failures), 0, cluster.failures[:3])
    yield from _learned(cluster, count)


def _learned(cluster: Cluster, labelled: int) -> Iterator[bool]:
    """Labels of the log, and those in the event logs of all machines."""
    with closing(Spool(PostgresDatabase(cluster.log, MODEL))) as spool:
        kept = len(spool.labels_after(0, 1_000_000))
    yield require("labels in the log, off what was told", abs(kept - labelled * ROWS), 0)

    left = labelled * ROWS - _labels_learned(cluster)
    yield require("labels that were learned from twice", max(0, -left), 0)
    yield require("labels that wait until they fill a batch", max(0, left), BATCH)


def _labels_learned(cluster: Cluster) -> int:
    """Labels in the event logs of all machines. Those that a run was told without a heal after
    them, and whose rows a later run went through again, count there alone.
    """
    logs = cluster.known.parent.glob(f"machine-*/mlruns/selfheal/runs/*/{LOG_NAME}")
    runs = [list(read(log)) for log in logs if log.parent.name not in _known(cluster)]
    runs.sort(key=lambda events: events[0].at)
    count, again_from = 0, math.inf
    for events in reversed(runs):
        healed = [n for n, one in enumerate(events) if isinstance(one, HealPublished)]
        ends: list[int] = []
        for number, event in enumerate(events):
            if isinstance(event, RowsTaken):
                ends.append(event.offsets["answered"])
            elif isinstance(event, LabelsArrived):
                kept = number < max(healed, default=-1) or ends[-1] < again_from
                count += event.rows if kept else 0
        again_from = min([again_from, *ends])
    return count


def _known(cluster: Cluster) -> set[str]:
    return {path.name for path in (cluster.known / "mlruns" / "selfheal" / "runs").iterdir()}


def _kills(cluster: Cluster, body: bytes, kills: int) -> Iterator[bool]:
    """A replica with its healer is killed under load, and begun again."""
    before, done = len(cluster.asked), threading.Event()

    def load() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            cluster.ask(body, f"load-{number}")
            time.sleep(0.05)

    thread = threading.Thread(target=load)
    thread.start()
    for number in range(kills):
        dying = number % 3
        server = cluster.servers.pop(dying)
        healer = server.healer()
        for pid in filter(None, (server.pid, healer)):
            os.kill(pid, signal.SIGKILL)
        with suppress(Exception):
            cluster.stacks.pop(dying).close()
        cluster.begin(dying)
    done.set()
    thread.join()
    time.sleep(2)
    cluster.lost = set(cluster.asked) - set(_requests(cluster))
    print(f"{len(cluster.lost)} requests were answered and not written yet when their replica died")
    print(f"{kills} replicas killed while {len(cluster.asked) - before} requests were asked")
    yield require("requests that failed", len(cluster.failures), 0, cluster.failures[:3])


def _away(cluster: Cluster, relay: Relay, body: bytes, seconds: float) -> Iterator[bool]:
    """The log, and with it the bulletin, is away."""
    relay.cut()
    begun, waits = time.monotonic(), []
    for number in itertools.count():
        if time.monotonic() - begun > seconds:
            break
        at = time.monotonic()
        cluster.ask(body, f"away-{number:05}")
        waits.append(time.monotonic() - at)
        time.sleep(0.05)
    relay.away = False
    print(f"log away {seconds:g} s: {number} requests answered, the longest {max(waits):.2f} s")
    yield require("requests that failed", len(cluster.failures), 0, cluster.failures[:3])
    until(lambda: _missing(cluster) == 0)
    yield require("rows that are not in the log", _missing(cluster), 0)
    cluster.drain()


def _missing(cluster: Cluster) -> int:
    return len(set(cluster.asked) - cluster.lost - set(_requests(cluster)))


def _requests(cluster: Cluster) -> list[str]:
    with closing(PostgresDatabase(cluster.log, MODEL)) as database:
        return [row[0] for row in database.all("SELECT request FROM answered ORDER BY number")]


def _stopped(cluster: Cluster, body: bytes, seconds: float) -> Iterator[bool]:
    """The healer that holds the lease stands still until another has taken over, and goes on."""
    registry = MlflowRegistry(cluster.uri)
    for number in range(10):
        cluster.ask(body, f"before-{number}")
    held = until(lambda: standing(registry, MODEL).lease)
    pid = cluster.standing()["pid"]
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    taken = None
    while time.monotonic() - begun < 2 * seconds and taken is None:
        cluster.ask(body, f"stopped-{time.monotonic():.2f}")
        now = standing(registry, MODEL).lease
        taken = time.monotonic() - begun if now is not None and now.run != held.run else None
        time.sleep(0.2)
    if taken is None:
        os.kill(pid, signal.SIGCONT)
        yield require("seconds until another took over", 1e9, seconds)
        return
    entries = len(list(registry.entries(MODEL)))
    os.kill(pid, signal.SIGCONT)
    for number in range(50):
        cluster.ask(body, f"after-{number}")
        time.sleep(0.1)
    cluster.drain()
    later = list(registry.entries(MODEL))[entries:]
    yield require("seconds until another took over", round(taken, 1), seconds)
    stale = [one for one in later if one.data.get("run") == held.run]
    yield require("entries of the journal by who lost the lease", len(stale), 0, stale[:2])
    with closing(Spool(PostgresDatabase(cluster.log, MODEL))) as spool:
        committed = spool.committed("", 0)
    yield require("the log's cursor is of who lost the lease",
                  float(committed is not None and committed[1] == held.run), 0)  # fmt: skip


def _at_the_end(cluster: Cluster) -> Iterator[bool]:
    requests_kept, asked = _requests(cluster), cluster.asked
    yield require("requests that are in the log twice",
                  len(requests_kept) - len(set(requests_kept)), 0)  # fmt: skip
    lost = set(asked) - set(requests_kept) - cluster.lost
    yield require("requests that are not in the log", len(lost), 0, sorted(lost)[:3])
    registry = MlflowRegistry(cluster.uri)
    move = standing(registry, MODEL).moves[CHAMPION]
    reads = registry.alias(MODEL, CHAMPION)
    yield require("the alias is not what the journal says", float(reads != move.target), 0)
    cluster.end()
    cluster.stacks.clear()
    yield require("exit code of audit", audited(cluster), 0)


def audited(cluster: Cluster) -> int:
    """Exit code of an audit of all machines' history, once each has brought what it still had."""
    folders = sorted(cluster.known.parent.glob("machine-*"))
    for folder in folders:
        selfheal(folder, "flush", uri=cluster.uri)
    others = [f"--folder={one}" for one in folders[1:]]
    return selfheal(folders[0], "audit", "--model", MODEL, *others, uri=cluster.uri)


if __name__ == "__main__":
    main()
