"""Parts that a program hands over: their names in a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from selfheal_cli.config import MonitorSettings
from selfheal_cli.drift.kinds import parse_monitor
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.installed import importable, name_of
from selfheal_cli.rules.conditions import quoted_name


def named_adapter(adapter: Any) -> str:
    """An adapter's name; raises `ConfigurationError` for one that no other process could load."""
    name = name_of("adapter", adapter)
    if not importable("adapter", name.partition(":")[0]):
        raise ConfigurationError(
            f"adapter '{name}' cannot be imported, so that nobody could load its versions: give a "
            "class at the top of a module, or one that is installed"
        )
    return name


def named_rules(rules: Sequence[str | Callable[..., Any]]) -> tuple[str, ...]:
    """Rules as text; of a function that says where one holds, for its ``label``, which is 1 where
    it has none.
    """
    return tuple(
        one
        if isinstance(one, str)
        else f"{quoted_name(name_of('rule', one))}() => {getattr(one, 'label', 1)}"
        for one in rules
    )


def named_monitors(monitors: Sequence[Any]) -> tuple[MonitorSettings, ...]:
    """Monitors as settings: of texts as on the command line, and of monitors themselves."""
    return tuple(
        one
        if isinstance(one, MonitorSettings)
        else parse_monitor(one, "monitors")
        if isinstance(one, str)
        else MonitorSettings(name=name_of("monitor", one))
        for one in monitors
    )
