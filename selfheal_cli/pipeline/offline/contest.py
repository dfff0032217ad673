"""What contestants are compared on: a configuration, and the rows of each seed."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_cli.config import RunConfig, SyntheticSettings
from selfheal_cli.config_sources import UnboundedSettings
from selfheal_cli.errors import OptionError
from selfheal_cli.model.tree_library import why_no_trees
from selfheal_cli.pipeline.prepare.objective import by_the_data
from selfheal_cli.pipeline.prepare.rows import open_new, open_source
from selfheal_cli.settings.resolve import ResolvedSettings
from selfheal_cli.sources.base import Source

# what a comparison is never asked for; each recipe is put in its place later
FIXED = {"heal": {"recipe": "article"}, "plots": False, "monitors": []}
SEPARATE_ROWS = 20_000  # that everyone is judged on at the end of a synthetic stream


def contest(settled: ResolvedSettings) -> tuple[RunConfig, Callable[[int], Source], str]:
    """The configuration, a maker of the source by seed, and what was decided by the data.

    Raises `OptionError` for rows that can be read once.
    """
    config = settled.config
    if isinstance(config.source, SyntheticSettings):
        fresh = {"fresh": True, "test_rows": SEPARATE_ROWS}
        config = config.model_copy(update={"source": config.source.model_copy(update=fresh)})

        def synthetic(seed: int) -> Source:
            return open_source(config.model_copy(update={"seed": seed}))

        return config, synthetic, ""
    if isinstance(config.source, UnboundedSettings):
        raise OptionError("compare reads rows more than once: give a file, not -")
    config, table = open_new(config)
    if settled.origin(("heal", "trees")).kind == "default":  # those of ensemble, if it is asked for
        heal = config.heal.model_copy(update={"trees": not why_no_trees()})
        config = config.model_copy(update={"heal": heal})
    config, why = by_the_data(settled, config, table)
    return config, lambda seed: table, why
