"""Write the reference in docs/configuration.md from the schema; a test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from selfheal_cli.cli.config import NO_SETTING
from selfheal_cli.cli.configured import key_of
from selfheal_cli.cli.run import command as run
from selfheal_cli.settings.layers import dotted
from selfheal_cli.settings.reference import flow
from selfheal_cli.settings.schema import KINDS, RunFile, json_schema, models_in, settings_of

PAGE = Path(__file__).with_name("configuration.md")
BEGIN = "<!-- made by `python docs/make_configuration.py` from the schema: -->\n"
GROUPS = ("network", "heal", "labels", "objective", "policy", "monitors", "segments")


def reference() -> str:
    """Every key with type, default, option and meaning, as Markdown."""
    schema = json_schema()
    options = dict(_options())
    top = [name for name in RunFile.model_fields if name not in ("source", *GROUPS)]
    parts = ["### At the top\n", _table(RunFile, top, (), schema["properties"], options)]
    for kind, model in KINDS.items():
        parts += [f"### `source` of kind `{kind}`\n", _of(model, ("source",), schema, options)]
    for group in GROUPS:
        option = f" ({options[group]})" if group in options else ""
        parts += [f"### `{group}`{option}\n", _of(settings_of(group), (group,), schema, options)]
    return "\n".join(parts)


def page(text: str) -> str:
    """The page with its reference made again."""
    return text[: text.index(BEGIN) + len(BEGIN)] + reference()


def _options() -> Iterator[tuple[str, str]]:
    """Key to option of ``selfheal run``."""
    for param in run.params:
        key = key_of(str(param.name))
        hidden = isinstance(param, click.Option) and param.hidden
        if param.name not in NO_SETTING and key is not None and not hidden:
            yield dotted(key), f"`{max(param.opts, key=len)}`"
    yield "source.path", "DATA"
    yield "plots", "`--no-plots`"


def _of(model: type[BaseModel], at: tuple[str, ...], schema: Any, options: dict[str, str]) -> str:
    properties = schema["$defs"][model.__name__]["properties"]
    said = " ".join((model.__doc__ or "").split("\n\n", maxsplit=1)[0].split()).replace("``", "`")
    return f"{said}\n\n" + _table(model, list(model.model_fields), at, properties, options)


def _table(
    model: type[BaseModel],
    names: list[str],
    at: tuple[str, ...],
    properties: dict[str, Any],
    options: dict[str, str],
) -> str:
    lines = ["| key | value | default | option | meaning |", "|---|---|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        key = dotted((*at, name))
        default = "needed" if field.is_required() else f"`{flow(field.default)}`"
        inner = [one for one in models_in(field.annotation) if one is not model]
        kind = ", ".join(inner[0].model_fields) if inner else _kind(properties[name])
        meaning = (field.description or "").replace("None:", "null:")
        cells = [f"`{key}`", kind, default, options.get(key, ""), meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kind(schema: dict[str, Any]) -> str:
    """What a value may be, in words.

    >>> _kind({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
    'number, from 0, below 1'
    """
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        return f"[{', '.join(_kind(one) for one in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if "items" in schema else "list"
    word = {"string": "text", "boolean": "true, false", "integer": "whole number"}
    parts = [word.get(schema.get("type", ""), schema.get("type", ""))]
    if schema.get("format") == "path":
        parts = ["path"]
    for limit, text in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"),
                        ("exclusiveMaximum", "below")):  # fmt: skip
        if limit in schema:
            parts.append(f"{text} {schema[limit]:g}" if schema[limit] < 1e6 else
                         f"{text} {schema[limit]:,}")  # fmt: skip
    return ", ".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
