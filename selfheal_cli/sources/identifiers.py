"""Columns that a run leaves out by itself: those that name a row or a time."""

from __future__ import annotations

from selfheal_cli.config_sources import BoundedSettings, RowSettings
from selfheal_cli.sources.inspection import look_at, many_values, no_features
from selfheal_cli.sources.table_file import TableFile

LOOKED_AT = 100_000  # rows


def without_identifiers(
    table: TableFile, settings: RowSettings
) -> tuple[RowSettings, tuple[str, ...]]:
    """Settings that drop the columns too that a network can make nothing of; and what to tell."""
    seen = look_at(table, LOOKED_AT)
    asked = {settings.target, *settings.categorical, *settings.inputs, *settings.drop}
    asked |= {*clocks_of(settings)}
    out = {name: why for name, why in no_features(seen).items() if name not in asked}
    features = [name for name in table.columns if name not in out and name not in asked]
    if not features and not settings.inputs:
        return settings, ()  # nothing would be left
    remarks = [
        f"'{column.name}' has {many}"
        for column in seen
        if column.name in features and (many := many_values(column))
    ]
    if out:
        listed = ", ".join(f"{name} ({why})" for name, why in out.items())
        remarks.insert(0, f"left out: {listed}; --set source.drop_identifiers=no keeps them")
    dropped = settings.model_copy(update={"drop": (*settings.drop, *out)})
    return dropped, tuple(remarks)


def clocks_of(settings: RowSettings) -> list[str]:
    """The columns that hold times."""
    if not isinstance(settings, BoundedSettings):
        return []
    clocks = (settings.time, settings.label_time, settings.sort_by)
    return list(dict.fromkeys(name for name in clocks if name is not None))
