"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
RECIPES = ("article", "gradient", "anchored")  # as in the configuration, which is slow to load
CONFIG, NO_CONFIG = "selfheal.config", "selfheal.no_config"  # in click's context
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")


def group(*parts: Decorator) -> Decorator:
    """Several options as one decorator, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for part in reversed(parts):
            command = part(command)
        return command

    return decorate


def _checked_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        if ctx.resilient_parsing:
            return None
        from selfheal_cli.cli.standing import default_model_name

        return default_model_name(ctx)
    return checked_name(ctx, param, value)


def checked_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A registered model's name, as click hands it in."""
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: letters, digits, space, '.', '_' and '-', at most 128, are allowed"
        )
    return value


def _store(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None or ctx.resilient_parsing:
        return value
    from selfheal_cli.cli.standing import default_store

    return default_store(ctx)


def _allow(names: tuple[str, ...]) -> None:
    from selfheal_cli.model.allowed import allow

    allow(names)


# The file that the other options stand over; read by `selfheal_cli.cli.standing`.
config_file: Decorator = group(
    click.option(
        "--config",
        metavar="FILE",
        envvar="SELFHEAL_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(CONFIG, value),
        help="Configuration to use. [default: selfheal.yaml, if it is there]",
    ),
    click.option(
        "--no-config",
        is_flag=True,
        envvar="SELFHEAL_NO_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(NO_CONFIG, value),
        help="Leave selfheal.yaml alone.",
    ),
)
tracking_uri: Decorator = group(
    click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="SELFHEAL_TRACKING_URI",
        callback=_store,
        help="MLflow store. [default: MLFLOW_TRACKING_URI, else selfheal.yaml's, else "
        "sqlite:///mlflow.db]",
    ),
    config_file,
)
allow_module: Decorator = click.option(
    "--allow-module",
    "allow_module",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=lambda ctx, param, value: _allow(value),
    help="Python module whose classes a wrapped model may name, beside those that were wrapped "
    "here; repeatable.",
)
model_name: Decorator = click.option(
    "--model-name",
    envvar="SELFHEAL_MODEL_NAME",
    callback=_checked_name,
    help="Registered model. [default: selfheal.yaml's, else fraud]",
)
policy: Decorator = click.option(
    "--policy",
    metavar="NAME|FILE",
    envvar="SELFHEAL_POLICY",
    help="Thresholds; see 'selfheal policy list'. [default: selfheal.yaml's, else default]",
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
