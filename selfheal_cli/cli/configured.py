"""What stands before a command begins: option > environment > ``selfheal.yaml`` > default."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from selfheal_cli.cli.command import CONFIG, MODEL_NAME, NO_CONFIG, SET, Command, note_old
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal_cli.config import Policy
    from selfheal_cli.settings.layers import Key, Layer
    from selfheal_cli.settings.resolve import ResolvedSettings

FALLBACK = "fraud"
MOST_NAMED = 20
STORE = "MLFLOW_TRACKING_URI"
UNLIKE = {"label_only_when": ("labels", "only_when"),
          "heal_steps": ("heal", "steps"), "heal_lr": ("heal", "learning_rate"),
          "heal_mode": ("heal", "mode"), "kafka_group": ("source", "group"),
          "kafka_config": ("source", "client"),
          "missing_values": ("source", "missing_values"),
          "segment_by": ("segments", "by")}  # fmt: skip
ROWS = ("data", "sql", "query", "kafka", "own")  # options that say where rows come from
# of which one says where rows are
WHERE = {"data": "DATA", "sql": "--sql", "kafka": "--kafka", "own": "--source"}
SAYS_MODEL = (("model_name",), ("model",), ("source", "path"), ("source", "topic"))
# variables up to 0.2, one for each option of `run` and `compare`
OLD_VARIABLES = (
    "data", "target", "positive", "drop", "categorical", "separator", "train_fraction", "time",
    "label_time", "rule", "sql", "query", "kafka", "topic", "label_topic", "key", "kafka_group",
    "kafka_config", "train", "train_rows", "max_wait", "max_rejects", "reject_misfits", "recipe",
    "assume", "heal_steps", "heal_lr", "heal_mode", "drift_strength", "thresholds",
    "fidi_threshold", "conflict_min", "rollback_f1_drop", "monitor", "record_rows", "no_plots",
    "no_wait", "resume", "json", "recipes", "seeds", "river", "plot",
)  # fmt: skip
RENAMED = {"rules": "rule", "monitors": "monitor", "as_json": "json"}
OLD_DATA = "SELFHEAL_DATA"


class Lines(click.types.StringParamType):
    """A text; in a variable, of an option that is repeatable, one on each line."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """The lines that are not blank."""
        return [line.strip() for line in rv.splitlines() if line.strip()]


class ConfiguredCommand(Command):
    """A command that makes a run's configuration: its options set keys of the file."""

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        for param in self.params:
            name = RENAMED.get(str(param.name), str(param.name))
            if name in OLD_VARIABLES:
                param.envvar = f"SELFHEAL_{name.upper()}"
            if isinstance(param, click.Option) and param.multiple:
                param.type = Lines()

    def nearest(self, option: str) -> list[str]:
        """An option, or the key that it may mean."""
        from selfheal_cli.settings.layers import dotted
        from selfheal_cli.settings.schema import every_key

        name = option.lstrip("-").replace("-", "_")
        keys = [dotted(key) for key in every_key() if name in (key[-1], "_".join(map(str, key)))]
        return [f"--set {key}=VALUE" for key in keys] or super().nearest(option)


def config_path(ctx: click.Context) -> Path | None:
    """The file that counts: --config, else selfheal.yaml here if there is one; or none."""
    from selfheal_cli.settings.variables import NAME

    named, none = ctx.meta.get(CONFIG), ctx.meta.get(NO_CONFIG)
    if named is not None and none:
        raise click.UsageError("--config and --no-config exclude each other")
    if named is not None:
        return Path(named)
    return NAME if NAME.exists() and not none else None


def file_layer(ctx: click.Context) -> Layer:
    """What the file says; nothing where there is none."""
    from selfheal_cli.settings.layers import Layer
    from selfheal_cli.settings.sources import read_file

    path = config_path(ctx)
    return Layer() if path is None else read_file(path)


def settle_here(ctx: click.Context, fixed: Mapping[str, Any] | None = None) -> ResolvedSettings:
    """The configuration that holds for a command; ``fixed`` is what it sets itself."""
    from selfheal_cli.settings.layers import Layer
    from selfheal_cli.settings.resolve import resolve

    return resolve([file_layer(ctx), _variables(ctx), *_options(ctx), Layer(fixed or {})])


