"""A version that a person wants tried beside the champion: fetched, checked, put together."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.errors import ConfigurationError, RegistryUnreachable, SelfhealError, one_line
from selfheal_cli.heal.engine import Serving
from selfheal_cli.heal.task import AdapterState
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.pipeline.prepare.wrapped import WRAPPED
from selfheal_cli.records import AliasMove, Phase
from selfheal_cli.registry.base import BASELINE, CHAMPION, Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.encoding import TEXTS, Encoding


@dataclass(frozen=True, slots=True)
class TriedNetwork:
    """A version as it scores. On another base than the champion's, ``base`` is its id, and its
    inputs are what ``encoding`` makes of a row's columns; else it shares the champion's features.
    ``along`` are the aliases that go with the champion's where this becomes it: those of a network
    as it was trained, none of one that was healed.
    """

    served: Serving
    version: int
    base: str = ""
    encoding: Encoding | None = None
    along: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderedCanary:
    """What a person wants ``tried``, by a ``move`` of the canary's alias; ``error`` says why it
    cannot be: then nothing is.
    """

    move: AliasMove
    tried: TriedNetwork | None = None
    error: str = ""


def ordered(registry: Registry, move: AliasMove, base: str) -> OrderedCanary:
    """What is to be tried beside a champion on this ``base``. Raises `RegistryUnreachable`."""
    try:
        if registry.alias(move.model, CHAMPION) == move.target:
            return OrderedCanary(move, error=f"v{move.target} is the champion")
        return OrderedCanary(move, load_tried(registry, move.model, move.target, base))
    except RegistryUnreachable:
        raise
    except (SelfhealError, RuntimeError) as exc:
        return OrderedCanary(move, error=f"v{move.target} cannot be tried: {one_line(exc)}")


def load_tried(registry: Registry, model: str, number: int, base: str) -> TriedNetwork:
    """A version, checked; raises `SelfhealError` kinds where it cannot stand beside what is on this
    ``base``.
    """
    version = registry.version(model, number)
    weights = load_verified(registry, version)
    own = registry.base(version.base)
    network = assemble(own, weights, where=f"{model} v{number}")
    snapshot = version.tags["selfheal.snapshot"]
    served = Serving(network, AdapterState(weights, {}), snapshot, version.threshold)
    if version.base == base:
        return TriedNetwork(served, number)
    encoding, serving = encoding_of(own), registry.base(base)
    _require_alike(tuple(own.describe()["labels"]), tuple(serving.describe()["labels"]))
    _require_readable(encoding, encoding_of(serving))
    wrapped = (WRAPPED,) if version.tags["selfheal.recipe"] == WRAPPED else ()
    along = (*wrapped, BASELINE) if version.phase is Phase.BASELINE else ()
    return TriedNetwork(served, number, version.base, encoding, along)


def _require_alike(own: tuple[str, ...], serving: tuple[str, ...]) -> None:
    if own != serving:
        raise ConfigurationError(
            f"it tells apart {', '.join(own)}, and the champion {', '.join(serving)}: give the "
            "same names in the same order, with --classes, when it is wrapped"
        )


def _require_readable(own: Encoding, serving: Encoding) -> None:
    """A column that both read is kept once, as the champion reads it."""
    kinds = {column.name: column.kind in TEXTS for column in serving.columns}
    for column in own.columns:
        text = column.kind in TEXTS
        if kinds.get(column.name, text) != text:
            raise ConfigurationError(
                f"column '{column.name}' is a {'text' if text else 'number'} for it and a "
                f"{'number' if text else 'text'} for the champion: both read a row's columns alike "
                "while it is tried; 'selfheal rollback --to' makes it the champion at once"
            )
