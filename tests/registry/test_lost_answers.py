"""A server that does each write and whose answer is lost on the way, again and again."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from selfheal_cli.errors import RegistryError
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Lineage
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.mlflow.runs import DOUBLE_TAG
from tests.conftest import PATIENCE, Invoke
from tests.registry.chains import check_chain
from tests.registry.test_contract import ADAPTER, NOW, a_base, snapshot

pytestmark = pytest.mark.slow

MAKING = ("experiments/create", "runs/create", "registered-models/create", "logged-models",
          "model-versions/create")  # fmt: skip


@dataclass
class Lossy:
    """Forwards each request, and forgets to answer some of those that write."""

    behind: str
    share: float = 0.1
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311
    lock: threading.Lock = field(default_factory=threading.Lock)
    lost: list[str] = field(default_factory=list)
    first_of: set[str] = field(default_factory=set)  # lose the first answer of each of these

    def loses(self, method: str, path: str) -> bool:
        with self.lock:
            lost = method != "GET" and not path.endswith("/search")
            lost = lost and self.random.random() < self.share
            for end in [end for end in self.first_of if method == "POST" and path.endswith(end)]:
                self.first_of.discard(end)
                lost = True
            if lost:
                self.lost.append(path)
            return lost


@contextmanager
def lossy(behind: str) -> Iterator[tuple[str, Lossy]]:
    """A proxy before a server; its URL, and what it has lost."""
    losing = Lossy(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            inner = http.client.HTTPConnection(urlsplit(behind).netloc, timeout=PATIENCE)
            sent = {name: value for name, value in self.headers.items() if name != "Host"}
            inner.request(self.command, self.path, body, sent)
            answer = inner.getresponse()
            data = answer.read()
            inner.close()
            if losing.loses(self.command, urlsplit(self.path).path):
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):  # whatever the method
                return self._forward
            raise AttributeError(name)

        def log_message(self, *arguments: object) -> None:
            """Nothing is told."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", losing
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow waits a second and more before it sends again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


def check_once(uri: str, model: str, count: int) -> None:
    """Each snapshot is one version that stands on one logged model."""
    client = MlflowClient(uri)
    entries = client.search_model_versions(f"name = '{model}'")
    assert len({entry.source for entry in entries}) == len(entries) == count
    assert not any(DOUBLE_TAG in entry.tags for entry in entries)
    experiments = [one.experiment_id for one in client.search_experiments()]
    logged = client.search_logged_models(
        experiments, filter_string=f"tags.`selfheal.model` = '{model}'", max_results=1000
    )
    assert {f"models:/{one.model_id}" for one in logged} == {entry.source for entry in entries}


def test_a_run_and_a_rollback_leave_each_version_move_and_entry_once(
    server_uri: str, empty_dir: Path, invoke: Invoke
) -> None:
    with lossy(server_uri) as (uri, losing):
        losing.share, losing.first_of = 0.2, {"model-versions/create"}
        store = ("--tracking-uri", uri)
        told = json.loads(invoke("run", "--batches", "4", "--no-plots", "--json", *store).stdout)
        invoke("rollback", "--to-best", "--yes", *store)
    assert len(losing.lost) > 10
    assert not losing.first_of
    check_once(server_uri, "fraud", told["versions"])
    registry = MlflowRegistry(server_uri)
    assert check_chain(registry, "fraud") > 1
    invoke("audit", "--tracking-uri", server_uri)
    client = MlflowClient(server_uri)
    experiment = client.get_experiment_by_name("selfheal").experiment_id
    assert len(client.search_runs([experiment])) == 1


def test_what_mlflow_makes_twice_by_asking_again_is_taken_away(
    server_uri: str, empty_dir: Path
) -> None:
    with lossy(server_uri) as (uri, losing):
        losing.share, losing.first_of = 0.0, {*MAKING, "log-parameter", "alias"}
        registry = MlflowRegistry(uri)
        run_id = registry.begin_run("once", {"a": "1"}, {})
        losing.first_of.add("logged-models")
        base = registry.store_base(run_id, a_base("lost"))
        lineage = Lineage("once", run_id, base, "article", "full", "abc")
        losing.first_of.add("logged-models")
        for number in (1, 2):
            added = registry.add_version(lineage, snapshot(number), ADAPTER, None)
        move_alias(registry, Move("once", CHAMPION, added.version, "ann", NOW, "first"))
        registry.require_writable()
        assert {end for end in MAKING if any(path.endswith(end) for path in losing.lost)} == {
            *MAKING
        }
    check_once(server_uri, "once", 2)
    client = MlflowClient(server_uri)
    experiment = client.get_experiment_by_name("once").experiment_id
    assert len(client.search_runs([experiment])) == 1
    (double,) = client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)
    assert double.data.tags[DOUBLE_TAG] == run_id
    bases = client.search_logged_models(
        [experiment], filter_string="tags.`selfheal.phase` = 'base'"
    )
    assert [one.model_id for one in bases] == [base]
    assert check_chain(registry, "once") == 1
    assert MlflowRegistry(server_uri).alias("once", CHAMPION) == added.version


def test_a_client_that_does_not_ask_again_finds_what_came_through(
    server_uri: str, empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(server_uri)
    run_id = registry.begin_run("again", {"a": "1"}, {})
    base = registry.store_base(run_id, a_base("again"))
    lineage = Lineage("again", run_id, base, "article", "full", "abc")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with lossy(server_uri) as (uri, losing):
        impatient = MlflowRegistry(uri)
        for number, lost in enumerate(("logged-models", "model-versions/create"), 1):
            losing.share, losing.first_of = 0.0, {lost}
            again = False
            for _ in range(3):
                try:
                    impatient.add_version(lineage, snapshot(number), ADAPTER, None, again=again)
                    break
                except RegistryError:
                    again = True
            assert again
    check_once(server_uri, "again", 2)
