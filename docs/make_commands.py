"""Write docs/commands.md from the live ``--help``; ``tests/test_docs.py`` compares the two."""

from __future__ import annotations

from pathlib import Path

import click

from selfheal_cli.cli.main import main

WIDTH = 80


def reference() -> str:
    """The whole command reference as Markdown."""
    parts = ["# Commands\nMade from `--help` by `python docs/make_commands.py`.\n"]
    # with the group's own settings, or its help option would depend on who asked for it first
    sizes = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(main, info_name="selfheal", **{**main.context_settings, **sizes})
    parts.append(_section(root))
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        if command is None:
            continue
        context = click.Context(command, info_name=name, parent=root)
        parts.append(_section(context))
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                inner_command = command.get_command(context, inner)
                if inner_command is not None:
                    parts.append(
                        _section(click.Context(inner_command, info_name=inner, parent=context))
                    )
    return "\n".join(parts)


def _section(context: click.Context) -> str:
    return f"## {context.command_path}\n```\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(reference(), encoding="utf-8")
