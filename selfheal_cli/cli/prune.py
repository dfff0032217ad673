"""``selfheal prune``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, clock, now_text
from selfheal_cli.cli import options, standing


@click.command("prune")
@click.option("--apply", "really", is_flag=True, help="Remove them; without it they are listed.")
@options.policy
@options.model_name
@options.tracking_uri
@options.as_json
def command(
    really: bool, policy: str | None, model_name: str, tracking_uri: str | None, as_json: bool
) -> None:
    """Remove versions that the policy's retention does not keep, with their files.

    Never removed: what serves, served before, is baseline, best or proposed, what a run under way
    made, and the parents of what is kept. The journal says what went, and the audit stays whole.
    """
    from collections import Counter

    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry
    from selfheal_cli.retention import all_versions, prune, sort_versions

    retention = standing.policy_here(click.get_current_context(), policy).retention
    registry = MlflowRegistry(tracking_uri)
    versions, now = all_versions(registry, model_name)
    found = sort_versions(versions, now, retention, round(clock().timestamp() * 1000))
    came_back = 0
    if really:
        who = {"actor": actor(), "at": now_text()}
        came_back = prune(registry, model_name, found.going, **who)
    if as_json:
        output.print_json(
            {
                "applied": really,
                "kept": found.kept,
                "going": [version.version for version in found.going],
                "bytes": came_back,
            }
        )
        return
    counted = Counter(why.split(" of ")[0] for why in found.kept.values())
    rows = [[why, str(count)] for why, count in counted.most_common()]
    title = f"Of {len(versions)} versions of '{model_name}' {len(found.kept)} stay"
    output.make_console().print(output.make_table(title, ("because", ">versions"), rows))
    numbers = ", ".join(f"v{version.version}" for version in found.going) or "none"
    if really:
        click.echo(f"Removed: {numbers}; {came_back:,} bytes came back.")
    else:
        click.echo(f"Would go: {numbers}. Nothing was removed; --apply removes them.")
