"""MLflow's scoring protocol by MLflow's own functions; what they say of a caller's data stays here.

A request that MLflow's server answers with a stack trace and the caller's rows is refused with
the same error code and a line that says what was wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types import DataType, Schema
from mlflow.version import VERSION

from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.layout import OUTPUTS
from selfheal_cli.registry.mlflow.format import describe
from selfheal_cli.registry.pyfunc import as_answer, asked_output
from selfheal_cli.sources.files import csv_frame
from selfheal_cli.sources.parquet import parquet_frame

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

MLFLOW_VERSION = VERSION
FORMATS = "dataframe_split, dataframe_records, instances or inputs"
SHAPES = {
    "dataframe_split": '{"columns": [names], "data": [rows]}',
    "dataframe_records": '[{"name": value, ...}, ...]',
    "instances": '[{"name": value, ...}, ...]',
    "inputs": '{"name": [values], ...}',
}
Score = Callable[[pd.DataFrame, Any], "tuple[FloatArray, tuple[str, ...], float]"]


def quiet() -> None:
    """MLflow's warnings name what a caller sent, once a request."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)


def error_document(code: str, message: str) -> dict[str, Any]:
    """An error as MLflow's server writes it, with the fields that its version has for the code."""
    try:
        error = MlflowException(message, error_code=ErrorCode.Value(code))
    except ValueError:  # a code that only we have
        return {"error_code": code, "message": message}
    document: dict[str, Any] = json.loads(error.serialize_as_json())  # type: ignore[no-untyped-call]
    return document


class ScoringContract:
    """What MLflow checks and reads for a version on this base's ``document``."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._described = describe(document)
        self._schema = self._described.get_input_schema()  # type: ignore[no-untyped-call]
        self._csv_schema = _texts(self._schema)
        own = document["encoding"].get("contract", 1) == 2
        self._readers = READERS if own else {}
        self.names = tuple(column["name"] for column in document["encoding"]["columns"])
        one_tensor = self._schema.is_tensor_spec()
        self.required = () if one_tensor else tuple(self._schema.required_input_names())

    def answer(self, body: bytes, content_type: str | None, score: Score) -> tuple[str, int, str]:
        """Text, status and media type, as MLflow's server gives them.

        ``score`` takes the table with the model's columns, as the signature has them, and the
        caller's own table; it gives probabilities, labels and threshold. Raises `RequestRefused`.
        """
        if content_type is None:
            raise RequestRefused(
                f"a content type is needed: one of {', '.join(scoring_server.CONTENT_TYPES)}",
                status=415,
            )
        asked = _Asked(self._described, score, self.names)
        read = self._readers.get(_media_type(content_type))
        if read is not None and _is_utf8(content_type):
            return self._answer_table(read, body, content_type, asked)
        try:
            response: Any = scoring_server.invocations(  # type: ignore[no-untyped-call]
                body, content_type, asked, self._schema_for(content_type)
            )
        except RequestRefused:
            raise
        except Exception as exc:
            if asked.failure is not None:
                raise asked.failure from None
            raise self._refused(exc, body, content_type, asked) from None
        return response.response, response.status, response.mimetype

    def _answer_table(
        self,
        read: Callable[[bytes], pd.DataFrame],
        body: bytes,
        content_type: str,
        asked: _Asked,
    ) -> tuple[str, int, str]:
        """As MLflow's server does, but for how the table is read."""
        try:
            predictions = asked.predict(read(body))
            answer = StringIO()
            scoring_server.predictions_to_json(predictions, answer)  # type: ignore[no-untyped-call]
        except Exception as exc:
            if asked.failure is not None:
                raise asked.failure from None
            raise self._refused(exc, body, content_type, asked) from None
        return answer.getvalue(), 200, "application/json"

    def _schema_for(self, content_type: str) -> Schema | None:
        csv = _media_type(content_type) == scoring_server.CONTENT_TYPE_CSV
        return self._csv_schema if csv else self._schema

    def _refused(
        self, exc: Exception, body: bytes, content_type: str, asked: _Asked
    ) -> RequestRefused:
        if asked.given is not None:
            return RequestRefused(self._misfit(exc, asked.given), code=_code(exc))
        if _media_type(content_type) == scoring_server.CONTENT_TYPE_JSON:
            return RequestRefused(_wrong_json(body, self._named(exc)), code=_code(exc))
        kind = "CSV" if "csv" in content_type else "Parquet"
        return RequestRefused(
            f"the body is no {kind} table with a header as pandas writes it"
            f"{self._named(exc)}; columns: {_listed(self.names)}",
            code=_code(exc),
        )

    def _misfit(self, exc: Exception, given: Any) -> str:
        """Why a table that was read does not fit the signature."""
        names = set(given) if isinstance(given, pd.DataFrame | dict) else set()
        missing = [name for name in self.required if name not in names]
        if names and missing:
            return f"the model is missing inputs: {_listed(missing)}"
        if "params" in str(exc).lower() or "parameter" in str(exc).lower():
            return f"params: output is allowed, {' or '.join(OUTPUTS)}"
        return f"the input does not fit the model's signature{self._named(exc)}; columns: " + (
            _listed(self.names)
        )

    def _named(self, exc: Exception) -> str:
        """The columns of the model that MLflow's message is about."""
        text = str(exc)
        named = [name for name in self.names if f"column {name} " in text or f"'{name}'" in text]
        return f", see column {_listed(named[:1])}" if named else ""


