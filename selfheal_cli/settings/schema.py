"""What ``selfheal.yaml`` may hold: `RunConfig` with short forms, and its JSON schema.

The shape is made from `RunConfig`, so that a new setting or kind of source is in the file, in the
schema and in docs/configuration.md without being named here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, create_model

from selfheal_cli.config import (
    LabelSettings,
    MonitorSettings,
    Objective,
    Policy,
    PushedSettings,
    RunConfig,
    ServedSettings,
    Settings,
    checked,
)
from selfheal_cli.decide import parse_objective
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.settings.layers import Key, Layer, Origin

REGIMES = ("full", "none", "timed")


def labels_from(value: Any, where: str = "labels") -> Any:
    """``full``, ``delayed:K`` or ``none`` as keys; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    regime, _, delay = value.partition(":")
    if regime == "delayed" and delay:
        values = {"regime": regime, "delay": delay}
        labels = checked(LabelSettings, values, where=f"{where} {value}")
        return {"regime": regime, "delay": labels.delay} if labels.delay else {"regime": "full"}
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
    from selfheal_cli.drift.kinds import parse_monitor  # it loads scipy

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
    parsed = parse(value, origin.name if named else f"{origin}: {key[0]}")
    return dict(parsed) if isinstance(parsed, Mapping) else parsed


DIALECT = "https://json-schema.org/draft/2020-12/schema"


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes that an annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


# each kind of source that a file can name; rows that a program pushes or a server answers are not
# there to be opened
KINDS: dict[str, type[BaseModel]] = {
    model.model_fields["kind"].default: model
    for model in models_in(RunConfig.model_fields["source"].annotation)
    if model not in (PushedSettings, ServedSettings)
}
SYNTHETIC = "synthetic"

PolicyChoice: type[Policy] = create_model(
    "PolicyChoice",
    __base__=Policy,
    __doc__="A policy by name or file, and single thresholds put over it.",
    base=(str, Field(default="default", description="name or file; see 'selfheal policy list'")),
    thresholds=(
        Path | None,
        Field(default=None, description="an exported threshold_config.json, put over base"),
    ),
)


def _short(model: Any, parse: Any) -> Any:
    """The class, or the text that is short for it."""
    return Annotated[model, BeforeValidator(partial(parse), json_schema_input_type=str | model)]


def _like_the_run(name: str) -> Any:
    """Default and description as in `RunConfig`."""
    field = RunConfig.model_fields[name]
    return Field(default=field.default, description=field.description)


_FIELDS: dict[str, Any] = {
    "source": (
        Annotated[Union[tuple(KINDS.values())], Field(discriminator="kind")],  # noqa: UP007
        _like_the_run("source"),
    ),
    "policy": (
        _short(PolicyChoice, policy_from),
        Field(default=PolicyChoice(), description="thresholds of operations: NAME, FILE or keys"),
    ),
    "labels": (_short(LabelSettings, labels_from), _like_the_run("labels")),
    "objective": (_short(Objective, objective_from), _like_the_run("objective")),
    "monitors": (
        tuple.__class_getitem__((_short(MonitorSettings, monitor_from), ...)),
        _like_the_run("monitors"),
    ),
    "rules_file": (
        Path | None,
        Field(default=None, description="YAML file of named rules, before those of rules"),
    ),
    "tracking_uri": (
        str | None,
        Field(default=None, description="MLflow store, unless MLFLOW_TRACKING_URI names one"),
    ),
}
RunFile: type[RunConfig] = create_model(
    "RunFile",
    __base__=RunConfig,
    __doc__="What 'selfheal run' is told; docs/configuration.md explains it.",
    **_FIELDS,
)


def json_schema() -> dict[str, Any]:
    """For editors: every key with its description, type, limits and default."""
    schema = RunFile.model_json_schema()
    return {"$schema": DIALECT, "title": "selfheal.yaml", **schema} | {"title": "selfheal.yaml"}


def fields_of(model: type[BaseModel], kind: str | None, key: Key) -> tuple[str, ...]:
    """The keys that a group may have; empty where there is no such group."""
    for part in key:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return ()
        if model is RunFile and part == "source":
            models: list[type[BaseModel]] = [KINDS[kind]] if kind in KINDS else []
        else:
            models = list(models_in(field.annotation))
        if not models:
            return ()
        model = models[0]
    return tuple(model.model_fields)


def every_key() -> Iterator[Key]:
    """Each key that may be given by itself, of all kinds of source."""
    for name in RunFile.model_fields:
        if name == "source":
            of_any = dict.fromkeys(key for model in KINDS.values() for key in model.model_fields)
            yield from (("source", key) for key in of_any)
        else:
            yield from _keys_of(RunFile, (name,))


def _keys_of(model: type[BaseModel], key: Key) -> Iterator[Key]:
    annotation = model.model_fields[str(key[-1])].annotation
    inner = () if get_origin(annotation) is tuple else tuple(models_in(annotation))
    if not inner:
        yield key
    for name in inner[0].model_fields if inner else ():
        yield from _keys_of(inner[0], (*key, name))


def group_of(name: str) -> Key | None:
    """Where an option of this name belongs in the file; None where it is no setting.

    >>> group_of("target"), group_of("assume"), group_of("resume")
    (('source', 'target'), ('heal', 'assume'), None)
    """
    if name in RunFile.model_fields:
        return (name,)
    for group in ("heal", "policy", "network", "labels"):
        for model in models_in(RunFile.model_fields[group].annotation):
            if name in model.model_fields:
                return group, name
    if any(name in model.model_fields for model in KINDS.values()):
        return "source", name
    return None


def settings_of(group: str) -> type[Settings]:
    """The class of a group of the file."""
    return next(
        m for m in models_in(RunFile.model_fields[group].annotation) if issubclass(m, Settings)
    )


def schema_text() -> str:
    """The JSON schema as a file; of values it speaks as YAML does."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False).replace("None:", "null:") + "\n"
