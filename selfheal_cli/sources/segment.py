"""The column that says which segment a row is of; it may be a feature or a further column."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal_cli.config import SegmentSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.table_file import TableFile, require_column

if TYPE_CHECKING:
    from selfheal_cli.config_sources import RowSettings
    from selfheal_cli.sources.fit import Fitted

NONE = SegmentSettings()


def with_segment(
    fitted: Fitted, table: TableFile, settings: RowSettings, segments: SegmentSettings
) -> Fitted:
    """The same reading, which keeps the segments' column beside the features; where they are healed
    the model takes it.

    Raises `DataError` where the table has no such column, or it is the target.
    """
    by = segments.by
    if by is None:
        return fitted
    require_column(table, by)
    if by == settings.target:
        raise DataError(
            f"{table.where}: segments.by = '{by}' is the target; a segment is known before the "
            "label is: name another column"
        )
    if segments.heal:
        return replace(fitted, encoding=fitted.encoding.by_segment(by))
    return replace(fitted, beside=() if by in fitted.encoding.names else (by,))
