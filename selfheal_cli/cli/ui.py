"""``selfheal ui``."""

from __future__ import annotations

import os
import sys

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("ui", cls=Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port to listen on.",
)
@options.tracking_uri
def command(host: str, port: int, tracking_uri: str | None) -> None:
    """Serve MLflow's own interface on the store, and say where the versions are; stop it by Ctrl-C.

    Their page is that of the experiment's models; runs have figures by batch, and the report.
    """
    from selfheal_cli.masking import masked_uri
    from selfheal_cli.registry.mlflow.store import require_reachable, resolve

    uri = resolve(tracking_uri)
    require_reachable(uri)
    if uri.startswith("http"):
        say(f"The store is a server with an interface of its own: {masked_uri(uri)}")
        say(f"Versions with their figures: {masked_uri(models_page(uri, uri))}")
        return
    say(f"Versions with their figures: {models_page(uri, f'http://{host}:{port}')}")
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    # by a variable: everybody on the machine may read a command line
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    os.execv(sys.executable, arguments)  # noqa: S606 (no shell is wanted)


def models_page(uri: str, at: str) -> str:
    """The page of the models of the experiment that a run went to last; the first page if none."""
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    experiment = MlflowRegistry(uri).latest_experiment()
    if experiment is None:
        return at
    # without it MLflow calls versions agents, and runs evaluations
    return f"{at.rstrip('/')}/#/experiments/{experiment}/models?workflowType=machine_learning"
