"""A version as people name one: ``3``, ``v3``, or an alias such as ``champion``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from selfheal_cli.registry.base import Registry

NUMBER, ALIAS = re.compile(r"[vV]?0*([1-9][0-9]{0,17})"), re.compile(r"[A-Za-z][\w.-]{0,127}")


class VersionName(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 has no parameter
    """The number without its v, or the alias as it is."""

    name = "VERSION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what can be neither."""
        number = NUMBER.fullmatch(value)
        if number is None and (not ALIAS.fullmatch(value) or re.fullmatch("[vV][0-9]+", value)):
            self.fail(f"{value!r}: a version is 3, v3 or an alias such as champion", param, ctx)
        return str(number[1] if number else value)


def version_number(registry: Registry, model: str, named: str) -> int:
    """The number of the version that `VersionName` let pass; raises `VersionNotFound`."""
    from selfheal_cli.errors import VersionNotFound

    number = int(named) if named.isdecimal() else registry.alias(model, named)
    if number is None:
        raise VersionNotFound(
            f"model '{model}' has no alias '{named}'; a version is a number from 'selfheal "
            "snapshots', or an alias such as champion"
        )
    return number
