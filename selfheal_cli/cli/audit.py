"""``selfheal audit``."""

from __future__ import annotations

import click

from selfheal_cli.cli import options

FAILED = 4


@click.command("audit")
@options.model_name
@options.tracking_uri
@options.as_json
@click.pass_context
def command(ctx: click.Context, model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Check everything that is recorded of a model against everything else.

    Event logs and the journal by their chains, versions by the logs of their runs, files and bases
    by their hashes, aliases by the journal. Exit 4 if anything does not hold.
    """
    from dataclasses import asdict

    from selfheal_cli.audit.model import audit_model
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    found = audit_model(MlflowRegistry(tracking_uri), model_name)
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
