"""The source that a configuration names."""

from __future__ import annotations

from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.source.base import Source


def open_source(config: RunConfig) -> Source:
    """Open it; what reads tables loads only where a table is read."""
    size: dict[str, Any] = {"batch_size": config.batch_size, "batches": config.batches}
    if config.source.kind == "table":
        from selfheal_cli.source.table import TableSource

        return TableSource(config.source, **size)
    from selfheal_cli.source.synthetic import SyntheticSource

    return SyntheticSource(config.source, seed=config.seed, **size)
