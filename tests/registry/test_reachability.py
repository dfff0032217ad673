"""Which store is asked, by whose rules, and that looking for one makes none."""

from __future__ import annotations

import base64
import http.server
import json
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from selfheal_cli.errors import NoStore, RegistryError, RegistryUnreachable
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.mlflow.store import resolve, translated
from tests.conftest import Invoke, enter

READING = (
    ("snapshots",),
    ("show", "1"),
    ("history",),
    ("history", "--run", "0123abcd"),
    ("champion",),
    ("champion", "--at", "2026-01-31"),
    ("audit",),
    ("audit", "--replay", "1"),
    ("doctor",),
    ("diff", "1", "2"),
    ("report", "0123abcd"),
    ("export", "0123abcd"),
    ("rollback", "--to-best", "--dry-run"),
    ("rollback", "--to", "1", "--yes"),
    ("prune",),
    ("status", "--model-name", "fraud"),
    ("approve", "1", "--yes"),
    ("reject", "1"),
    ("hold", "--reason", "no"),
    ("release",),
    ("wrap", "models:/fraud/1", "--list"),
    ("run", "--from", "models:/fraud/1"),
    ("ui",),
)


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_command_that_finds_no_store_says_so_and_makes_nothing(
    arguments: tuple[str, ...], empty_dir: Path, invoke: Invoke
) -> None:
    said = invoke(*arguments, expect=4)
    assert "no store here" in " ".join((said.output + said.stderr).split())
    assert list(empty_dir.iterdir()) == []


@pytest.mark.parametrize("arguments", [("config", "show"), ("policy", "list"), ("flush",)])
def test_a_command_that_needs_no_store_makes_none(
    arguments: tuple[str, ...], empty_dir: Path, invoke: Invoke
) -> None:
    invoke(*arguments)
    assert list(empty_dir.iterdir()) == []


def test_a_database_without_mlflows_tables_is_left_without_them(empty_dir: Path) -> None:
    Path("mlflow.db").touch()
    with pytest.raises(NoStore, match="none of MLflow's tables"):
        MlflowRegistry()
    assert Path("mlflow.db").stat().st_size == 0


@pytest.mark.parametrize("name", ["my app", "50% off", "what?", "a#b", "ärger", "at@home"])
def test_the_store_is_made_in_the_working_folder_whatever_that_is_called(
    name: str, store_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    (tmp_path / name).mkdir()
    enter(tmp_path / name, monkeypatch)
    Path("mlflow.db").write_bytes(store_template.read_bytes())
    invoke("doctor")
    assert MlflowRegistry(create=True).models() == []
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert [one.name for one in Path().iterdir()] == ["mlflow.db"]


def test_an_encoded_path_is_that_of_the_file_that_is_meant(
    store_template: Path, tmp_path: Path, invoke: Invoke
) -> None:
    (tmp_path / "my app").mkdir()
    (tmp_path / "my app" / "mlflow.db").write_bytes(store_template.read_bytes())
    invoke("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/my%20app/mlflow.db")
    assert [one.name for one in tmp_path.iterdir()] == ["my app"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("127.0.0.1:5000", "no scheme; give http://127.0.0.1:5000"),
        ("localhost:5000/x", "no scheme; give http://localhost:5000/x"),
        ("[::1]:5000", "no scheme"),
        ("databricks", "Databricks is not supported"),
        ("databricks://profile", "Databricks is not supported"),
        ("databricks-uc", "Databricks is not supported"),
        ("mlflow.db", "give sqlite:///mlflow.db"),
        ("./mlruns", "is an MLflow file store"),
        ("file:///srv/mlruns", "is an MLflow file store"),
        ("postgres://ann@db/x", "is no store that MLflow knows; sqlite:///FILE"),
        ("s3://bucket", "is no store that MLflow knows"),
        ("postgresql://ann:p@ss@db/x", "write an '@' in the user's name or password as %40"),
    ],
)
def test_a_store_named_loosely_is_answered_with_what_was_meant(uri: str, words: str) -> None:
    with pytest.raises(RegistryError) as caught:
        resolve(uri)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////tmp/what%3F/mlflow.db",
        "sqlite:///file:mlflow.db?mode=ro&uri=true",
        "postgresql+psycopg://ann:p%40ss@db/x",
        "mysql+pymysql://ann@db/x",
        "mssql+pyodbc:///?odbc_connect=x",
        "https://ann:p@ss@tracking/prefix",
    ],
)
def test_every_uri_that_mlflow_takes_is_taken_as_it_is(uri: str) -> None:
    assert resolve(uri) == uri


