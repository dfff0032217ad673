"""Options that take a part by name: what other packages bring is a choice like the built-in ones.

Packages are looked at for a name that is not built in, and for the list in ``--help``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.installed import choices, names, require
from selfheal_cli.kinds import PartKind


class PartChoice(click.ParamType):  # type: ignore[type-arg]  # generic as of click 8.4
    """A name of a recipe."""

    name = "name"

    def __init__(self, kind: PartKind) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself; click's usage error lists all where there is none of that name."""
        try:
            require(self.kind, value)
        except ConfigurationError as exc:
            self.fail(str(exc), param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All names that there are."""
        return f"[{'|'.join(choices(self.kind))}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        """The names that begin like this."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(one) for one in choices(self.kind) if one.startswith(incomplete)]


class PartOption(click.Option):
    """An option whose value begins with a part's name: its help says what is installed."""

    def __init__(self, declared: Sequence[str], *, part: PartKind, **given: Any) -> None:
        super().__init__(declared, **given)
        self.part = part

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click's, with the names that other packages bring."""
        record = super().get_help_record(ctx)
        installed = ", ".join(names(self.part)) if record else ""
        return (
            (record[0], f"{record[1]} Installed: {installed}.") if record and installed else record
        )


def require_all(kind: PartKind, chosen: Iterable[str], option: str) -> None:
    """Raise click's usage error for a name that there is not."""
    for name in chosen:
        try:
            require(kind, name)
        except ConfigurationError as exc:
            raise click.BadParameter(str(exc), param_hint=option) from exc
