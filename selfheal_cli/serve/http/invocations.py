"""``/invocations``: a body and a content type to an answer, and what is to be recorded of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.scoring import as_json
from selfheal_cli.serve.http import tables
from selfheal_cli.serve.http.extent import require_extent, require_rows
from selfheal_cli.serve.http.model import ServedModel, Turn
from selfheal_cli.serve.http.tables import keys_of
from selfheal_cli.sources.values import one_number

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
    trial: Turn | None = None,
) -> Answer | None:  # fmt: skip
    """The answer to an ordinary JSON table; None for all else. Raises `RequestRefused`.

    What is in ``trial`` answers instead where the rows are its own.
    """
    if content_type not in JSON_TYPES:
        return None
    table = tables.read(body, served.quick.encoding, key)
    if table is None:
        return None
    require_rows(table.rows, most_rows)
    columns = table.columns
    if trial is not None:
        other = tables.read(body, trial.served.quick.encoding, key) if trial.apart else table
        if other is not None:
            columns = both(table.columns, other.columns)
            if trial.takes(table.columns):
                served, table = trial.served, other
    probabilities = served.score(table.columns, table.matrix)
    text = as_json(probabilities, table.output, served.labels, served.threshold)
    return Answer(text, 200, JSON, ScoredRequest(served, columns, probabilities, table.keys))


def both(own: Columns, others: Columns) -> Columns:
    """The columns of a champion, and those that only what is tried reads."""
    return own if others is own else {**others, **own}


def full_answer(
    served: ServedModel, body: bytes, content_type: str | None, key: str | None, most_rows: int,
    trial: Turn | None = None,
) -> Answer:  # fmt: skip
    """The answer to anything that MLflow's protocol knows, as `quick_answer`. Raises
    `RequestRefused`.
    """
    own = _full(served, body, content_type, key, most_rows)
    if trial is None or own.scored is None or own.status != 200:
        return own
    takes = trial.takes(own.scored.columns)
    if not (takes or trial.apart):
        return own
    try:
        other = _full(trial.served, body, content_type, key, most_rows)
    except RequestRefused:  # it needs what this caller does not send
        return own
    if other.scored is None or other.status != 200:
        return own
    chosen, columns = other if takes else own, both(own.scored.columns, other.scored.columns)
    assert chosen.scored is not None  # noqa: S101 - as both are
    return replace(chosen, scored=replace(chosen.scored, columns=columns))


def _full(
    served: ServedModel, body: bytes, content_type: str | None, key: str | None, most_rows: int
) -> Answer:
    require_extent(body, content_type, len(served.quick.encoding.columns), most_rows)
    kept: list[ScoredRequest] = []

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
        probabilities = served.score(columns)
        keys = keys_of(given, key, len(frame)) if key else None
        kept.append(ScoredRequest(served, columns, probabilities, keys))
        return probabilities, served.labels, served.threshold

    text, status, media_type = served.contract.answer(body, content_type, score)
    return Answer(text, status, media_type, kept[0] if kept else None)


def _no_numbers(frame: pd.DataFrame, numeric: list[str]) -> str:
    for name in numeric:
        try:
            frame[name].to_numpy(dtype="float64")
        except (ValueError, TypeError, OverflowError):
            return f"column '{name}': {numbers_expected(frame[name])}"
    return "a column does not hold what the model's signature says"


def numbers_expected(values: Iterable[Any]) -> str:
    """What is said of a column that has something else: where, and nothing of what it holds."""
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
    for row, value in enumerate(values):
        if one_number(value) is None:
            kind = kinds.get(type(value), "something")
            return f"numbers are expected, and row {row} holds {kind} that is none"
    return "numbers are expected"
