"""A run's event log, here or as kept by the registry."""

from __future__ import annotations

from pathlib import Path


def require_log(run_name: str) -> Path:
    """The log of a run in this folder; raises `EventLogError` where it is not here."""
    from selfheal_cli.errors import EventLogError
    from selfheal_cli.history.archive import find_run

    found = find_run(run_name)
    if found is None:
        raise EventLogError(
            f"no run '{run_name}' in mlruns/selfheal/runs of this folder: stand in the folder in "
            "which it was begun"
        )
    return found


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
