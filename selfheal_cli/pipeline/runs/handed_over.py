"""Rows that were handed over to whoever retrained a model: what is normal for what comes back."""

from __future__ import annotations

import json
from pathlib import Path

from selfheal_cli.config_sources import TableSettings
from selfheal_cli.records import Base
from selfheal_cli.registry.encoding import encoding_of

ROWS_NAME, ABOUT_NAME = "rows.parquet", "handover.json"


def handovers(model: str, workspace: Path) -> Path:
    """Where those of a model lie, a folder each."""
    return workspace / "handover" / model


def handed_over(base: Base, model: str, workspace: Path) -> TableSettings | None:
    """The latest that have the columns and classes of a network; None where there are none."""
    names, classes = set(encoding_of(base).names), list(base.describe()["labels"])
    for path in sorted(handovers(model, workspace).glob(f"*/{ABOUT_NAME}"), reverse=True):
        about, rows = json.loads(path.read_text()), path.with_name(ROWS_NAME)
        columns = {one["name"] for one in about["schema"]}
        if columns >= names and about["classes"] == classes and rows.exists():
            return TableSettings(
                path=rows, target=about["target"],
                positive=classes[1] if len(classes) == 2 else None,
                drop=tuple(sorted(columns - names - {about["target"]})),
            )  # fmt: skip
    return None
