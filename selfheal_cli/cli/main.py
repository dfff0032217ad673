"""The group, and the one place where errors become one line and an exit code."""

from __future__ import annotations

import atexit
import gc
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from selfheal_cli import __version__
from selfheal_cli.cli.command import Group, say_old
from selfheal_cli.cli.say import say
from selfheal_cli.errors import SelfhealError, one_line
from selfheal_cli.masking import masked

INTERRUPTED = 130
YOUNG = 20_000  # objects before garbage is looked for: the libraries make half a million that stay
atexit.register(gc.freeze)  # else all that is loaded is looked through at the end, for seconds
# What a user does in a day, in its order; a command's module is loaded when it is called.
SECTIONS = {
    "Start": {
        "demo": "Show healing on a table of payments that change.",
        "init": "Write a commented selfheal.yaml from what is seen in your data.",
        "run": "Train, stream, heal and register every snapshot.",
        "check-model": "Say what a model takes and gives, and what healing it would cost.",
        "wrap": "Put an adapter into a trained PyTorch model of your own.",
        "compare": "Compare recipes with each other, with peers and with no heal.",
    },
    "Look": {
        "status": "Show the state of a served model, once or live.",
        "champion": "Show the serving version, or that of a time; since when, by whom.",
        "snapshots": "List the versions of a model.",
        "show": "Show one version: figures, tags, parentage.",
        "diff": "Compare two versions.",
        "history": "List heals, rollbacks and alias moves in order.",
        "report": "Write a run's report, one HTML page to read and to send.",
        "export": "Make a run's monitoring files and plots again.",
        "ui": "Open MLflow's own interface on the store.",
    },
    "Decide": {
        "rollback": "Make a better version the champion again.",
        "mode": "Say what the heals of a served model may do, or order it.",
        "canary": "Show what answers a share of the requests; promote, withdraw it.",
        "proposals": "List what waits for a person's approval.",
        "approve": "Carry out what a heal or another person proposed.",
        "reject": "Close a proposal without carrying it out.",
        "ask-labels": "Draw rows whose labels to ask for; say what they tell of all.",
        "label": "Take the labels that were asked for.",
        "labels": "Show who told which labels; take them back; erase rows.",
        "hold": "Stop the healing of a model.",
        "release": "Allow the healing of a model again.",
    },
    "Serve": {
        "serve": "Serve a model's champion over HTTP and heal it on what comes.",
        "handover": "Write labelled rows as Parquet, for whoever retrains the model.",
        "events": "List what targets are told of a served model; send it again.",
        "score": "Score a table of any length with one version, into a file.",
    },
    "Check": {
        "doctor": "Check versions, the store, and the files behind the aliases.",
        "audit": "Check logs, versions, files and aliases against one another.",
        "drill": "Prove the rollback on a throw-away model.",
        "flush": "Bring to the registry what runs have left on disk.",
    },
    "Set up": {
        "config": "Show the settings of a run with origins; check a selfheal.yaml.",
        "policy": "List, show and check policy files.",
        "rules": "Check a file of domain rules against data, or learn some.",
        "four-eyes": "Have a model want two people for a move of its champion.",
        "prune": "Remove versions that the retention policy does not keep.",
        "delete": "Delete a run or a model, with all that belongs to it.",
    },
}
COMMANDS = {name: line for section in SECTIONS.values() for name, line in section.items()}


class Commands(Group):
    """Loads a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from ``selfheal_cli.cli.NAME``, a hyphen being an underscore there."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"selfheal_cli.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The lists in ``--help``, in one column of names."""
        widest = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), line) for name, line in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Turn every error of ours into one line on stderr and its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # what its encoding lacks is written out
                stream.reconfigure(errors="backslashreplace")
        usual = gc.get_threshold()
        gc.set_threshold(YOUNG, *usual[1:])
        try:
            result = super().invoke(ctx)
            say_old(ctx)
            return result
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
        finally:
            gc.set_threshold(*usual)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="selfheal")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Keep a drifting PyTorch model useful until it can be retrained.

    A small adapter heals on the stream, every snapshot is an MLflow model version, and a rollback
    restores the best one.
    """
