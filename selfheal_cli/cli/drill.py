"""``selfheal drill``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("drill", cls=Command)
@click.option(
    "--policy",
    metavar="NAME|FILE",
    default="drill",
    show_default=True,
    help="Thresholds to drill with.",
)
@click.option(
    "--drift-strength", type=float, help="How far V14 moves in the synthetic stream. [default: 2.2]"
)
@click.option("--batches", type=int, help="Batches to try at most. [default: 25]")
@click.option("--keep", is_flag=True, help="Leave the drill's model and run in the store.")
@options.tracking_uri
@options.as_json
def command(
    policy: str,
    drift_strength: float | None,
    batches: int | None,
    keep: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Prove the safety net: run a throw-away model until a rollback fires, then check it.

    The weights that serve afterwards must be those of the registry's best post-heal version, byte
    for byte, and the champion must be that version. Exit 6 if anything does not hold.
    """
    import uuid
    from dataclasses import asdict

    from selfheal_cli.cli import output
    from selfheal_cli.cli.run import Interrupts, answering
    from selfheal_cli.config import NetworkSettings, RunConfig, SyntheticSettings, checked
    from selfheal_cli.pipeline.offline.drill import drill
    from selfheal_cli.pipeline.prepare.rows import open_source
    from selfheal_cli.pipeline.runs.run import RunContext
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.settings import policy_file
    from selfheal_cli.sources.synthetic import RULE

    drift = {} if drift_strength is None else {"drift_strength": drift_strength}
    values = {
        "source": checked(SyntheticSettings, drift, where="options"),
        "network": NetworkSettings(shadow="plain"),
        "policy": policy_file.load(policy),
        "rules": (RULE,),
        "batches": batches,
        "model_name": f"selfheal-drill-{uuid.uuid4().hex[:8]}",
        "experiment": "selfheal-drill",
    }
    config = checked(RunConfig, values, where="options")
    registry = MlflowRegistry(tracking_uri, create=True)
    with answering(Interrupts()) as interrupts:
        around = RunContext(registry, clock, actor(), stop=interrupts.asked)
        proof = drill(config, open_source(config), around, keep=keep)
    if as_json:
        output.print_json({"passed": True, "model": config.model_name, **asdict(proof)})
        return
    say(f"Rollback fired in batch {proof.batch}: {proof.reason}.")
    say(
        f"Restored v{proof.restored_version} (F1 {proof.f1:.3f}), the registry's best post-heal "
        f"version; the serving weights equal its {proof.adapter_bytes:,} stored bytes "
        f"(sha256 {proof.sha256[:12]}…), and champion points to it."
    )
    kept = "is kept" if keep else "was removed again"
    say(f"The safety net holds. The throw-away model '{config.model_name}' {kept}.")
