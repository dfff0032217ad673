"""What all commands have in common: options in sections, the nearest name for a slip of one, and
old spellings, which work for one version more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from selfheal_cli.cli.examples import EXAMPLES, MEANT
from selfheal_cli.cli.say import say
from selfheal_cli.visible import visible

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
OWN, COMMON = "Options", "Common options"  # of one command, and of nearly all
# in click's context; OLD is old spelling to new one, of those that were used
CONFIG, NO_CONFIG, SET, OLD, WIDE = (
    f"selfheal.{name}" for name in ("config", "no_config", "set", "old", "wide")
)
UNNAMED = "selfheal.unnamed"  # of a model that nobody named: its parameter, and what finds one
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")
EVERYWHERE = {"--model-name": "--model"}


class Command(click.Command):
    """A command; ``old`` has spellings that were renamed, each with the new one."""

    def __init__(self, *arguments: Any, old: Mapping[str, str] | None = None, **given: Any) -> None:
        super().__init__(*arguments, **given)
        known = {name for param in self.params for name in param.opts}
        self._old = {
            name: new for name, new in EVERYWHERE.items() if {name, new} & known == {new}
        } | dict(old or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read an old spelling as the new one, and keep in mind that it was used."""
        try:
            return super().parse_args(ctx, _renamed(args, self._old, ctx))
        except click.NoSuchOption as exc:
            near = self.nearest(exc.option_name)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise click.UsageError(f"No such option '{exc.option_name}'.{hint}", ctx) from exc

    def invoke(self, ctx: click.Context) -> Any:
        """Take the model that the store holds, where nobody named one."""
        name, find = ctx.meta.pop(UNNAMED, (None, None))
        if name is not None:
            ctx.params[name] = find(ctx.params.get("tracking_uri"))
        return super().invoke(ctx)

    def nearest(self, option: str) -> list[str]:
        """Options with a name like one that there is not."""
        from difflib import get_close_matches

        shown = [name for param in self.params for name in _shown_names(param)]
        return get_close_matches(option, shown, n=1)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each section with its options, in the order of the first of them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                title = COMMON if "--help" in param.opts else getattr(param, "section", OWN)
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(OWN if len(sections) == 1 else title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One example."""
        example = EXAMPLES.get(ctx.command_path.partition(" ")[2])
        if example:
            with formatter.section("Example"):
                formatter.write_text(example)


class Group(click.Group):
    """Commands that belong together; a slip of a name is told the nearest."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what is no text: neither a store nor a log could keep it."""
        for one in args:
            try:
                one.encode()
            except UnicodeEncodeError as exc:
                raise click.UsageError(f"'{visible(one)}' is not UTF-8 text", ctx) from exc
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Offer the nearest name for one that does not exist."""
        from difflib import get_close_matches

        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            meant = MEANT.get(args[0], "")
            near = [meant] if meant in known else get_close_matches(args[0], known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


def group(*parts: Decorator) -> Decorator:
    """Several options as one decorator, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for part in reversed(parts):
            command = part(command)
        return command

    return decorate


def section(title: str, *parts: Decorator) -> Decorator:
    """The same, under a heading of their own in ``--help``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        before = list(getattr(command, "__click_params__", ()))
        command = group(*parts)(command)
        params: list[Any] = getattr(command, "__click_params__", [])
        for param in params:
            if param not in before and not hasattr(param, "section"):
                param.section = title
        return command

    return decorate


def hidden(*parts: Decorator) -> Decorator:
    """The same for options that are old spellings: they work, and are not in ``--help``."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        before = list(getattr(command, "__click_params__", ()))
        command = group(*parts)(command)
        for param in getattr(command, "__click_params__", ()):
            if param not in before:
                param.hidden = True
        return command

    return decorate


def note_old(ctx: click.Context, old: str, new: str) -> None:
    """Keep in mind that an old spelling was used."""
    ctx.meta.setdefault(OLD, {})[old] = new


def say_old(ctx: click.Context) -> None:
    """One line that names the new spelling of each old one; nothing where there was none."""
    used = ctx.meta.pop(OLD, {})
    if used:
        named = ", ".join(f"{old} (now {new})" for old, new in used.items())
        say(f"selfheal: old, and gone with the next version: {named}", err=True)


def _renamed(args: Sequence[str], old: Mapping[str, str], ctx: click.Context) -> list[str]:
    options = list(args[: args.index("--")] if "--" in args else args)
    for place, one in enumerate(options):
        name, given, value = one.partition("=")
        if name in old:
            note_old(ctx, name, old[name])
            options[place] = f"{old[name]}{given}{value}"
    return [*options, *args[len(options) :]]


def _shown_names(param: click.Parameter) -> list[str]:
    hidden = isinstance(param, click.Option) and param.hidden
    return [] if hidden else [*param.opts, *param.secondary_opts]
