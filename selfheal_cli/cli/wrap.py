"""``selfheal wrap``."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options

if TYPE_CHECKING:
    from torch import nn

    from selfheal_cli.pipeline.origin import Sample

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("wrap")
@click.argument("model", required=False)
@click.option("--as", "name", metavar="NAME", help="Registered model to become its baseline.")
@click.option(
    "--at", default="auto", metavar="LAYER", show_default=True,
    help="Linear layer that the adapter goes before; auto: the last one.",
)  # fmt: skip
@click.option(
    "--from", "target", metavar="PACKAGE.MODULE:CLASS",
    help="The model's class, so that no pickle is needed to build it.",
)  # fmt: skip
@click.option("--weights", type=FILE, help="Its weights, safetensors, instead of MODEL.")
@click.option("--init", "init_text", metavar="JSON", help="Its constructor's arguments.")
@click.option("--shape", metavar="N,N,...", help="Of one row. [default: as many as inputs]")
@click.option("--integers", is_flag=True, help="It takes whole numbers, as of tokens.")
@click.option("--data", type=FILE, help="A CSV or Parquet file with rows as the model takes them.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="No input of the model; repeatable.")
@click.option(
    "--labels", metavar="A,B,...", help="What its classes are called. [default: 0, 1, ...]"
)
@click.option("--list", "listed", is_flag=True, help="Show its layers and register nothing.")
@click.option("--allow-pickle", is_flag=True, help="Load a pickle, which may run any code.")
@options.tracking_uri
@options.as_json
def command(
    name: str | None,
    at: str,
    labels: str | None,
    listed: bool,
    tracking_uri: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Put an adapter into a trained PyTorch model and register it as a baseline to heal.

    MODEL is models:/NAME/VERSION (MLflow's pytorch flavour); or give --from and --weights. The
    wrapped model decides as the original, bit for bit, until a heal: --data gives the columns and
    the rows that this is checked on. Then: selfheal run DATA --target COLUMN --model NAME.
    """
    if (given["model"] is None) == (given["weights"] is None):
        raise click.UsageError("give MODEL, or --weights with --from")
    if given["weights"] is not None and given["target"] is None:
        raise click.UsageError("--weights needs --from, the class that they belong to")
    if name is None and not listed:
        raise click.UsageError("--as NAME is needed, or --list")
    from selfheal_cli.pipeline.origin import Origin, read_origin, sample_rows
    from selfheal_cli.registry.mlflow_registry import MlflowRegistry

    registry = MlflowRegistry(tracking_uri)
    origin = Origin(
        given["model"],
        given["target"],
        given["weights"],
        _init(given["init_text"]),
        allow_pickle=given["allow_pickle"],
    )
    module = read_origin(registry, origin)
    shape = _shape(given["shape"])
    sample = sample_rows(module, given["data"], given["drop"], shape, integers=given["integers"])
    if listed:
        _show_layers(module, sample, as_json=as_json)
    elif name is not None:
        _register(registry, module, sample, origin, name, at, labels, as_json=as_json)


def _register(
    registry: Any,
    module: nn.Module,
    sample: Sample,
    origin: Any,
    name: str,
    at: str,
    labels: str | None,
    *,
    as_json: bool,
) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.model.wrapping import wrap
    from selfheal_cli.pipeline.origin import base_of
    from selfheal_cli.pipeline.run import Surroundings
    from selfheal_cli.pipeline.wrapped import register_wrapped

    network = wrap(
        module, sample.rows, shape=sample.shape, dtype=sample.dtype, at=at, init=origin.init
    )
    base = base_of(network, sample, labels.split(",") if labels else None)
    around = Surroundings(registry, clock, actor())
    number = register_wrapped(network, base, name, str(origin), around)
    foreign = network.architecture.foreign or {}
    if as_json:
        output.print_json({"model": name, "version": number, "at": foreign["at"],
                           "inputs": list(sample.names), "rows": len(sample.rows)})  # fmt: skip
        return
    adapter = sum(one.numel() for one in network.adapter.parameters())
    click.echo(
        f"{name} v{number}: {origin}, adapter of {adapter:,} parameters before layer "
        f"'{foreign['at']}'; decides as the original on {len(sample.rows):,} rows, bit for bit.\n"
        f"Heal it with: selfheal run DATA --target COLUMN --model {name}"
    )


def _show_layers(module: nn.Module, sample: Sample, *, as_json: bool) -> None:
    from dataclasses import asdict

    from selfheal_cli.cli import output
    from selfheal_cli.model.wrapping import as_tensor, layers

    found = layers(module, as_tensor(sample.rows[:2], sample.shape, sample.dtype))
    if as_json:
        output.print_json([asdict(layer) for layer in found])
        return
    rows = [
        [layer.name, layer.kind, _size(layer.takes), _size(layer.gives), f"{layer.parameters:,}",
         "yes" if layer.fits else ""]
        for layer in found
    ]  # fmt: skip
    columns = ("layer", "kind", "takes", "gives", ">parameters", "adapter fits before it")
    output.make_console().print(output.make_table("Layers, in order", columns, rows))


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(("n", *(str(one) for one in shape[1:]))) if shape else "-"


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or prod(found) > 1 << 24:
        raise click.BadParameter(f"{text!r}: numbers from 1 are allowed, as in 1,8,8",
                                 param_hint="--shape")  # fmt: skip
    return found


def _init(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r}: {exc}", param_hint="--init") from exc
    if not isinstance(found, dict):
        raise click.BadParameter(f"{text!r}: an object is needed, as in {{\"width\": 64}}",
                                 param_hint="--init")  # fmt: skip
    return found
