"""Which log a model has: the file of its folder, or one that replicas on any machine share."""

from __future__ import annotations

from pathlib import Path

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.masking import masked_uri
from selfheal_cli.spool.database import LogDatabase
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.postgres import SCHEMES, PostgresDatabase
from selfheal_cli.workspace import WORKSPACE


def place_of(model: str, workspace: Path = WORKSPACE, log: str | None = None) -> Path | LogDatabase:
    """Where to open a model's log: ``log`` is a URI of PostgreSQL's, None the folder's own file.

    Raises `ConfigurationError` for another URI, `StorageError` where the server is away.
    """
    if log is None:
        return spool_path(model, workspace)
    if not log.startswith(SCHEMES):
        raise ConfigurationError(
            f"--log {masked_uri(log)}: {' or '.join(SCHEMES)} is expected; leave it out for the "
            "file in this folder"
        )
    return PostgresDatabase(log, model)
