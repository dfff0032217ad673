"""``selfheal wrap``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.part_choice import PartOption
from selfheal_cli.cli.say import say, say_settled

if TYPE_CHECKING:
    from selfheal_cli.model.network import SelfHealingNetwork
    from selfheal_cli.model.original import Original
    from selfheal_cli.pipeline.prepare.foreign import ForeignOrigin, Sample, StoredModel
    from selfheal_cli.pipeline.prepare.inputs import AskedInput
    from selfheal_cli.pipeline.runs.wrap import Placed
    from selfheal_cli.registry.base import Registry

SHAPE = re.compile("[1-9][0-9]*(,[1-9][0-9]*)*")
LISTED = 16  # rows that places are tried on
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _uri(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A version of v7 is 7, as everywhere."""
    return value and re.sub(r"^(models:/.+/)[vV]([0-9]+)$", r"\1\2", value)


@click.command("wrap", cls=Command, old={"--output": "--gives", "--labels": "--classes"})
@click.argument("model", required=False, callback=_uri)
@click.option("--as", "name", metavar="NAME", help="Registered model to become its baseline.")
@click.option(
    "--at", default="auto", metavar="LAYER", show_default=True,
    help="Layer that the adapter goes to; auto: before the last linear one.",
)  # fmt: skip
@click.option(
    "--adapter", cls=PartOption, part="adapter", default="reflexive",
    metavar="reflexive|affine|lora[:RANK]", show_default=True,
    help="reflexive before any layer, affine before the last linear one, lora on a linear one.",
)  # fmt: skip
@click.option(
    "--from", "target", metavar="PACKAGE.MODULE:NAME",
    help="The model's class, or a function that makes it, so that no pickle is needed.",
)  # fmt: skip
@click.option(
    "--weights",
    type=FILE,
    help="Weights in a safetensors file; without it what --from makes has its own.",
)
@click.option(
    "--init", "init_text", metavar="JSON", help="Arguments of the model's constructor, as JSON."
)
@click.option(
    "--input", "inputs", multiple=True, metavar="[NAME=]columns|tokens|3x224x224|A,B",
    help="What the model takes: columns, tokens, one tensor of a shape, or NAME=COLUMNS of each of "
    "several; repeatable. [default: columns]",
)  # fmt: skip
@click.option("--shape", metavar="N,N,...", help="Shape of one row; as --input NxN.")
@click.option(
    "--gives", default="auto", show_default=True, metavar="logits|probabilities|KEY[:KIND]",
    help="What the model gives: KEY of a dict, or position in a tuple; auto: probabilities where "
    "all lie between 0 and 1, else logits.",
)  # fmt: skip
@click.option("--integers", is_flag=True, help="Whole numbers go in; as --input tokens.")
@click.option(
    "--preprocess",
    type=FILE,
    help="A fitted scikit-learn pipeline that rows go through first (.skops or a pickle).",
)
@click.option("--data", type=FILE, help="A CSV or Parquet file with rows as the model takes them.")
@click.option(
    "--drop",
    multiple=True,
    metavar="COLUMN",
    help="Leave a column out that is no input of the model; repeatable.",
)
@click.option(
    "--classes",
    "labels",
    metavar="A,B,...",
    help="Names of the model's classes. [default: 0, 1, ...]",
)
@click.option(
    "--promote",
    is_flag=True,
    help="Make it champion, baseline and what --from NAME heals, of a NAME that exists.",
)
@click.option(
    "--list", "listed", is_flag=True, help="Show the model's layers and register nothing."
)
@click.option("--allow-pickle", is_flag=True, help="Load a pickle, which may run any code.")
@click.option(
    "--trust",
    multiple=True,
    metavar="TYPE",
    help="Let a .skops file build this type, which skops does not by itself; repeatable.",
)
@options.allow_module
@options.device
@options.tracking_uri
@options.wide
@options.as_json
def command(
    name: str | None,
    labels: str | None,
    promote: bool,
    listed: bool,
    tracking_uri: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Put an adapter into a trained model and register it as a baseline to heal.

    MODEL is models:/NAME/VERSION or a folder (MLflow's pytorch, sklearn, xgboost, lightgbm,
    catboost, or a python_function that gives probabilities), or a file (.skops, .ubj, .json, .txt,
    .cbm); or give --from and --weights. The wrapped model decides as the original, bit for bit,
    until a heal: --data gives the columns and the rows that this is checked on. Then: selfheal run
    DATA --target COLUMN --from NAME.

    A new NAME serves what was wrapped. Of one that exists no alias is moved without --promote.
    """
    given = require_model(given)
    if name is None and not listed:
        raise click.UsageError("--as NAME is needed, or --list")
    init_of(given["init_text"])
    from selfheal_cli.cli.wrap_estimator import wrap_estimator
    from selfheal_cli.model.adapters import parse_adapter
    from selfheal_cli.model.allowed import allow
    from selfheal_cli.pipeline.runs.wrap import require_name
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    allow([(given["target"] or "").partition(":")[0]])
    parse_adapter(given["adapter"])
    if name is not None:
        require_name(name)
    needed = given["model"] is not None or not listed
    registry = MlflowRegistry(tracking_uri, create=not listed) if needed else None
    asked = {**given, "listed": listed, "labels": labels}
    how = {"promote": promote, "as_json": as_json}
    is_done = (
        registry is not None
        and given["model"] is not None
        and wrap_estimator(registry, name, asked, **how)
    )
    if not is_done:
        _wrap_module(registry, name, asked, **how)


def _wrap_module(
    registry: Registry | None, name: str | None, given: dict[str, Any], *,
    promote: bool, as_json: bool,
) -> None:  # fmt: skip
    """A torch module, or what it has layers for."""
    from selfheal_cli.model.wrapping import put_in
    from selfheal_cli.pipeline.prepare.foreign import base_of, taken
    from selfheal_cli.pipeline.runs.run import RunContext
    from selfheal_cli.pipeline.runs.wrap import add_wrapped

    origin, stored, sample = read_asked(registry, given)
    if given["listed"]:
        _show_layers(stored, sample, origin, given["gives"], as_json=as_json)
    elif name is not None and registry is not None:
        original = taken(stored, sample, origin, given["gives"])
        sample = sample.as_taken(original)
        network = put_in(original, at=given["at"], adapter=given["adapter"])
        labels = given["labels"].split(",") if given["labels"] else None
        base = base_of(network, sample, labels)
        around = RunContext(registry, clock, actor(), on_settled=say_settled)
        added = add_wrapped(network, base, name, str(origin), around, promote=promote)
        _tell(registry, added, network, original, sample, origin, name, as_json=as_json)


def read_asked(
    registry: Registry | None, given: dict[str, Any]
) -> tuple[ForeignOrigin, StoredModel, Sample]:
    """The torch model that the options name, and rows as it takes them."""
    from selfheal_cli.pipeline.prepare.foreign import ForeignOrigin, read_origin, sample_rows

    origin = ForeignOrigin(
        given["model"], given["target"], given["weights"], init_of(given["init_text"]),
        allow_pickle=given["allow_pickle"],
    )  # fmt: skip
    stored = read_origin(registry, origin)
    asked = asked_inputs(given)
    if given["preprocess"] is None:
        return origin, stored, sample_rows(stored, given["data"], given["drop"], asked)
    from selfheal_cli.errors import DataError
    from selfheal_cli.model.allowed import remember
    from selfheal_cli.pipeline.prepare.estimator_origin import EstimatorOrigin, read_transformer
    from selfheal_cli.pipeline.prepare.estimators import rows_of
    from selfheal_cli.pipeline.prepare.preprocessing import preprocessing

    data = given["data"]
    frame = rows_of(data, given["drop"])
    if frame is None:
        raise DataError("--preprocess needs --data: rows as the pipeline takes them")
    place = EstimatorOrigin(str(given["preprocess"]), given["trust"], given["allow_pickle"])
    before = preprocessing(read_transformer(place), frame, str(data))
    remember(before.spec.types)
    return origin, stored, before.sample(stored, asked)


def require_model(given: dict[str, Any]) -> dict[str, Any]:
    """The options with MODEL where ``--from`` named it; raises `click.UsageError` unless one model
    is named.
    """
    if given["model"] is None and (given["target"] or "").startswith(("models:/", "runs:/")):
        given = {**given, "model": given["target"], "target": None}
    if given["weights"] is not None and given["target"] is None:
        raise click.UsageError("--weights needs --from, the class that they belong to")
    if given["model"] is None and given["target"] is None:
        raise click.UsageError("give MODEL, or --from, with --weights where it makes none")
    if given["model"] is not None and given["weights"] is not None:
        raise click.UsageError("give MODEL, or --weights with --from")
    return given


def _tell(
    registry: Registry,
    added: Placed,
    network: SelfHealingNetwork,
    original: Original,
    sample: Sample,
    origin: ForeignOrigin,
    name: str,
    *,
    as_json: bool,
) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.pipeline.prepare.foreign import filled_with, fills
    from selfheal_cli.pipeline.prepare.trial import place_of
    from selfheal_cli.registry.base import CHAMPION

    number, moved = added.version, [move.as_dict() for move in added.moved]
    at, kind = (network.architecture.foreign or {})["at"], network.architecture.adapter
    if as_json:
        output.print_json({"model": name, "version": number, "at": at, "adapter": kind,
                           "inputs": list(sample.names), "rows": len(sample.rows),
                           "output": original.answer.kind, "moved": moved})  # fmt: skip
        return
    count = sum(one.numel() for one in network.adapter.parameters())
    where = place_of(network)
    recipe = "" if network.ends_in_linear else " --recipe gradient"
    seen = f"{len(sample.rows):,} {'drawn ' if sample.drawn else ''}rows"
    say(
        f"{name} v{number}: {origin}, adapter {kind} of {count:,} parameters {where}; decides as "
        f"the original on {seen}, {_how_alike(network, original)}.",
        f"The original takes {original.interface} and gives {original.answer.words}.",
        f"A missing value goes in as {filled_with(fills(network, sample), sample)}."
        if sample.before is None
        else f"Rows go through its pipeline first: columns {', '.join(sample.before.names)}.",
        *filter(None, [original.slow]),
    )
    if added.tried:
        say(added.told(name))
        return
    if added.moved:
        before = [f"{one.alias} (was v{one.source})" if one.source else one.alias
                  for one in added.moved]  # fmt: skip
        say(f"Aliases moved to v{number}: {', '.join(before)}.")
        healed = name
    else:
        serving = registry.alias(name, CHAMPION)
        still = f"v{serving} serves on" if serving else "it has no champion"
        say(
            f"'{name}' existed, so no alias was moved: {still}. Make v{number} serve with: "
            f"selfheal rollback --to {number} --model {name}"
        )
        healed = f"models:/{name}/{number}"
    if added.healing:
        say(f"Where it is served it is {added.healing}.")
    say(f"Heal it with: selfheal run DATA --target COLUMN --from {healed}{recipe}")


def _how_alike(network: SelfHealingNetwork, original: Original) -> str:
    ours, theirs = network.predict(original.rows), original.answer.probabilities.numpy()
    gap = float(abs(ours - theirs).max())
    return "bit for bit" if gap == 0 else f"within {gap:.1g}"


def _show_layers(
    stored: StoredModel, sample: Sample, origin: ForeignOrigin, output_is: str, *, as_json: bool
) -> None:
    from dataclasses import asdict, replace

    from selfheal_cli.cli import output
    from selfheal_cli.heal.recipe import fitting
    from selfheal_cli.model.wrapping import layers
    from selfheal_cli.pipeline.prepare.foreign import taken

    original = taken(stored, replace(sample, rows=sample.rows[:LISTED]), origin, output_is)
    listing = layers(original)
    if as_json:
        output.print_json([{**asdict(layer), "recipes": fitting(layer.adapters)}
                           for layer in listing])  # fmt: skip
        return
    rows = [
        [layer.name, layer.kind, _size(layer.takes), _size(layer.gives), f"{layer.parameters:,}",
         ", ".join(layer.adapters) or "none", ", ".join(fitting(layer.adapters))]
        for layer in listing
    ]  # fmt: skip
    columns = ("layer", "kind", "+takes", "+gives", ">parameters", "adapters", "recipes")
    output.print_table("Layers, as they start", columns, rows)
    for layer in listing:
        if layer.why:
            say(f"{layer.name}: {layer.why}")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(("n", *(str(one) for one in shape[1:]))) if shape else "-"


def asked_inputs(given: dict[str, Any]) -> tuple[AskedInput, ...]:
    """What the model takes, by ``--input`` or by ``--shape`` and ``--integers``."""
    from selfheal_cli.pipeline.prepare.inputs import parse_inputs

    shape, texts = given["shape"], list(given["inputs"])
    if texts and (shape is not None or given["integers"]):
        raise click.UsageError("--input says it all: leave --shape and --integers out")
    if shape is not None and not SHAPE.fullmatch(shape):
        raise click.BadParameter(f"{shape!r}: numbers from 1 are allowed, as in 1,8,8",
                                 param_hint="--shape")  # fmt: skip
    if given["integers"]:
        texts = [f"tokens:{shape}" if shape else "tokens"]
    elif shape is not None:
        texts = [shape]
    return parse_inputs(texts)


def init_of(text: str | None) -> dict[str, Any]:
    """The arguments of the model's constructor."""
    if text is None:
        return {}
    try:
        arguments = json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r}: {exc}", param_hint="--init") from exc
    if not isinstance(arguments, dict):
        raise click.BadParameter(f"{text!r}: an object is needed, as in {{\"width\": 64}}",
                                 param_hint="--init")  # fmt: skip
    return arguments
