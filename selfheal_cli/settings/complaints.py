"""What is wrong with a value, in the words of who wrote it: where, which key, what is allowed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from selfheal_cli.errors import ConfigurationError, OptionError
from selfheal_cli.settings.layer import DEFAULT, Key, Layer, Origin, dotted, shown
from selfheal_cli.settings.shape import KINDS, RunFile, fields_of

GROUPS = ("model_type", "model_attributes_type", "dict_type")
LISTS = ("tuple_type", "list_type")
ALIKE = 0.5


def blame(origin: Origin, key: Key, value: object = DEFAULT) -> str:
    """The beginning of a message: who said it, which key, which value."""
    text = shown(value if origin.text is None else origin.text)
    said = "" if value is DEFAULT else f" = {text!r}"
    if origin.kind == "option":
        return f"options: {origin} ({dotted(key)}){said}"
    if origin.kind == "env":
        return f"{origin} ({dotted(key)}){said}"
    return f"{origin}: {shown(dotted(key))}{said}"


def complain(error: ValidationError, given: Layer, kind: str) -> ConfigurationError:
    """The complaint that stands first in the file, and how many more there are."""
    found = [(_key(one["loc"], kind), one) for one in error.errors()]
    found.sort(key=lambda pair: given.origin(pair[0]).line or 0)
    key, first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    if first["type"] == "missing":
        return _missing(key, given, kind, more)
    origin = given.origin(key)
    if first["type"] == "extra_forbidden":
        hint = _known(key, fields_of(RunFile, kind, key[:-1]))
        return ConfigurationError(f"{blame(origin, key)}: unknown key{hint}{more}")
    return ConfigurationError(
        f"{blame(origin, key, first['input'])}: {_allowed(first, key, kind)}{more}"
    )


def as_text_where_text_is_wanted(error: ValidationError, given: Layer, kind: str) -> bool:
    """Put the written text of a scalar where a text is wanted: ``positive: yes`` is no boolean.

    Changes the values of ``given``; returns whether there was any such scalar.
    """
    changed = False
    for one in error.errors():
        key = _key(one["loc"], kind)
        text = given.origin(key).text
        if one["type"] != "string_type" or key not in given.origins or text is None:
            continue
        if one["input"] is None:  # null says that there is none
            continue
        holder: Any = given.values
        for part in key[:-1]:
            holder = holder[part]
        holder[key[-1]] = text
        changed = True
    return changed


# what a source of its kind cannot do without, as options say it
OPTIONS: dict[Key, str] = {
    ("source", "target"): "--target COLUMN",
    ("source", "query"): "--query SELECT",
    ("source", "topic"): "--topic",
}


def unknown_kind(origin: Origin, value: object) -> ConfigurationError:
    """A source of a kind that there is not."""
    hint = _known((str(value),), tuple(KINDS))
    return ConfigurationError(f"{blame(origin, ('source', 'kind'), value)}: unknown kind{hint}")


def _key(location: tuple[int | str, ...], kind: str) -> Key:
    """pydantic's location without the tag of the union."""
    if len(location) > 1 and location[0] == "source" and location[1] == kind:
        return ("source", *location[2:])
    return location


def _missing(key: Key, given: Layer, kind: str, more: str) -> ConfigurationError:
    head = given.origin(("source", "kind"))
    if key in OPTIONS and head.kind in ("option", "env"):
        path = given.get("source", "path")
        data = head if path is None else shown(path)
        return OptionError(f"{OPTIONS[key]} is needed with {data}{more}")
    needed = f"; a source of kind '{kind}' needs it" if key[0] == "source" else ""
    origin = given.origin(key)
    return ConfigurationError(f"{origin}: key '{dotted(key)}' is missing{needed}{more}")


def _known(key: Key, known: tuple[str, ...]) -> str:
    near = get_close_matches(str(key[-1]), known, n=1, cutoff=ALIKE)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{hint}; known: {', '.join(known)}" if known else hint


def _allowed(error: Any, key: Key, kind: str) -> str:
    if error["type"] in GROUPS:
        known = ", ".join(fields_of(RunFile, kind, key))
        return f"expected keys with values{f'; known: {known}' if known else ''}"
    if error["type"] in LISTS:
        return "expected a list, such as [a, b]"
    if error["type"] == "string_type":
        return "expected text"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"
