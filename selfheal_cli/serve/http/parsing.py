"""A body in JSON as one of our types, whatever content type it came with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from selfheal_cli.errors import RequestRefused

KINDS = {
    "bool": "true or false", "int": "a whole number", "constrained-int": "a whole number",
    "float": "a number", "str": "a text", "constrained-str": "a text",
}  # fmt: skip
LITERAL = re.compile(r"literal\[(.*)\]$")
OTHER_KIND = ("bool_type", "int_type", "int_from_float", "int_parsing", "float_type",
              "finite_number", "string_type", "string_unicode", "literal_error")  # fmt: skip
Told = TypeVar("Told", bound=BaseModel)


def parsed(kind: type[Told], body: bytes) -> Told:
    """Raises `RequestRefused`, which says what is wrong and where, without what was sent."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False)
        first = errors[0]
        known = _keys(kind, first["loc"]) if first["type"] == "extra_forbidden" else ()
        allowed = f"; allowed: {', '.join(known)}" if known else ""
        raise RequestRefused(complaint(errors) + allowed) from None


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


def _first(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first error. A value that may be of several kinds has one for each: then what is wrong
    with it as the kind that it is, or else which kinds are meant.
    """
    first = errors[0]
    if not first["loc"] or not _kind(first["loc"][-1]):
        return first
    place = first["loc"][:-1]
    others = [one for one in errors if one["loc"][:-1] == place and _kind(one["loc"][-1])]
    for one in others:
        if one["type"] not in OTHER_KIND:
            return {**one, "loc": place}
    kinds = ", ".join(_kind(one["loc"][-1]) for one in others)
    return {"type": "kinds", "loc": place, "msg": f"expected is one of: {kinds}"}


def _kind(step: int | str) -> str:
    """What pydantic calls a kind that a value may have, in our words; empty for a key."""
    literal = LITERAL.match(str(step))
    return literal[1].replace(",", ", ") if literal else KINDS.get(str(step), "")


def complaint(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors in our words."""
    error = _first(errors)
    where = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "json_invalid":
        return f"not JSON: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        where[-1:] = ["an unknown key"]
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(where)}: {message}" if where else message
