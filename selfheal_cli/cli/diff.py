"""``selfheal diff``."""

from __future__ import annotations

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName, version_number


@click.command("diff", cls=Command)
@click.argument("first", type=VersionName())
@click.argument("second", type=VersionName())
@options.model
@options.tracking_uri
@options.as_json
def command(
    first: str, second: str, model_name: str, tracking_uri: str | None, as_json: bool
) -> None:
    """Hold version SECOND against version FIRST: figures, tags, weights, decisions."""
    from dataclasses import asdict

    from selfheal_cli.audit.diff import compare_versions
    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    numbers = [version_number(registry, model_name, named) for named in (first, second)]
    versions = [registry.version(model_name, number) for number in numbers]
    comparison = compare_versions(registry, versions[0], versions[1])
    if as_json:
        output.print_json(asdict(comparison))
        return
    rows = []
    for name, (a, b) in comparison.metrics.items():
        digits = 0 if name.endswith("rows") else 4
        change = "" if a is None or b is None else f"{b - a:+.{digits}f}"
        rows.append([name, output.figure(a, digits), output.figure(b, digits), change])
    for key, (old, new) in comparison.tags.items():
        rows.append([key.removeprefix("selfheal."), old or "-", new or "-", ""])
    for name, moved in (comparison.weights or {}).items():
        share = "" if moved.relative is None else f"{moved.relative:.1%}"
        rows.append([f"moved: {name}", "", f"{moved.distance:.4f}", share])
    columns = ("what", *(f"v{number}" for number in numbers), ">change")
    title = f"Model '{model_name}', v{numbers[0]} and v{numbers[1]}"
    output.print_table(title, columns, rows)
    if comparison.weights is None:
        say("The adapters are of different kinds: their weights cannot be compared.")
    if comparison.decided_differently is None:
        say("They share no probe rows: their decisions cannot be compared.")
    else:
        say(
            f"They decide {comparison.decided_differently} of {comparison.probe_rows} "
            "probe rows differently."
        )
