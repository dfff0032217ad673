"""A body in JSON as one of our types, whatever content type it came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from selfheal_cli.errors import RequestRefused

Told = TypeVar("Told", bound=BaseModel)


def parsed(kind: type[Told], body: bytes) -> Told:
    """Raises `RequestRefused`, which says what is wrong and where, without what was sent."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        known = _keys(kind, first["loc"]) if first["type"] == "extra_forbidden" else ()
        allowed = f"; allowed: {', '.join(known)}" if known else ""
        raise RequestRefused(complaint(first) + allowed) from None


def _keys(kind: type[BaseModel], where: Sequence[int | str]) -> tuple[str, ...]:
    """The keys that a type has at a place; none where that is not of one of our types."""
    for step in where[:-1]:
        if isinstance(step, int):
            continue
        field = kind.model_fields.get(step)
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        types = [one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)]
        if not types:
            return ()
        kind = types[0]
    return tuple(kind.model_fields)


def complaint(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words."""
    where = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        where[-1:] = ["an unknown key"]
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(where)}: {message}" if where else message
