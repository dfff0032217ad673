"""Stores that the tests start themselves: PostgreSQL, an S3 of moto's, a tracking server."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.conftest import PATIENCE
from tests.forked import in_fork

USER, PASSWORD = "selfheal", "s3cret-of-the-tests"
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server on loopback; `template` holds MLflow's schema and nothing else."""

    port: int
    template: str = "template_mlflow"

    def uri(self, database: str) -> str:
        """As a user writes it, with a password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def renew(self, database: str) -> str:
        """A database with MLflow's schema and nothing in it; whoever is connected is cut off."""
        _make_schema(self)
        self.drop(database)
        self.execute(f'CREATE DATABASE "{database}" TEMPLATE "{self.template}"')
        return self.uri(database)

    def drop(self, database: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@dataclass(frozen=True, slots=True)
class S3:
    """A bucket of an S3-compatible server, and what a client must have in its environment."""

    endpoint: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def create(self) -> None:
        self._client().create_bucket(Bucket=self.bucket)

    def objects(self) -> list[str]:
        """The objects in the bucket."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def upload(self, folder: Path) -> None:
        """Everything under a folder, with its path there as the key."""
        client = self._client()
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), self.bucket, str(path.relative_to(folder)))

    def delete(self, key: str) -> None:
        self._client().delete_object(Bucket=self.bucket, Key=key)

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL of the newest version installed, in a folder of its own."""
    binaries = postgres_binaries()
    # not in pytest's folder, which another user may not enter
    folder = Path(tempfile.mkdtemp(prefix="selfheal-postgres-"))
    account = _unprivileged(folder)

    def run(program: str, *arguments: str) -> None:
        with (folder / "output").open("w+") as output:  # a pipe would be held by the server
            done = subprocess.run(
                [binaries / program, *arguments],
                check=False,
                stdout=output,
                stderr=output,
                cwd=folder,
                **account,
            )
            output.seek(0)
            log = folder / "log"
            assert done.returncode == 0, (
                f"{program}: {output.read()}{log.read_text() if log.exists() else ''}"
            )

    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    data = ("-D", str(folder / "data"))
    port = free_port()
    settings = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' "
        # nothing here outlives the tests
        "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 "
        "-c autovacuum=off"  # whose transactions would hold rows of a log back
    )
    try:
        run("initdb", *data, "-U", USER, "-A", "scram-sha-256", "--no-sync",
            f"--pwfile={password}", "-E", "UTF8", "--locale=C")  # fmt: skip
        run("pg_ctl", *data, "-w", "-s", "-t", f"{PATIENCE:.0f}",
            "-l", str(folder / "log"), "-o", settings, "start")  # fmt: skip
        try:
            yield Postgres(port)
        finally:
            run("pg_ctl", *data, "-w", "-s", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def postgres_binaries() -> Path:
    """The folder of ``initdb``; without one CI fails, and other machines skip."""
    on_path = shutil.which("initdb")
    binaries = [Path(on_path).resolve()] if on_path else []
    for place in PLACES:
        binaries += Path("/").glob(f"{place[1:]}/initdb")
    if binaries:
        return max(binaries, key=_major).parent
    message = (
        f"no PostgreSQL server here: no 'initdb' on the PATH nor in {' or '.join(PLACES)}; "
        "install one, as with 'apt-get install postgresql'"
    )
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _major(initdb: Path) -> int:
    """The 15 of ``initdb (PostgreSQL) 15.14``."""
    text = subprocess.run(
        [initdb, "--version"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return int(text.split(")")[1].split(".")[0])


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Whom to run a server as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.fail("neither a user 'postgres' nor 'nobody' to run PostgreSQL as")


@cache
def _make_schema(server: Postgres) -> None:
    """In a process of its own: a connection of this one would keep the template from copying."""
    from mlflow import MlflowClient

    server.execute(f'CREATE DATABASE "{server.template}"')
    assert in_fork(lambda: MlflowClient(server.uri(server.template)).search_experiments()) == 0


@contextmanager
def tracking_server(
    folder: Path, *, backend: str, artifacts: str, environment: Mapping[str, str]
) -> Iterator[str]:
    """MLflow's own server on loopback, with artifacts going through it."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--backend-store-uri", backend,
               "--artifacts-destination", artifacts]  # fmt: skip
    inherited = {
        **os.environ,
        **environment,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # more processes, which take seconds
    }
    inherited.pop("MLFLOW_TRACKING_URI", None)
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=inherited, cwd=folder, start_new_session=True
        )
        try:
            _await(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # its workers too
            process.wait(PATIENCE)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=1):  # noqa: S310 (loopback)
                return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the tracking server did not start (exit {process.poll()}): {log.read_text()}")


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
