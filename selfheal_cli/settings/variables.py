"""How settings are named outside: the file, and a variable for each of its keys.

Apart from their readers, which take half a second to load.
"""

from __future__ import annotations

from pathlib import Path

from selfheal_cli.settings.layers import Key

NAME = Path("selfheal.yaml")
PREFIX = "SELFHEAL_"
BETWEEN = "__"


def key_of(name: str) -> Key:
    """The key that a variable names.

    >>> key_of("SELFHEAL_POLICY__RETENTION__KEEP_BEST")
    ('policy', 'retention', 'keep_best')
    """
    return tuple(name.removeprefix(PREFIX).lower().split(BETWEEN))


def variable_of(key: Key) -> str:
    """The variable that names a key.

    >>> variable_of(("heal", "learning_rate"))
    'SELFHEAL_HEAL__LEARNING_RATE'
    """
    return PREFIX + BETWEEN.join(map(str, key)).upper()
