"""``selfheal status``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfheal_cli.cli import options

DEFAULT_URL = "http://127.0.0.1:5001"
EVERY_SECONDS = 2.0
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("status")
@click.argument("url", required=False)
@click.option(
    "--model-name",
    callback=lambda ctx, param, value: value and options.checked_name(ctx, param, value),
    help="Read the registry instead of asking a server: champion, hold, lease, last versions.",
)
@click.option("--token-file", type=FILE, help="The server's, with 'scoring: TOKEN' or the other.")
@click.option("--watch", is_flag=True, help="Look again every two seconds until Ctrl-C.")
@options.tracking_uri
@options.as_json
def command(
    url: str | None,
    model_name: str | None,
    token_file: Path | None,
    watch: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Show how a served model stands: state, live against doing nothing, drift, last heals.

    URL is that of 'selfheal serve', http://127.0.0.1:5001 where none is given.
    """
    if url and model_name:
        raise click.UsageError("give the URL of a server, or --model-name to read the registry")
    if tracking_uri and not model_name:
        raise click.UsageError("--tracking-uri is for --model-name")
    if token_file and model_name:
        raise click.UsageError("--token-file is for a server")
    if watch and as_json:
        raise click.UsageError("--json prints one document: leave --watch out")
    from selfheal_cli.cli import status_screen

    if model_name:
        look = _registry_look(model_name, tracking_uri)
    else:
        look = _server_look(url or DEFAULT_URL, token_file)
    if watch:
        status_screen.watch(look, EVERY_SECONDS)
    elif as_json:
        from selfheal_cli.cli import output

        output.print_json(look())
    else:
        status_screen.show(look())


def _server_look(url: str, token_file: Path | None) -> Any:
    from functools import partial

    from selfheal_cli.cli.asking import ask_status

    token = ""
    if token_file is not None:
        from selfheal_cli.serve.access import read_tokens

        tokens = read_tokens(token_file)
        token = tokens.operating or tokens.scoring or ""
    return partial(ask_status, url, token)


def _registry_look(model: str, tracking_uri: str | None) -> Any:
    from functools import partial

    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    return partial(_from_registry, MlflowRegistry(tracking_uri), model)


def _from_registry(registry: Any, model: str) -> dict[str, Any]:
    """What the registry alone knows."""
    from dataclasses import asdict

    from selfheal_cli.registry.base import CHAMPION
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.rollback.plan import champion_of

    serving, now = champion_of(registry, model), standing(registry, model)
    move = now.moves.get(CHAMPION)
    known = move is not None and serving is not None and move.target == serving.version
    return {
        "model": model,
        "champion": serving.as_dict() if serving else None,
        "moved": move.as_dict() if known and move else None,
        "hold": asdict(now.hold) if now.hold else None,
        "lease": asdict(now.lease) if now.lease else None,
        "versions": [version.as_dict() for version in registry.versions(model, limit=5)],
    }
