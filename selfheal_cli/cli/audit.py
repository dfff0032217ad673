"""``selfheal audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from selfheal_cli.cli import options

if TYPE_CHECKING:
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

FAILED = 4


@click.command("audit")
@click.option(
    "--replay",
    type=click.IntRange(min=1),
    metavar="VERSION",
    help="Make this version again from its run's rows instead, and compare the bytes.",
)
@options.model_name
@options.tracking_uri
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    replay: int | None,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Check everything that is recorded of a model against everything else.

    Event logs and the journal by their chains, versions by the logs of their runs, files and bases
    by their hashes, aliases by the journal. Exit 4 if anything does not hold.
    """
    from dataclasses import asdict

    from selfheal_cli.audit.model import audit_model
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    if replay is not None:
        _replay(registry, model_name, replay, as_json=as_json)
        return
    found = audit_model(registry, model_name)
    if as_json:
        output.print_json({"checked": dict(found.checked), "holds": not found.findings,
                           "findings": [asdict(one) for one in found.findings]})  # fmt: skip
    else:
        checked = ", ".join(f"{count:,} {name}" for name, count in found.checked.items())
        click.echo(f"Checked of '{model_name}': {checked}.")
        if found.findings:
            rows = [[one.where, one.problem] for one in found.findings]
            title = f"{len(rows)} things do not hold"
            output.make_console().print(output.make_table(title, ("where", "what"), rows))
        else:
            click.echo("Everything holds.")
    if found.findings:
        ctx.exit(FAILED)


def _replay(registry: MlflowRegistry, model: str, number: int, *, as_json: bool) -> None:
    import tempfile
    from dataclasses import asdict
    from pathlib import Path

    from selfheal_cli.cli import output
    from selfheal_cli.cli.event_logs import log_of
    from selfheal_cli.pipeline.reheal import reheal

    version = registry.version(model, number)
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(version.run_id, registry.uri, Path(folder))
        found = reheal(registry, version, log)
    if as_json:
        output.print_json(asdict(found))
        return
    click.echo(
        f"v{number} comes out the same: sha256 {found.sha256[:12]}…, after {found.batches} batches "
        f"and {found.events} recorded events, each of which came out as recorded."
    )
