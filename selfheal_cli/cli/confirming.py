"""What a command that moves something asks before it does."""

from __future__ import annotations

import sys

import click


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere ``--yes`` must have said it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("not a terminal: give --yes to go ahead, or --dry-run to look")
    click.confirm(question, abort=True)


def require_no_question(*, as_json: bool, **given: bool) -> None:
    """Raise where ``--json``, which asks nothing, comes without one of the options ``given``."""
    if as_json and not any(given.values()):
        *others, last = (f"--{name.replace('_', '-')}" for name in given)
        names = f"{', '.join(others)} or {last}"
        raise click.UsageError(f"--json asks nothing: give {names} with it")
