"""``selfheal policy``."""

from __future__ import annotations

from pathlib import Path

import click

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Group
from selfheal_cli.cli.say import say


@click.group("policy", cls=Group)
def command() -> None:
    """List, show and check policy files: the thresholds that operations own."""


@command.command("list")
@options.as_json
def list_policies(as_json: bool) -> None:
    """List the policies of this folder's registry_policies/ and those that selfheal ships."""
    from selfheal_cli.cli import output
    from selfheal_cli.settings import policy_file

    policies = {
        name: (path, policy_file.read(path)) for name, path in policy_file.available().items()
    }
    if as_json:
        output.print_json(
            {name: {"path": str(path), **policy.model_dump()}
             for name, (path, policy) in policies.items()}
        )  # fmt: skip
        return
    rows = [[name, policy.description, str(path)] for name, (path, policy) in policies.items()]
    output.print_table("Policies", ("name", "what it is for", "file"), rows)


@command.command("show")
@click.argument("name")
@options.as_json
def show(name: str, as_json: bool) -> None:
    """Show every threshold of a policy, by NAME or file, with what it means."""
    from selfheal_cli.cli import output
    from selfheal_cli.config import Policy
    from selfheal_cli.settings import policy_file

    policy = policy_file.load(name)
    if as_json:
        output.print_json(policy.model_dump())
        return
    rows = [
        [key, str(getattr(policy, key)), str(field.default), field.description or ""]
        for key, field in Policy.model_fields.items()
        if key != "description"
    ]
    title = f"Policy '{name}': {policy.description}"
    columns = ("threshold", "value", "default", "meaning")
    output.print_table(title, columns, rows)


@command.command("validate")
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a policy FILE; exit 3 with file, key and value where it is wrong."""
    from selfheal_cli.settings import policy_file

    policy_file.read(file)
    say(f"{file}: a valid policy")
