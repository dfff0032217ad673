"""Every store as a fixture: ``postgres_uri``, ``s3``, ``server_uri``, and ``registry`` over all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.registry.stores import S3, Postgres, tracking_server

DATABASES = ("memory", "sqlite", "postgres", "server")
STORES = (*DATABASES, "s3")
SERVER_DATABASE = "server"


@pytest.fixture
def postgres_uri(postgres: Postgres) -> Iterator[str]:
    """An empty database with MLflow's schema."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres.renew(name)
    postgres.drop(name)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's S3 on a free port of loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An empty bucket, and the environment of a client that uses it."""
    return _enter(S3(s3_endpoint, f"test-{uuid.uuid4().hex}"), monkeypatch)


def _enter(bucket: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    bucket.create()
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


@dataclass(frozen=True, slots=True)
class SharedServer:
    """A tracking server as teams set it up: PostgreSQL behind it, artifacts through it to S3."""

    uri: str
    bucket: S3


@pytest.fixture(scope="session")
def _shared_server(
    postgres: Postgres, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedServer]:
    """Starting one takes seconds; its database is renewed for each test."""
    bucket = S3(s3_endpoint, f"server-{uuid.uuid4().hex}")
    bucket.create()
    with tracking_server(
        tmp_path_factory.mktemp("server"),
        backend=postgres.renew(SERVER_DATABASE),
        artifacts=bucket.uri,
        environment=bucket.environment,
    ) as uri:
        yield SharedServer(uri, bucket)


@pytest.fixture
def shared_server(_shared_server: SharedServer, postgres: Postgres) -> SharedServer:
    """The tracking server with an empty database, and the bucket behind it."""
    postgres.renew(SERVER_DATABASE)
    return _shared_server


@pytest.fixture
def server_uri(shared_server: SharedServer) -> str:
    """The tracking server, empty."""
    return shared_server.uri


@pytest.fixture(params=STORES)
def registry(request: pytest.FixtureRequest) -> Registry:
    """An empty registry in each of the stores, from an empty working folder."""
    if request.param == "memory":
        return MemoryRegistry()
    if request.param in ("sqlite", "s3"):
        request.getfixturevalue("workdir")
    else:
        request.getfixturevalue("empty_dir")
    if request.param == "sqlite":
        return MlflowRegistry()
    if request.param == "s3":
        return _with_artifacts_in(request.getfixturevalue("s3"))
    return MlflowRegistry(request.getfixturevalue(f"{request.param}_uri"))


def _with_artifacts_in(bucket: S3) -> Registry:
    """SQLite, whose experiment `trial` keeps its artifacts in the bucket."""
    from mlflow import MlflowClient

    registry = MlflowRegistry()
    MlflowClient().create_experiment("trial", artifact_location=f"{bucket.uri}/trial")
    assert not Path("mlruns").exists()
    return registry
