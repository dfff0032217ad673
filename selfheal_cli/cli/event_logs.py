"""A run's event log, here or as kept by the registry."""

from __future__ import annotations

from pathlib import Path


def log_of(run_name: str, tracking_uri: str | None, into: Path) -> Path:
    """The log of a run; fetched into ``into`` where it is not in this folder.

    Raises `RegistryError` where the registry does not have it either.
    """
    from selfheal_cli.errors import EventLogError
    from selfheal_cli.history.archive import LATEST, LOG_NAME, find_run

    found = find_run(run_name)
    if found is not None:
        return found
    if run_name == LATEST:
        raise EventLogError("no run was made in this folder: mlruns/selfheal/runs is empty")
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(tracking_uri).run_file(run_name, LOG_NAME, into)
