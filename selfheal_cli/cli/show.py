"""``selfheal show``."""

from __future__ import annotations

import click

from selfheal_cli.cli import options


@click.command("show")
@click.argument("version", type=click.IntRange(min=1))
@options.model_name
@options.tracking_uri
@options.as_json
def command(version: int, model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show one version: its figures, its tags, and whether its file still holds."""
    from selfheal_cli.cli import output
    from selfheal_cli.errors import VersionCorrupt
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.verify import load_verified
    from selfheal_cli.sources.contract import Contract

    registry = MlflowRegistry(tracking_uri)
    record = registry.version(model_name, version)
    fault, contract = None, None
    try:
        load_verified(registry, record)
        contract = registry.base(record.base).describe().get("contract")
    except VersionCorrupt as exc:
        fault = exc
    if as_json:
        output.print_json({**record.as_dict(), "verified": fault is None, "contract": contract})
    else:
        rows = [
            ["created", f"{output.age(record.created_ms)} ago"],
            ["aliases", ", ".join(record.aliases) or "-"],
            *([name, f"{value:.4f}"] for name, value in sorted(record.metrics.items())),
            *([key.removeprefix("selfheal."), value] for key, value in sorted(record.tags.items())),
            ["file", "its sha256 holds" if fault is None else "DOES NOT HOLD"],
        ]
        title = f"Model '{model_name}', version {version}"
        console = output.make_console()
        console.print(output.make_table(title, ("what", "value"), rows))
        if contract is not None:
            lines = Contract.model_validate(contract).lines()
            columns = [list(line) for line in lines]
            console.print(output.make_table("Row contract", ("column", "rows hold"), columns))
    if fault is not None:
        raise fault
