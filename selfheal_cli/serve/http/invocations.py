"""``/invocations``: a body and a content type to an answer, and what is to be recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.scoring import as_json
from selfheal_cli.serve.http import tables
from selfheal_cli.serve.http.extent import require_extent, require_rows
from selfheal_cli.serve.http.model import CanaryModel, ServedModel
from selfheal_cli.serve.http.tables import keys_of

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.records import Columns, FloatArray

JSON = "application/json"
JSON_TYPES = frozenset(
    [JSON, *(f"{JSON};{gap}charset={name}" for gap in ("", " ") for name in ("utf-8", "UTF-8"))]
)
AT_ONCE_BYTES = 128 * 1024  # a larger body would keep others waiting: a thread takes it


@dataclass(frozen=True, slots=True)
class ScoredRequest:
    """Rows that were scored by one version: raw columns, (n,) or (n, K) probabilities."""

    served: ServedModel
    columns: Columns
    probabilities: FloatArray
    keys: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """``scored`` is None where nothing was."""

    text: str
    status: int
    media_type: str
    scored: ScoredRequest | None


def quick_answer(
    served: ServedModel, body: bytes, content_type: str | None, key: str | None, most_rows: int,
    canary: CanaryModel | None = None,
) -> Answer | None:  # fmt: skip
    """The answer to an ordinary JSON table; None for all else. Raises `RequestRefused`.

    A ``canary`` answers instead where the rows are its own.
    """
    if content_type not in JSON_TYPES:
        return None
    table = tables.read(body, served.quick.encoding, key)
    if table is None:
        return None
    require_rows(table.rows, most_rows)
    if canary is not None and canary.takes_rows(table.columns):
        return quick_answer(canary.served, body, content_type, key, most_rows)
    probabilities = served.score(table.columns, table.matrix)
    text = as_json(probabilities, table.output, served.labels, served.threshold)
    return Answer(text, 200, JSON, ScoredRequest(served, table.columns, probabilities, table.keys))


def full_answer(
    served: ServedModel, body: bytes, content_type: str | None, key: str | None, most_rows: int,
    canary: CanaryModel | None = None,
) -> Answer:  # fmt: skip
    """The answer to anything that MLflow's protocol knows, as `quick_answer`. Raises
    `RequestRefused`.
    """
    require_extent(body, content_type, len(served.quick.encoding.columns), most_rows)
    kept: list[ScoredRequest] = []
    others: list[ServedModel] = []

    def score(frame: pd.DataFrame, given: Any) -> tuple[FloatArray, tuple[str, ...], float]:
        require_rows(len(frame), most_rows)
        encoding = served.quick.encoding
        try:
            columns = encoding.raw(frame)
        except KeyError as exc:
            absent = [name for name in encoding.names if name not in frame]
            raise RequestRefused(f"the model is missing inputs: {', '.join(absent)}") from exc
        except (ValueError, TypeError, OverflowError) as exc:
            raise RequestRefused(_no_numbers(frame, encoding.numeric)) from exc
        if canary is not None and canary.takes_rows(columns):
            others.append(canary.served)
        probabilities = served.score(columns)
        keys = keys_of(given, key, len(frame)) if key else None
        kept.append(ScoredRequest(served, columns, probabilities, keys))
        return probabilities, served.labels, served.threshold

    text, status, media_type = served.contract.answer(body, content_type, score)
    if others:
        return full_answer(others[0], body, content_type, key, most_rows)
    return Answer(text, status, media_type, kept[0] if kept else None)


def _no_numbers(frame: pd.DataFrame, numeric: list[str]) -> str:
    for name in numeric:
        try:
            frame[name].to_numpy(dtype="float64")
        except (ValueError, TypeError, OverflowError):
            return f"column '{name}': numbers are expected"
    return "a column does not hold what the model's signature says"