class _Tracking(http.server.BaseHTTPRequestHandler):
    """Answers everything with an empty document, to those who show the right credentials."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = self.server.wanted  # type: ignore[attr-defined]
        allowed = wanted in (None, self.headers.get("Authorization"))
        body = b"{}" if allowed else b'{"error_code": "UNAUTHENTICATED", "message": "who?"}'
        self.send_response(200 if allowed and not self.path.endswith("/health") else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing is told."""


@contextmanager
def tracking(wanted: str | None = None, certificate: Path | None = None) -> Iterator[str]:
    """HOST:PORT of a server that wants this ``Authorization``; with TLS where a file is given."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Tracking)
    server.wanted = wanted  # type: ignore[attr-defined]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_with_a_certificate_of_ones_own_is_reached_as_mlflow_reaches_it(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "both.pem",
         "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    with Path("both.pem").open("a") as both:
        both.write(Path("cert.pem").read_text())
    with tracking(certificate=Path("both.pem")) as place:
        store = ("--tracking-uri", f"https://{place}")
        refused = invoke("snapshots", "--model-name", "x", *store, expect=4).stderr
        assert "out of reach" in refused
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(Path("cert.pem").absolute()))
        assert (
            "no registered model 'x'"
            in invoke("snapshots", "--model-name", "x", *store, expect=4).stderr
        )


def test_who_asks_is_told_to_a_server_in_each_way_that_mlflow_knows(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    basic = f"Basic {base64.b64encode(b'ann:hunter2').decode()}"
    with tracking(wanted=basic) as place:
        asked = ("snapshots", "--model-name", "x", "--tracking-uri")
        refused = invoke(*asked, f"http://{place}", expect=4).stderr
        assert "MLFLOW_TRACKING_USERNAME" in refused
        named = invoke(*asked, f"http://ann:hunter2@{place}", expect=4).stderr
        assert "no registered model 'x'" in named
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
        assert "no registered model 'x'" in invoke(*asked, f"http://{place}", expect=4).stderr
    with tracking(wanted="Bearer hunter2") as place:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
        assert "no registered model 'x'" in invoke(*asked, f"http://{place}", expect=4).stderr


def test_a_proxy_of_the_environment_is_asked_for_a_host_that_only_it_knows(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    with tracking() as place:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://{place}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        said = invoke(
            "snapshots", "--model-name", "x", "--tracking-uri", "http://tracking.invalid", expect=4
        ).stderr
    assert "no registered model 'x'" in said


def test_a_store_out_of_reach_is_told_in_one_line(empty_dir: Path, invoke: Invoke) -> None:
    for uri in ("http://127.0.0.1:1", "postgresql://ann@127.0.0.1:1/x"):
        said = invoke("snapshots", "--model-name", "x", "--tracking-uri", uri, expect=4).stderr
        assert "out of reach" in said
        assert len(said.splitlines()) == 1
    assert (
        json.loads(
            invoke("doctor", "--json", "--tracking-uri", "http://127.0.0.1:1", expect=4).stdout
        )["findings"][-1]["check"]
        == "store"
    )
    assert list(empty_dir.iterdir()) == []


def test_a_database_that_is_busy_is_tried_again_however_mlflow_wraps_what_it_says() -> None:
    busy = OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
    with pytest.raises(RegistryUnreachable, match="is locked"), translated("tag", "sqlite:///x.db"):
        try:
            raise busy
        except OperationalError as exc:
            wrapped = MlflowException.invalid_parameter_value("database is locked")
            raise wrapped from exc
    plain = MlflowException.invalid_parameter_value("no such thing")
    with pytest.raises(RegistryError) as told, translated("tag", "sqlite:///x.db"):
        raise plain
    assert not isinstance(told.value, RegistryUnreachable)
