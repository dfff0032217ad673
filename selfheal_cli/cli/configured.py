"""What stands before a command begins: option > environment > ``selfheal.yaml`` > default."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from selfheal_cli.cli.options import CONFIG, NO_CONFIG
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal_cli.config import Policy
    from selfheal_cli.settings.layers import Key, Layer
    from selfheal_cli.settings.resolve import ResolvedSettings


FALLBACK = "fraud"
STORE = "MLFLOW_TRACKING_URI"
UNLIKE = {"heal_steps": ("heal", "steps"), "heal_lr": ("heal", "learning_rate"),
          "heal_mode": ("heal", "mode"), "kafka_group": ("source", "group"),
          "kafka_config": ("source", "client")}  # fmt: skip
ROWS = ("data", "sql", "query", "kafka")  # options that say where rows come from
SAYS_MODEL = {"SELFHEAL_DATA": ("source", "path"), "SELFHEAL_MODEL": ("model",)}


class Lines(click.types.StringParamType):
    """A text; in a variable, of an option that is repeatable, one on each line."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """The lines that are not blank."""
        return [line.strip() for line in rv.splitlines() if line.strip()]


class ConfiguredCommand(click.Command):
    """A command whose every option has a variable: ``--batch-size`` is SELFHEAL_BATCH_SIZE."""

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        for param in self.params:
            if param.envvar is None:
                param.envvar = variable_of(param)
            if isinstance(param, click.Option):
                param.show_envvar = True
                if param.multiple:
                    param.type = Lines()


def variable_of(param: click.Parameter) -> str:
    """The environment variable of an option or argument."""
    name = max(param.opts, key=len).lstrip("-")
    return f"SELFHEAL_{name.replace('-', '_').upper()}"


def config_path(ctx: click.Context) -> Path | None:
    """The file that counts: --config, else selfheal.yaml here if there is one; or none."""
    from selfheal_cli.settings.sources import NAME

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

    environment, options = _given(ctx)
    layers = [file_layer(ctx), _variables(), environment, options]
    return resolve([*layers, Layer(fixed or {})])


def policy_here(ctx: click.Context, named: str | None) -> Policy:
    """The thresholds that hold for a command with --policy alone."""
    from selfheal_cli.settings import policy_file
    from selfheal_cli.settings.layers import Layer
    from selfheal_cli.settings.resolve import resolve

    if named is not None:
        return policy_file.load(named)
    layers = [file_layer(ctx), _variables()]
    only = [Layer({k: v for k, v in one.values.items() if k == "policy"}, one.origins)
            for one in layers]  # fmt: skip
    return resolve(only).config.policy


def default_model_name(ctx: click.Context) -> str:
    """The model that the file is about, else the article's."""
    from selfheal_cli.settings.layers import Origin, merge, model_name_of, single

    said = [single(key, os.environ[name], Origin("env", name))
            for name, key in SAYS_MODEL.items() if os.environ.get(name)]  # fmt: skip
    return model_name_of(merge([file_layer(ctx), *said])) or FALLBACK


def default_store(ctx: click.Context) -> str | None:
    """The file's store, unless MLflow's own variable names one."""
    if os.environ.get(STORE):
        return None
    layer = file_layer(ctx)
    store = layer.get("tracking_uri")
    if store is not None and not isinstance(store, str):
        raise ConfigurationError(f"{layer.origin(('tracking_uri',))}: tracking_uri: expected text")
    return store


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


def _given(ctx: click.Context) -> tuple[Layer, Layer]:
    """What variables and what the command line give as options."""
    from selfheal_cli.settings.layers import Origin, merge, single

    by_source: dict[Any, list[Layer]] = {ParameterSource.ENVIRONMENT: [],
                                     ParameterSource.COMMANDLINE: []}  # fmt: skip
    named: dict[Any, list[str]] = {source: [] for source in by_source}
    for param in ctx.command.params:
        name = str(param.name)
        source = ctx.get_parameter_source(name)
        key = key_of(name)
        if source not in by_source or key is None or name not in ctx.params:
            continue
        environment = source is ParameterSource.ENVIRONMENT
        shown = max(param.opts, key=len) if isinstance(param, click.Option) else "DATA"
        origin = Origin("env", str(param.envvar)) if environment else Origin("option", shown)
        for inner, value in _values(name, key, ctx.params[name]):
            by_source[source].append(single(inner, value, origin))
        named[source].append(name)
    for names in named.values():
        refuse_two(names)
    return merge(_together(by_source[ParameterSource.ENVIRONMENT])), merge(
        _together(by_source[ParameterSource.COMMANDLINE])
    )


def _together(layers: list[Layer]) -> list[Layer]:
    """--rules and --rule of one origin are one list, which neither takes from the other."""
    from selfheal_cli.settings.layers import TOGETHER, Layer

    both = [one for one in layers if set(one.values) & set(TOGETHER)]
    rest = [one for one in layers if not set(one.values) & set(TOGETHER)]
    values = {name: value for one in both for name, value in one.values.items()}
    origins = {key: origin for one in both for key, origin in one.origins.items()}
    return [*rest, Layer(values, origins)]


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


def _variables() -> Layer:
    """What variables give that name keys of the file."""
    from selfheal_cli.cli.compare import command as compare
    from selfheal_cli.cli.run import command as run
    from selfheal_cli.settings.sources import read_environment

    names = {str(param.envvar) for one in (run, compare) for param in one.params}
    return read_environment(os.environ, names)


STDIN = Path("-")


WHERE = {"data": "DATA", "sql": "--sql", "kafka": "--kafka"}  # of which one says where rows are


def as_keys(name: str, value: Any) -> dict[str, Any]:
    """What an option that says where rows come from means for the source, by key."""
    if name == "sql":
        return {"kind": "sql", "url": value}
    if name == "kafka":
        return {"kind": "kafka", "bootstrap": value}
    if name == "query":
        return {"query": _query(value)}
    return _of_data(value)


def refuse_two(given: Collection[str]) -> None:
    """Raise click's usage error where more than one option says where rows come from."""
    named = [shown for name, shown in WHERE.items() if name in given]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")


def _of_data(data: Path) -> dict[str, Any]:
    from selfheal_cli.config_sources import NDJSON_SUFFIXES

    if data == STDIN:
        return {"kind": "stdin"}
    if data.is_dir():
        return {"kind": "folder", "path": data}
    kind = "ndjson" if data.suffix.lower() in NDJSON_SUFFIXES else "table"
    return {"kind": kind, "path": data}


def _query(text: str) -> str:
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
