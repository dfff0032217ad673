"""``SELFHEAL_*`` variables that name keys of the file: ``SELFHEAL_HEAL__WINDOW`` is heal.window."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from selfheal_cli.errors import OptionError
from selfheal_cli.settings.document import parse_value
from selfheal_cli.settings.layer import Key, Layer, merge
from selfheal_cli.settings.shape import RunFile

PREFIX = "SELFHEAL_"
BETWEEN = "__"
OTHERS = ("SELFHEAL_ACTOR", "SELFHEAL_ALLOW_MODULE")  # read elsewhere
ALIKE = 0.8


def read_environment(environment: Mapping[str, str], options: Collection[str]) -> Layer:
    """The variables that name keys; ``options`` are those of options, which click reads.

    Raises `OptionError` for one that looks like a slip of a known one. What else begins so (as
    where a cluster tells of a service called selfheal) is left alone.
    """
    top = {f"{PREFIX}{name.upper()}": name for name in RunFile.model_fields}
    layers = []
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in options or name in OTHERS or not text:
            continue
        key = key_of(name)
        if len(key) > 1 and key[0] in RunFile.model_fields:
            layers.append(parse_value(text, key, name))
        elif name in top:
            layers.append(parse_value(text, (top[name],), name))
        else:
            known = [one.removeprefix(PREFIX) for one in (*options, *top)]
            near = get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=ALIKE)
            if near:
                raise OptionError(f"{name}: no such variable; did you mean {PREFIX}{near[0]}?")
    return merge(layers)


def key_of(name: str) -> Key:
    """The key that a variable names.

    >>> key_of("SELFHEAL_POLICY__RETENTION__KEEP_BEST")
    ('policy', 'retention', 'keep_best')
    """
    return tuple(name.removeprefix(PREFIX).lower().split(BETWEEN))
