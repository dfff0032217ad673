"""Parts of other packages that a run is made with, as its record names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import OwnSettings
from selfheal_cli.installed import part_of
from selfheal_cli.kinds import BUILT_IN, PartKind
from selfheal_cli.rules.conditions import own_conditions
from selfheal_cli.rules.ruleset import parse_rule


def own_parts(config: RunConfig, adapter: str) -> list[Mapping[str, str]]:
    """Each part that is not built in, once, in the order of the settings."""
    used = dict.fromkeys([*_named(config), ("adapter", adapter.partition(":")[0])])
    return [part_of(kind, name).as_dict() for kind, name in used if name not in BUILT_IN[kind]]


def _named(config: RunConfig) -> Iterator[tuple[PartKind, str]]:
    if isinstance(config.source, OwnSettings):
        yield "source", config.source.provider
    yield "recipe", config.heal.recipe
    for monitor in config.monitors:
        yield "monitor", monitor.name
    for rule in config.rules:
        for name in own_conditions(parse_rule(rule).condition):
            yield "rule", name
