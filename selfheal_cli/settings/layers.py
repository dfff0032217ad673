"""Values from outside, each with where it came from, and how layers lie over one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from selfheal_cli.errors import OptionError
from selfheal_cli.masking import masked_value

Key = tuple[str | int, ...]

# In these groups one key says what the others mean. A layer that changes it takes the group over.
HEADS = {"source": "kind", "labels": "regime", "objective": "kind", "policy": "base"}
TOGETHER = ("rules", "rules_file")  # one list in two keys: who gives one of them gives the list
LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; ``text`` is a scalar as it was written, `yes` rather than True."""

    kind: Literal["option", "env", "file", "policy", "default"]
    name: str
    line: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        return self.name if self.line is None else f"{self.name}:{self.line}"


DEFAULT = Origin("default", "default")


@dataclass(frozen=True, slots=True)
class Layer:
    """Nested values, and the origin of each key that was written, groups included."""

    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[Key, Origin] = field(default_factory=dict)

    def origin(self, key: Key) -> Origin:
        """Of the key, else of the nearest group around it, else `DEFAULT`."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.origins:
                return self.origins[key[:end]]
        return DEFAULT

    def get(self, *key: str) -> Any:
        """The value at a key; None where there is none."""
        setting: Any = self.values
        for part in key:
            if not isinstance(setting, Mapping) or part not in setting:
                return None
            setting = setting[part]
        return setting


def merge(layers: Sequence[Layer]) -> Layer:
    """The layers over one another, the last on top: groups key by key, lists as a whole."""
    values: dict[str, Any] = {}
    origins: dict[Key, Origin] = {}
    for layer in layers:
        below = Layer(values, origins)
        for group, head in HEADS.items():
            new, old = layer.get(group, head), below.get(group, head)
            if new is not None and old is not None and new != old:
                _drop(values, origins, group)
        if any(name in layer.values for name in TOGETHER):
            for name in TOGETHER:
                _drop(values, origins, name)
        _lay(layer, values, origins, ())
    return Layer(values, origins)


def beside(layers: Sequence[Layer]) -> Layer:
    """Layers of which none stands over another; raises `OptionError` where two set one key."""
    values: dict[str, Any] = {}
    origins: dict[Key, Origin] = {}
    for layer in layers:
        for key, _ in leaves(layer.values):
            if key in origins:
                raise OptionError(
                    f"{origins[key]} and {layer.origin(key)} exclude each other: both set "
                    f"{dotted(key)}"
                )
        _lay(layer, values, origins, ())
    return Layer(values, origins)


def without(layer: Layer, key: Key) -> Layer:
    """The layer without what it says of a key or of anything in it."""
    values = deepcopy(dict(layer.values))
    holder: Any = values
    for part in key[:-1]:
        holder = holder[part]
    del holder[key[-1]]
    return Layer(values, {k: o for k, o in layer.origins.items() if k[: len(key)] != key})


def single(key: Key, value: Any, origin: Origin) -> Layer:
    """One value as a layer."""
    nested: Any = value
    for part in reversed(key):
        nested = {part: nested}
    return Layer(nested, {key: origin})


def leaves(values: Mapping[str, Any], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Each key that is no group with its value; a list is one value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def dotted(key: Key) -> str:
    """As people write it.

    >>> dotted(("monitors", 0, "name"))
    'monitors[0].name'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def shown(value: object) -> str:
    """A value as it may be shown: one line, not endless, without a password.

    >>> shown("postgresql://ann:secret@db/rows")
    'postgresql://ann:***@db/rows'
    """
    text = masked_value(str(value))
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _lay(layer: Layer, values: dict[str, Any], origins: dict[Key, Origin], at: Key) -> None:
    for name, value in _mapping(layer.values, at).items():
        key = (*at, name)
        if isinstance(value, Mapping):
            if not isinstance(values.get(name), dict):
                values[name] = {}
                _forget(origins, key)
            if key in layer.origins:
                origins.setdefault(key, layer.origins[key])
            _lay(layer, values[name], origins, key)
        else:
            values[name] = value
            _forget(origins, key)
            origins |= {k: o for k, o in layer.origins.items() if k[: len(key)] == key}


def _mapping(values: Mapping[str, Any], at: Key) -> Mapping[str, Any]:
    for part in at:
        values = values[part]  # type: ignore[index]
    return values


def _drop(values: dict[str, Any], origins: dict[Key, Origin], name: str) -> None:
    values.pop(name, None)
    _forget(origins, (name,))


def _forget(origins: dict[Key, Origin], key: Key) -> None:
    for one in [one for one in origins if one[: len(key)] == key]:
        del origins[one]


PREFIX = "models:/"
PACKED = (".gz", ".zip")
LONGEST_NAME = 128  # of a registered model
UNNAMED = {"sql": "query", "stdin": "stream"}  # kinds of source without a name of their own


def model_name_of(given: Layer) -> str | None:
    """Its ``model_name``, else the wrapped model's, else that of where rows come from; else None.

    >>> model_name_of(Layer({"source": {"path": "rows/bank full.csv"}}))
    'bank-full'
    >>> model_name_of(Layer({"model": "models:/credit/7"}))
    'credit'
    """
    named, model, path = given.get("model_name"), given.get("model"), given.get("source", "path")
    path = (
        path
        or given.get("source", "topic")
        or given.get("source", "provider")
        or UNNAMED.get(given.get("source", "kind"))
    )
    if named is not None:
        return str(named)
    if isinstance(model, str):
        name = model.removeprefix(PREFIX).partition("@")[0]
        return name.partition("/")[0] if model.startswith(PREFIX) else name
    if isinstance(path, str | PurePath):
        return name_of_data(PurePath(path)) or None
    return None


def name_of_data(path: PurePath) -> str:
    """The name of a model after its data's file; empty where nothing of that can be in a name.

    >>> name_of_data(PurePath("rows/payments 2026.csv.gz"))
    'payments-2026'
    """
    stem = PurePath(path.stem).stem if path.suffix.lower() in PACKED else path.stem
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    return name.lstrip("._-")[:LONGEST_NAME]
