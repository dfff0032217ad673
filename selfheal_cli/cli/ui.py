"""``selfheal ui``."""

from __future__ import annotations

import os
import sys

import click

from selfheal_cli.cli import options


@click.command("ui")
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
    """Open MLflow's own interface on the store; stop it with Ctrl-C.

    The versions are under Models; every run's metrics and files are under its experiment.
    """
    from selfheal_cli.registry.store import require_reachable, resolve

    uri = resolve(tracking_uri)
    require_reachable(uri)
    if uri.startswith("http"):
        click.echo(f"The store is a server with an interface of its own: {uri}")
        return
    click.echo(f"MLflow's interface: http://{host}:{port}")
    sys.stdout.flush()
    arguments = ["-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host,
                 "--port", str(port)]  # fmt: skip
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 (no shell is wanted)
