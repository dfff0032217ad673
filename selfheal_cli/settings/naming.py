"""Which registered model a configuration is about."""

from __future__ import annotations

from pathlib import PurePath

from selfheal_cli.settings.layer import Layer

PREFIX = "models:/"
UNNAMED = {"sql": "query", "stdin": "stream"}  # kinds of source without a name of their own


def model_name_of(given: Layer) -> str | None:
    """Its ``model_name``, else the wrapped model's, else that of where rows come from; else None.

    >>> model_name_of(Layer({"source": {"path": "rows/bank full.csv"}}))
    'bank-full'
    >>> model_name_of(Layer({"model": "models:/credit/7"}))
    'credit'
    """
    named, model, path = given.get("model_name"), given.get("model"), given.get("source", "path")
    path = path or given.get("source", "topic") or UNNAMED.get(given.get("source", "kind"))
    if named is not None:
        return str(named)
    if isinstance(model, str):
        name = model.removeprefix(PREFIX).partition("@")[0]
        return name.partition("/")[0] if model.startswith(PREFIX) else name
    if isinstance(path, str | PurePath):
        stem = PurePath(path).stem
        name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
        return name.lstrip("._-") or None
    return None
