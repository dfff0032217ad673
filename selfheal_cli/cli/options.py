"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
RECIPES = ("article", "gradient", "anchored")  # as in the configuration, which is slow to load
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")


def checked_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A registered model's name, as click hands it in."""
    if not NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r}: letters, digits, space, '.', '_' and '-', at most 128, are allowed"
        )
    return value


tracking_uri: Decorator = click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow store. [default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]",
)
model_name: Decorator = click.option(
    "--model-name",
    default="fraud",
    show_default=True,
    callback=checked_name,
    help="Registered model.",
)
policy: Decorator = click.option(
    "--policy",
    metavar="NAME|FILE",
    default="default",
    show_default=True,
    help="Thresholds; see 'selfheal policy list'.",
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
