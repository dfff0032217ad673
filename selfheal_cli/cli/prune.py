"""``selfheal prune``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("prune", cls=Command, old={"--apply": "--yes"})
@click.option("--yes", "really", is_flag=True, help="Remove them; without it they are listed.")
@click.option("--dry-run", is_flag=True, help="List them and remove nothing, as without --yes.")
@options.policy
@options.model
@options.tracking_uri
@options.as_json
def command(
    really: bool,
    dry_run: bool,
    policy: str | None,
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Remove versions that the policy's retention does not keep, with their files.

    Each is written into the journal before it goes, and asked then once more whether it is needed.
    What an interrupted prune had left to do is shown, and decided anew by the policy of today.
    Never removed: the serving version, the one before it, the baseline, the best, a proposed one,
    versions of a run under way, and the parents of those that are kept. The audit stays whole.
    """
    if really and dry_run:
        raise click.UsageError("--yes and --dry-run exclude each other")
    from collections import Counter

    from selfheal_cli.cli import output
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.rollback.retention import Pruned, look, prune

    retention = standing.policy_here(click.get_current_context(), policy).retention
    registry = MlflowRegistry(tracking_uri)
    split = look(registry, model_name, retention, clock)
    done = Pruned((), {}, 0)
    if really:
        done = prune(registry, model_name, split, actor=actor(), clock=clock)
    going = [version.version for version in split.going]
    if as_json:
        output.print_json(
            {
                "applied": really,
                "kept": {**split.kept, **done.stayed},
                "going": done.removed if really else going,
                "interrupted": sorted(split.begun),
                "bytes": done.freed,
            }
        )
        return
    counted = Counter(why.split(" of ")[0] for why in split.kept.values())
    rows = [[why, str(count)] for why, count in counted.most_common()]
    title = f"Of {len(split.kept) + len(going)} versions of '{model_name}' {len(split.kept)} stay"
    output.print_table(title, ("because", ">versions"), rows)
    if split.begun:
        goes, stays = split.begun & set(going), split.begun - set(going)
        say(
            f"An interrupted prune had meant to remove {_numbers(split.begun)}; decided anew: "
            f"{_numbers(goes)} may go, {_numbers(stays)} stay."
        )
    if really:
        say(f"Removed: {_numbers(done.removed)}; {done.freed:,} bytes came back.")
        for number, why in done.stayed.items():
            say(f"v{number} stayed after all: {why}.")
    else:
        say(f"Would go: {_numbers(going)}. Nothing was removed; --yes removes them.")


def _numbers(versions: Iterable[int]) -> str:
    return ", ".join(f"v{number}" for number in sorted(versions)) or "none"
