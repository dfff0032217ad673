"""The group, and the one place where errors become one line and an exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from selfheal_cli import __version__
from selfheal_cli.cli.say import say
from selfheal_cli.errors import SelfhealError, one_line
from selfheal_cli.masking import masked
from selfheal_cli.visible import visible

INTERRUPTED = 130
# name: one line of help. A command's module is loaded when it is called, not before.
COMMANDS = {
    "init": "Write a commented selfheal.yaml from what is seen in your data.",
    "run": "Train, stream, heal and register every snapshot.",
    "serve": "Serve a model's champion over HTTP and heal it on what comes.",
    "status": "Show how a served model stands, once or live.",
    "wrap": "Put an adapter into a trained PyTorch model of your own.",
    "flush": "Bring to the registry what runs have left on disk.",
    "compare": "Hold recipes against each other, against peers and against no heal.",
    "rollback": "Make a better version the champion again.",
    "champion": "Show what serves, since when, by whom; or what served at a time.",
    "approve": "Carry out a rollback that somebody else proposed.",
    "reject": "Close a proposed rollback.",
    "four-eyes": "Have a model want two people for a move of its champion.",
    "hold": "Stop the healing of a model.",
    "release": "Allow the healing of a model again.",
    "drill": "Prove the rollback on a throw-away model.",
    "snapshots": "List the versions of a model.",
    "show": "Show one version: figures, tags, parentage.",
    "diff": "Hold two versions against each other.",
    "history": "List heals, rollbacks and alias moves in order.",
    "audit": "Check logs, versions, files and aliases against one another.",
    "prune": "Remove versions that the retention policy does not keep.",
    "report": "Write a run's report, one HTML page to read and to send.",
    "export": "Make a run's monitoring files and plots again.",
    "config": "Show what a run is told and by whom; check a selfheal.yaml.",
    "policy": "List, show and check policy files.",
    "rules": "Check a file of domain rules against data, or learn some.",
    "doctor": "Check versions, the store, and the files behind the aliases.",
    "ui": "Open MLflow's own interface on the store.",
}


class Commands(click.Group):
    """Loads a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from ``selfheal_cli.cli.NAME``, a hyphen being an underscore there."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(
            f"selfheal_cli.cli.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

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

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn every error of ours into one line on stderr and its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # what its encoding lacks is written out
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except SelfhealError as exc:
            if ctx.params.get("debug"):
                raise
            say(f"selfheal: {one_line(exc)}", err=True)
            ctx.exit(exc.exit_code)
        except KeyboardInterrupt:
            say("selfheal: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as exc:
            if ctx.params.get("debug"):
                raise
            reason = one_line(exc)
            line = f"selfheal: unexpected: {masked(reason)}; 'selfheal --debug' shows where"
            say(line, err=True)
            ctx.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="selfheal")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Keep a drifting PyTorch model useful until it can be retrained.

    A small adapter heals on the stream, every snapshot is an MLflow model version, and a rollback
    restores the best one.
    """