class _Asked:
    """A model as MLflow's server calls it, for one request."""

    def __init__(self, described: Any, score: Score, names: tuple[str, ...]) -> None:
        self.metadata = described
        self.given: Any = None
        self.failure: Exception | None = None
        self._score = score
        self._names = names
        self._model = PyFuncModel(described, _Implementation(self))

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        self.given = data
        return self._model.predict(data, params=params)

    def answer(self, frame: Any, params: dict[str, Any] | None) -> Any:
        try:
            try:
                output = asked_output(params)
            except ValueError as exc:
                raise RequestRefused(f"params: output is allowed, {' or '.join(OUTPUTS)}") from exc
            if not isinstance(frame, pd.DataFrame):  # one tensor a row
                flat = frame.reshape(len(frame), -1)
                frame = pd.DataFrame(flat, columns=list(self._names), dtype=float)
            probabilities, labels, threshold = self._score(frame, self.given)
            return as_answer(probabilities, output, labels, threshold)
        except Exception as exc:  # MLflow would hide it behind a message of its own
            self.failure = exc
            raise


class _Implementation:
    """What `PyFuncModel` hands a table to that fits the signature."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return self._asked.answer(model_input, params)


def as_json(
    probabilities: FloatArray, output: str, labels: tuple[str, ...], threshold: float
) -> str:
    """The body of an answer, as MLflow's server writes it."""
    answer = as_answer(probabilities, output, labels, threshold)
    if not isinstance(answer, pd.DataFrame):  # the same text by the encoder that is written in C
        plain = answer if isinstance(answer, list) else answer.tolist()
        return json.dumps({"predictions": plain})
    body = StringIO()
    scoring_server.predictions_to_json(answer, body)  # type: ignore[no-untyped-call]
    return body.getvalue()


def _media_type(content_type: str) -> str:
    return content_type.split(";", maxsplit=1)[0].strip()


def _is_utf8(content_type: str) -> bool:
    """Whether its parameters are such as MLflow takes, which refuses the others itself."""
    parameters = [part.strip().lower() for part in content_type.split(";")[1:]]
    return all(part == "charset=utf-8" for part in parameters)


READERS: dict[str, Callable[[bytes], pd.DataFrame]] = {
    scoring_server.CONTENT_TYPE_CSV: csv_frame,
    scoring_server.CONTENT_TYPE_PARQUET: parquet_frame,
}


def _texts(schema: Schema) -> Schema | None:
    """The columns of texts alone: of the others, which take any number, MLflow does not know how
    to read them from CSV.
    """
    texts = [column for column in schema.inputs if column.type == DataType.string]
    return Schema(texts) if texts else None


def _code(exc: Exception) -> str:
    code = exc.error_code if isinstance(exc, MlflowException) else "BAD_REQUEST"
    return "BAD_REQUEST" if code == "INTERNAL_ERROR" else str(code)


def _wrong_json(body: bytes, named: str) -> str:
    try:
        document = json.loads(body)
    except json.JSONDecodeError as exc:
        return f"not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}"
    except UnicodeDecodeError as exc:
        return f"not JSON: no UTF-8 text at byte {exc.start}"
    except RecursionError:
        return "not JSON that can be read: nested too deeply"
    except ValueError:
        return "not JSON that can be read: a number of too many digits"
    formats = [name for name in SHAPES if isinstance(document, dict) and name in document]
    if len(formats) != 1:
        return f"a JSON object with exactly one of {FORMATS} is expected"
    return f"{formats[0]} is no table such as {SHAPES[formats[0]]}{named}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(f"'{name}'" for name in names[:20]) + more


__all__ = ["MLFLOW_VERSION", "Score", "ScoringContract", "as_json", "quiet"]
