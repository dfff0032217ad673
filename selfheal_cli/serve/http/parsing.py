"""A body in JSON as one of our types, whatever content type it came with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from selfheal_cli.errors import RequestRefused

Told = TypeVar("Told", bound=BaseModel)


def parsed(kind: type[Told], body: bytes) -> Told:
    """Raises `RequestRefused`, which says what is wrong and where, without what was sent."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise RequestRefused(complaint(first)) from None


def complaint(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words."""
    where = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        where[-1:] = ["an unknown key"]
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(where)}: {message}" if where else message
