"""Groups that may be written as one text: ``labels: delayed:5``, ``objective: cost:5000,15``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selfheal_cli.config import LabelSettings, checked
from selfheal_cli.decide.objective import parse_objective
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.monitor.monitors.parse import parse_monitor
from selfheal_cli.settings.layer import Key, Layer, Origin

REGIMES = ("full", "none", "timed")


def labels_from(value: Any, where: str = "labels") -> Any:
    """``full``, ``delayed:K`` or ``none`` as keys; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    regime, _, delay = value.partition(":")
    if regime == "delayed" and delay:
        values = {"regime": regime, "delay": delay}
        found = checked(LabelSettings, values, where=f"{where} {value}")
        return {"regime": regime, "delay": found.delay} if found.delay else {"regime": "full"}
    if delay or value not in REGIMES:
        raise ConfigurationError(
            f"{where} {value!r}: full, delayed:K or none is allowed, K in batches"
        )
    return {"regime": regime}


def objective_from(value: Any, where: str = "objective") -> Any:
    """``accuracy``, ``f1`` or ``cost:FN,FP`` as keys; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    return parse_objective(value, where).model_dump(exclude_unset=True)


def monitor_from(value: Any, where: str = "monitor") -> Any:
    """``NAME[:KEY=VALUE,...]`` as keys; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    return parse_monitor(value, where).model_dump(exclude_unset=True, mode="json")


def policy_from(value: Any, where: str = "policy") -> Any:
    """A name or file as keys; anything but a text as it is."""
    return {"base": value} if isinstance(value, str) else value


FORMS: dict[str, Callable[[Any, str], Any]] = {
    "labels": labels_from,
    "objective": objective_from,
    "policy": policy_from,
}


def expanded(layer: Layer) -> Layer:
    """The layer with its short forms as keys, so that layers merge key by key.

    Raises `ConfigurationError` naming origin and key.
    """
    values, origins = dict(layer.values), dict(layer.origins)
    for name, parse in FORMS.items():
        if isinstance(values.get(name), str):
            values[name] = _parsed(parse, values[name], layer.origin((name,)), (name,))
            for inner in values[name]:
                origins[name, inner] = layer.origin((name,))
    monitors = values.get("monitors")
    if isinstance(monitors, list):
        values["monitors"] = [
            _parsed(monitor_from, one, layer.origin(("monitors", place)), ("monitors", place))
            for place, one in enumerate(monitors)
        ]
    return Layer(values, origins)


def _parsed(parse: Callable[[Any, str], Any], value: Any, origin: Origin, key: Key) -> Any:
    named = origin.kind == "option"
    found = parse(value, origin.name if named else f"{origin}: {key[0]}")
    return dict(found) if isinstance(found, Mapping) else found
