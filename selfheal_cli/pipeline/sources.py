"""The source that a configuration names, and the rows that a run kept of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from selfheal_cli.config import RunConfig, TableSettings
from selfheal_cli.errors import DataError, RegistryError
from selfheal_cli.registry.base import Registry
from selfheal_cli.source.base import Source


def open_source(config: RunConfig) -> Source:
    """Open it; what reads tables loads only where a table is read."""
    size: dict[str, Any] = {"batch_size": config.batch_size, "batches": config.batches}
    if config.source.kind == "table":
        from selfheal_cli.source.table import TableSource

        return TableSource(config.source, **size)
    if config.source.kind != "synthetic":
        raise DataError(
            "the rows of this run came from a program or through a server: they cannot be read "
            "again, so that it can be neither resumed nor replayed"
        )
    from selfheal_cli.source.synthetic import SyntheticSource

    return SyntheticSource(config.source, seed=config.seed, **size)


def kept_rows(config: RunConfig, folder: Path) -> Path | None:
    """Where a run keeps its rows; None where it does not."""
    settings = config.source
    if isinstance(settings, TableSettings) and settings.record_rows:
        return folder / f"rows{settings.path.suffix}"
    return None


def keep_rows(config: RunConfig, folder: Path) -> None:
    """Copy the table into the run's folder, if that is wanted."""
    path = kept_rows(config, folder)
    if path is not None and isinstance(config.source, TableSettings):
        part = path.with_name(f"{path.name}.part")
        shutil.copyfile(config.source.path, part)
        part.replace(path)


def open_kept(
    config: RunConfig, folder: Path, registry: Registry, run_id: str, into: Path
) -> Source:
    """A run's source once more: the rows that it kept, here or in the registry, if it kept any.

    Raises `DataError` where a table is gone and was not kept.
    """
    kept = kept_rows(config, folder)
    if kept is None:
        return open_source(config)
    if not kept.exists():
        try:
            kept = registry.run_file(run_id, kept.name, into)
        except RegistryError:
            return open_source(config)
    settings = config.source.model_copy(update={"path": kept})
    return open_source(config.model_copy(update={"source": settings}))
