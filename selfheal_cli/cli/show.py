"""``selfheal show``."""

from __future__ import annotations

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.version_name import VersionName, version_number

LONGEST = 100


@click.command("show", cls=Command)
@click.argument("version", type=VersionName())
@options.model
@options.tracking_uri
@options.as_json
def command(version: str, model_name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Show one version: its figures, its tags, and whether its file still holds."""
    from selfheal_cli.cli import output
    from selfheal_cli.errors import VersionCorrupt
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.files import check_files

    registry = MlflowRegistry(tracking_uri)
    number = version_number(registry, model_name, version)
    record = registry.version(model_name, number)
    fault, contract = None, None
    try:
        check_files(registry, record)
        contract = registry.base(record.base).describe().get("contract")
    except VersionCorrupt as exc:
        fault = exc
    if as_json:
        output.print_json({**record.as_dict(), "verified": fault is None, "contract": contract})
    else:
        rows = [
            ["created", f"{output.age(record.created_ms)} ago"],
            ["aliases", ", ".join(record.aliases) or "-"],
            *([name, output.figure(value, 0 if name.endswith("rows") else 4)]
              for name, value in sorted(record.metrics.items())),
            *([key.removeprefix("selfheal."), _short(value)]
              for key, value in sorted(record.tags.items())),
            ["file", "its sha256 holds" if fault is None else "DOES NOT HOLD"],
        ]  # fmt: skip
        title = f"Model '{model_name}', version {number}"
        output.print_table(title, ("what", "value"), rows)
        if contract is not None:
            from selfheal_cli.sources.contract import Contract

            lines = Contract.model_validate(contract).lines()
            columns = [list(line) for line in lines]
            output.print_table("Row contract", ("column", "rows hold"), columns)
    if fault is not None:
        raise fault


def _short(value: str) -> str:
    """What is too long to be read, such as the decisions on all probe rows, is left to --json."""
    return value if len(value) <= LONGEST else f"{len(value):,} characters; whole in --json"