def policy_here(ctx: click.Context, named: str | None) -> Policy:
    """The thresholds that hold for a command with --policy alone."""
    from selfheal_cli.settings import policy_file
    from selfheal_cli.settings.layers import Layer
    from selfheal_cli.settings.resolve import resolve

    if named is not None:
        return policy_file.load(named)
    layers = [file_layer(ctx), _variables(ctx)]
    only = [Layer({k: v for k, v in one.values.items() if k == "policy"}, one.origins)
            for one in layers]  # fmt: skip
    return resolve(only).config.policy


def default_model_name(ctx: click.Context) -> str | None:
    """The model that variables or the file are about; None where they name none."""
    from selfheal_cli.settings.variables import variable_of

    names = [variable_of(key) for key in SAYS_MODEL]
    if config_path(ctx) is None and not any(map(os.environ.get, (*names, OLD_DATA))):
        return None
    from selfheal_cli.settings.layers import Origin, merge, model_name_of, shown, single
    from selfheal_cli.settings.sources import read_environment

    said = [read_environment({name: os.environ.get(name, "") for name in names})]
    if os.environ.get(OLD_DATA):
        key = ("source", "path")
        note_old(ctx, OLD_DATA, variable_of(key))
        said.append(single(key, os.environ[OLD_DATA], Origin("env", OLD_DATA)))
    layer = merge([file_layer(ctx), *said])
    name = model_name_of(layer)
    if name is not None and not MODEL_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{layer.origin(('model_name',))}: model_name = {shown(name)!r}: letters, digits, "
            "space, '.', '_' and '-', at most 128, are allowed"
        )
    return name


def only_model(store: str | None) -> str:
    """Where nobody named a model: the article's, if it is there, else the one that a store holds.

    Raises `VersionNotFound` that lists them where there are several.
    """
    from selfheal_cli.errors import NoStore, VersionNotFound
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    try:
        names = MlflowRegistry(store).models()
    except NoStore:  # the command says so itself
        return FALLBACK
    if FALLBACK in names or not names:
        return FALLBACK
    if len(names) > 1:
        shown = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
        raise VersionNotFound(f"which of {len(names)} registered models? Give --model: {shown}")
    return names[0]


def default_store(ctx: click.Context) -> str | None:
    """That of --set, of a variable of ours, of MLflow's, which is None, of the file: the first."""
    from selfheal_cli.settings.variables import variable_of

    name = variable_of(("tracking_uri",))
    said = bool(ctx.meta.get(SET) or os.environ.get(name))
    if not said and (os.environ.get(STORE) or config_path(ctx) is None):
        return None
    from selfheal_cli.settings.sources import read_environment, read_settings

    variable = read_environment({name: os.environ.get(name, "")})
    for layer in (read_settings(ctx.meta.get(SET, ())), variable, None, file_layer(ctx)):
        if layer is None:
            if os.environ.get(STORE):
                return None
            continue
        uri = layer.get("tracking_uri")
        if isinstance(uri, str):
            return uri
        if uri is not None:
            where = layer.origin(("tracking_uri",))
            raise ConfigurationError(f"{where}: tracking_uri: expected text")
    return None


@contextmanager
def naming_the_file(settled: ResolvedSettings | None) -> Iterator[None]:
    """Add to an error where in the file the values stand that it quotes."""
    from selfheal_cli.settings.resolve import quoted_in

    try:
        yield
    except ConfigurationError as exc:
        places = quoted_in(str(exc), settled) if settled is not None else []
        if not places:
            raise
        raise type(exc)(f"{exc} [set in {', '.join(places)}]") from exc


