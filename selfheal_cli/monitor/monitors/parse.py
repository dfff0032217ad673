"""Monitors as people write them: ``NAME[:KEY=VALUE,...]``."""

from __future__ import annotations

from selfheal_cli.config import MonitorSettings, checked
from selfheal_cli.errors import ConfigurationError


def parse_monitor(text: str, where: str = "--monitor") -> MonitorSettings:
    """One monitor; several features in ``on`` are joined by ``+``.

    Raises `ConfigurationError` from ``where``.

    >>> parse_monitor("psi:on=V14+V9,threshold=0.3").on
    ('V14', 'V9')
    """
    name, _, options = text.partition(":")
    values: dict[str, object] = {"name": name}
    for option in options.split(",") if options else ():
        key, equals, value = option.partition("=")
        if not equals or not value:
            raise ConfigurationError(
                f"{where} {text!r}: {option!r} is not KEY=VALUE; write it like: "
                "psi:on=V14+V9,threshold=0.3,triggers=heal"
            )
        if key in values:
            raise ConfigurationError(f"{where} {text!r}: '{key}' is given twice")
        values[key] = tuple(value.split("+")) if key == "on" else value
    return checked(MonitorSettings, values, where=f"{where} {text!r}")
