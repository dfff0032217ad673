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

FOR_NETWORKS = ("target", "weights", "init_text", "inputs", "shape", "integers", "preprocess")


def taken_estimator(registry: Registry, given: dict[str, Any]) -> WrappedEstimator | None:
    """MODEL with what would be stored of it where it is a classifier of another library; None where
    torch made it.
    """
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.prepare.estimator_origin import EstimatorOrigin, read_estimator
    from selfheal_cli.pipeline.prepare.estimators import described, rows_of

    use_one_thread()
    read = read_estimator(
        registry, EstimatorOrigin(given["model"], given["trust"], given["allow_pickle"])
    )
    if read is None:
        return None
    _check_options(given)
    fitted, signature = read
    labels = given["labels"].split(",") if given["labels"] else None
    return described(fitted, rows_of(given["data"], given["drop"]), signature, labels)


def wrap_estimator(
    registry: Registry, name: str | None, given: dict[str, Any], *, promote: bool, as_json: bool
) -> bool:
    """Register MODEL, or list where an adapter goes; False where torch made it."""
    from selfheal_cli.estimators.trust import is_of_library
    from selfheal_cli.model.allowed import remember
    from selfheal_cli.pipeline.prepare.estimators import estimator_base
    from selfheal_cli.pipeline.runs.run import RunContext
    from selfheal_cli.pipeline.runs.wrap import add_wrapped

    taken = taken_estimator(registry, given)
    if taken is None:
        return False
    if given["listed"]:
        _list(taken, as_json=as_json)
        return True
    if name is None:
        raise click.UsageError("--as NAME is needed")
    network, where = taken.network, given["model"]
    around = RunContext(registry, clock, actor(), on_settled=say_settled)
    base = estimator_base(network, taken)
    added = add_wrapped(network, base, name, where, around, promote=promote)
    remember(one for one in taken.spec.types if not is_of_library(one))
    _tell(added, taken, where, name, as_json=as_json)
    return True


def _list(taken: WrappedEstimator, *, as_json: bool) -> None:
    """Its one place, as those of a network are listed."""
    from selfheal_cli.heal.recipe import fitting
    from selfheal_cli.model.adapters import AFFINE

    columns, outputs = len(taken.spec.inputs), taken.spec.outputs
    recipes = fitting([AFFINE])
    if as_json:
        output.print_json([{
            "name": "logit", "kind": taken.fitted.kind, "takes": [-1, columns],
            "gives": [-1, outputs], "parameters": 0, "adapters": [AFFINE], "why": "",
            "recipes": recipes,
        }])  # fmt: skip
        return
    headings = ("layer", "kind", "+takes", "+gives", "adapters", "recipes")
    row = ["logit", taken.fitted.kind, f"n x {columns}", f"n x {outputs}", AFFINE,
           ", ".join(recipes)]  # fmt: skip
    output.print_table("Layers, as they start", headings, [row])


def _check_options(given: dict[str, Any]) -> None:
    for name in FOR_NETWORKS:
        if given.get(name):
            option = name.removesuffix("_text").replace("target", "from")
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
    if added.tried:
        say(added.told(name))
        return
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
    if added.healing:
        say(f"Where it is served it is {added.healing}.")
    say(f"Heal it with: selfheal run DATA --target COLUMN --from {healed}")
