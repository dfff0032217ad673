"""``selfheal wrap`` of a model that is no torch network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import output
from selfheal_cli.cli.say import say, say_settled

if TYPE_CHECKING:
    from selfheal_cli.pipeline.prepare.estimators import WrappedEstimator
    from selfheal_cli.pipeline.runs.wrap import Placed
    from selfheal_cli.registry.base import Registry

FOR_NETWORKS = ("target", "weights", "init_text", "inputs", "shape", "integers", "listed")


def wrap_estimator(
    registry: Registry,
    name: str | None,
    labels: str | None,
    given: dict[str, Any],
    *,
    promote: bool,
    as_json: bool,
) -> bool:
    """Register MODEL where it is a classifier of another library; False where torch made it."""
    from selfheal_cli.estimators.trust import is_of_library
    from selfheal_cli.model.allowed import remember
    from selfheal_cli.model.network import SelfHealingNetwork, use_one_thread
    from selfheal_cli.pipeline.prepare.estimators import (
        EstimatorOrigin,
        described,
        estimator_base,
        read_estimator,
        rows_of,
    )
    from selfheal_cli.pipeline.runs.run import RunContext
    from selfheal_cli.pipeline.runs.wrap import add_wrapped

    use_one_thread()
    origin = EstimatorOrigin(given["model"], given["trust"], given["allow_pickle"])
    read = read_estimator(registry, origin)
    if read is None:
        return False
    _check_options(given)
    if name is None:
        raise click.UsageError("--as NAME is needed")
    fitted, signature = read
    taken = described(
        fitted, rows_of(given["data"], given["drop"]), signature,
        labels.split(",") if labels else None,
    )  # fmt: skip
    network = SelfHealingNetwork.around_scores(taken.encoding.width, taken.spec.outputs)
    around = RunContext(registry, clock, actor(), on_settled=say_settled)
    base = estimator_base(network, taken)
    added = add_wrapped(network, base, name, origin.where, around, promote=promote)
    remember(one for one in taken.spec.types if not is_of_library(one))
    _tell(added, taken, origin.where, name, as_json=as_json)
    return True


def _check_options(given: dict[str, Any]) -> None:
    for name in FOR_NETWORKS:
        if given.get(name):
            option = name.removesuffix("_text").replace("target", "from").replace("listed", "list")
            raise click.UsageError(
                f"--{option} is for torch networks; {given['model']} has no layers to choose from"
            )


def _tell(added: Placed, taken: WrappedEstimator, where: str, name: str, *, as_json: bool) -> None:
    spec, number = taken.spec, added.version
    if as_json:
        output.print_json({"model": name, "version": number, "at": "logit", "adapter": "affine",
                           "inputs": list(spec.names), "rows": len(taken.x),
                           "output": "probabilities",
                           "moved": [move.as_dict() for move in added.moved]})  # fmt: skip
        return
    say(
        f"Wrapped {where} ({taken.fitted.kind}, {len(spec.names)} columns, classes "
        f"{', '.join(taken.labels)}) as {name} v{number}: an affine adapter on its logit and its "
        "columns.",
        f"On {len(taken.x):,} rows it gives the model's own probabilities, bit for bit.",
        *taken.remarks,
    )
    healed = name if added.moved else f"models:/{name}/{number}"
    if added.moved:
        before = [f"{one.alias} (was v{one.source})" if one.source else one.alias
                  for one in added.moved]  # fmt: skip
        say(f"Aliases moved to v{number}: {', '.join(before)}.")
    else:
        say(
            f"'{name}' existed, so no alias was moved. Make v{number} serve with: "
            f"selfheal rollback --to {number} --model {name}"
        )
    say(f"Heal it with: selfheal run DATA --target COLUMN --from {healed}")