def _options(ctx: click.Context) -> tuple[Layer, Layer]:
    """What variables of before and what the command line give as options."""
    from selfheal_cli.settings.layers import beside
    from selfheal_cli.settings.sources import read_settings

    given: dict[Any, dict[str, Layer]] = {ParameterSource.ENVIRONMENT: {},
                                          ParameterSource.COMMANDLINE: {}}  # fmt: skip
    for param in ctx.command.params:
        name = str(param.name)
        source = ctx.get_parameter_source(name)
        if source in given and name in ctx.params:
            given[source][name] = _given(ctx, param, source is ParameterSource.ENVIRONMENT)
    for layers in given.values():
        refuse_two(layers)
    before, now = (list(layers.values()) for layers in given.values())
    return beside(before), beside([*now, read_settings(ctx.meta.get(SET, ()))])


def _given(ctx: click.Context, param: click.Parameter, variable: bool) -> Layer:
    """What an option says by key; an old spelling of it is noted."""
    from selfheal_cli.settings.layers import Layer, Origin, beside, leaves, single
    from selfheal_cli.settings.schema import expanded
    from selfheal_cli.settings.variables import variable_of

    option = max(param.opts, key=len) if isinstance(param, click.Option) else "DATA"
    origin = Origin("env", str(param.envvar)) if variable else Origin("option", option)
    name, key = str(param.name), key_of(str(param.name))
    values = [] if key is None else list(_values(name, key, ctx.params[name]))
    layer = beside([expanded(single(inner, value, origin)) for inner, value in values])
    if variable:
        named = [variable_of(inner) for inner, _ in values if inner[-1] != "kind"]
        named = ["SELFHEAL_PLOTS=no"] if name == "no_plots" else named
        note_old(ctx, origin.name, " and ".join(named) or option)
    elif isinstance(param, click.Option) and param.hidden:
        note_old(ctx, origin.name, " ".join(_as_set(*pair) for pair in leaves(layer.values)))
    return layer if values else Layer()


def _as_set(key: Key, value: Any) -> str:
    from selfheal_cli.settings.layers import dotted, shown
    from selfheal_cli.settings.reference import flow

    return f"--set {shlex.quote(f'{dotted(key)}={shown(flow(value))}')}"


def key_of(name: str) -> Key | None:
    """Where an option of a run belongs in the file; None where it sets nothing."""
    from selfheal_cli.settings.schema import group_of

    if name in (*ROWS, "no_plots"):
        return (name,)
    return UNLIKE.get(name) or group_of(name)


def _values(name: str, key: Key, value: Any) -> Iterator[tuple[Key, Any]]:
    if name in ROWS:
        for inner, part in as_keys(name, value).items():
            yield ("source", inner), part
    elif name == "no_plots":
        yield ("plots",), not value
    elif isinstance(value, tuple):
        yield key, list(value)
    else:
        yield key, value


def _variables(ctx: click.Context) -> Layer:
    """What variables give that name keys of the file."""
    from selfheal_cli.settings.sources import RULES, read_environment
    from selfheal_cli.settings.variables import variable_of

    others = {f"SELFHEAL_{name.upper()}" for name in (*OLD_VARIABLES, "config", "no_config")}
    layer = read_environment(os.environ, others)
    if layer.origin(("rules_file",)).name == RULES:
        note_old(ctx, RULES, variable_of(("rules_file",)))
    return layer


def as_keys(name: str, value: Any) -> dict[str, Any]:
    """What an option that says where rows come from means for the source, by key."""
    from selfheal_cli.settings.address import source_at

    if name == "sql":
        return {"kind": "sql", "url": value}
    if name == "kafka":
        return {"kind": "kafka", "bootstrap": value}
    if name == "own":
        provider, _, said = value.partition(":")
        return {"kind": "own", "provider": provider} | (
            {"options": said.split(",")} if said else {}
        )
    if name == "query":
        return {"query": query_text(value)}
    return source_at(value)


def refuse_two(given: Collection[str]) -> None:
    """Raise click's usage error where more than one option says where rows come from."""
    named = [shown for name, shown in WHERE.items() if name in given]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")


def query_text(text: str) -> str:
    """The query itself, or the content of the file that is named."""
    from selfheal_cli.errors import DataError

    if any(letter.isspace() for letter in text):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(
            f"--query {text}: neither a query nor a file that can be read ({type(exc).__name__})"
        ) from exc
