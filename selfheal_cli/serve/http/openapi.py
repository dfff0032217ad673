"""What the OpenAPI document says beside what FastAPI finds out."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """Why a request was refused, in the form of MLflow's errors."""

    error_code: str
    message: str
    sqlstate: str | None = None
    error_class: str | None = None


class V2Problem(BaseModel):
    """Why a request was refused, in the form of the V2 protocol."""

    error: str


WHY = {
    400: "Malformed; the message says what was wrong",
    401: "A token is missing, or not known",
    403: "The token lacks the right, or a page of another site asks",
    404: "Not what serves here",
    408: "The request did not come in time",
    409: "Refused, and why",
    413: "Too many bytes or rows",
    415: "No content type, or no encoding, that can be read",
    429: "Too many requests",
    500: "The server failed",
    503: "Cannot be kept or done now",
    504: "Not answered in time",
}
COMMON = (400, 401, 403, 408, 413, 415, 429, 500, 504)


def _problems(model: type[BaseModel], *codes: int) -> Responses:
    return {code: {"description": WHY[code], "model": model} for code in sorted(codes)}


READ = (400, 401, 403, 408, 429, 500, 504)
_ANY: dict[str, Any] = {"description": "Successful Response", "content": {"application/json": {}}}
TEXT: Responses = {200: _ANY, **_problems(Problem, 400)}
PREDICTIONS = {
    "description": "A prediction a row, in order: a probability, a probability for each class by "
    "its name, or a label",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["predictions"],
                "properties": {"predictions": {"type": "array"}},
            }
        }
    },
}
UNREADABLE = {
    "description": WHY[415],
    "content": {
        "text/plain": {"schema": {"type": "string"}},
        "application/json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    },
}
PROBLEMS: dict[str, Responses] = {
    "read": _problems(Problem, *READ),
    "invocations": {200: PREDICTIONS, **_problems(Problem, *COMMON), 415: UNREADABLE},
    "feedback": _problems(Problem, *COMMON, 503),
    "look": _problems(Problem, *READ, 503),
    "order": _problems(Problem, *COMMON, 403, 409, 503),
}
V2_PROBLEMS: dict[str, Responses] = {
    "read": _problems(V2Problem, *READ, 404),
    "infer": _problems(V2Problem, *COMMON, 404, 415),
    "predict": {200: PREDICTIONS, **_problems(V2Problem, *COMMON, 404, 415, 503)},
}
_PARAMS = {
    "type": "object",
    "properties": {"output": {"type": "string", "enum": ["probability", "label"]}},
}
_TABLES: dict[str, Any] = {
    "dataframe_split": {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
            "index": {"type": "array"},
        },
    },
    "dataframe_records": {"type": "array", "items": {"type": "object"}},
    "instances": {"type": "array"},
    "inputs": {"type": ["object", "array"]},
}
INVOCATIONS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {
                            "type": "object",
                            "required": [name],
                            "properties": {name: schema, "params": _PARAMS},
                        }
                        for name, schema in _TABLES.items()
                    ]
                }
            },
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


SCHEMAS = "#/components/schemas/{model}"


V1: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["instances"],
                    "properties": {"instances": {"type": "array"}, "params": _PARAMS},
                }
            }
        },
    }
}


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """What a route says of a body that it reads by itself; `documented` is told the type too."""
    schema = {"$ref": SCHEMAS.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def documented(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """FastAPI's document, without the answer to a bad request that it would give by itself."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            specification = get_openapi(
                title=app.title, version=app.version, description=app.description,
                routes=app.routes,
            )  # fmt: skip
            for operations in specification["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                specification["components"]["schemas"].pop(unused, None)
            schemas = specification["components"]["schemas"]
            for kind in bodies:
                schema = kind.model_json_schema(ref_template=SCHEMAS)
                schemas.update(schema.pop("$defs", {}) | {kind.__name__: schema})
            app.openapi_schema = specification
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
