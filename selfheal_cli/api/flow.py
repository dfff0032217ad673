"""The command line's flow in a program: wrap, run, compare, learn rules. Nothing is printed, and
no file or variable of settings is read but those that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from selfheal_cli.actor import actor, clock
from selfheal_cli.api.intake import shown
from selfheal_cli.api.own import named_monitors, named_rules
from selfheal_cli.api.report import Report, report_of
from selfheal_cli.errors import OptionError
from selfheal_cli.installed import name_of
from selfheal_cli.kinds import OWN_PEERS
from selfheal_cli.model.adapters import REFLEXIVE
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.cutting import AUTO
from selfheal_cli.model.threads import threads_as_before
from selfheal_cli.model.wrapping import wrap as wrap_module
from selfheal_cli.pipeline.offline import compare as offline
from selfheal_cli.pipeline.offline.baselines import MakePeer
from selfheal_cli.pipeline.offline.contest import FIXED, contest
from selfheal_cli.pipeline.offline.peers import missing_peers, peers_named
from selfheal_cli.pipeline.offline.refitted import RefitSchedule
from selfheal_cli.pipeline.offline.winner import Ranking
from selfheal_cli.pipeline.prepare.foreign import base_of
from selfheal_cli.pipeline.prepare.objective import by_the_data
from selfheal_cli.pipeline.prepare.rows import open_new
from selfheal_cli.pipeline.prepare.wrapped import find_wrapped, for_wrapped
from selfheal_cli.pipeline.record.recorder import Watcher
from selfheal_cli.pipeline.runs.run import RunContext
from selfheal_cli.pipeline.runs.run import run as run_all
from selfheal_cli.pipeline.runs.wrap import Placed, add_wrapped, require_name
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rules.search import Suggestion
from selfheal_cli.rules.search import suggest_rules as search
from selfheal_cli.scores import title_of
from selfheal_cli.settings.address import source_at
from selfheal_cli.settings.layers import Layer, Origin, beside, single
from selfheal_cli.settings.resolve import ResolvedSettings, resolve
from selfheal_cli.settings.schema import expanded, group_of
from selfheal_cli.sources.own import SourcePart
from selfheal_cli.sources.table import read_whole
from selfheal_cli.workspace import WORKSPACE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

TABLES = WORKSPACE / "tables"  # DataFrames that were given, by their content


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """Who did how well on the same stream: a row a contestant, and who is ahead beyond chance."""

    rows: tuple[offline.ComparisonRow, ...]
    ranking: Ranking
    results: tuple[offline.Result, ...]

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.rows)}: {self.ranking}>"

    def _repr_html_(self) -> str:
        names = [name for name in ("accuracy", "f1", "roc_auc") if name in self.rows[0].mean]
        head = "".join(f"<th>{escape(title_of(name))}</th>" for name in names)
        lines = "".join(
            f"<tr><th>{escape(one.title)}</th>"
            + "".join(f"<td>{one.mean.get(name, float('nan')):.3f}</td>" for name in names)
            + f"<td>{one.rows:,}</td></tr>"
            for one in self.rows
        )
        table = f"<table><tr><th></th>{head}<th>rows</th></tr>{lines}</table>"
        return f"{table}<p>{escape(str(self.ranking))}</p>"


def run(
    data: str | Path | pd.DataFrame | SourcePart | None = None,
    *,
    target: str | None = None,
    wrapped: str | None = None,
    watch: Watcher | None = None,
    settings: Mapping[str, Any] | None = None,
    tracking_uri: str | None = None,
    **options: Any,
) -> Report:
    """`selfheal run`: train on the first rows, or heal what was ``wrapped``; stream the rest.

    ``options`` are those of the command by their names in a configuration (``batch_size``,
    ``recipe``, ``drop``, ...), ``settings`` whole groups of one. A DataFrame is kept here. Parts of
    the program's own, ``data`` that is a source among them, are taken as they are.
    ``watch`` is shown each event. Raises `SelfhealError` kinds.
    """
    settled = _settled(data, {"target": target, "model": wrapped, **options}, settings)
    with threads_as_before():
        config = settled.config
        if wrapped is not None:
            known = find_wrapped(MlflowRegistry(tracking_uri), wrapped)
            config = for_wrapped(config, known, settled.given.get("model_name"))
        config, source = open_new(config)
        config, _ = by_the_data(settled, config, source)
        registry = MlflowRegistry(tracking_uri, create=True)
        around = RunContext(registry, clock, actor(), watchers=[watch] if watch else [])
        return report_of(run_all(config, source, around).run_id)


def compare(
    data: str | Path | pd.DataFrame | SourcePart | None = None,
    *,
    target: str | None = None,
    recipes: Sequence[Any] = ("ensemble", "anchored", "gradient"),
    seeds: int = 1,
    peers: Mapping[str, MakePeer] | None = None,
    on_result: Callable[[offline.Result], None] = lambda result: None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> ComparisonTable:
    """`selfheal compare`: the same stream through each recipe, ``peers``, and no heal at all.

    Without ``peers`` own data go through boosted trees and refitted logistic regression as well.
    Nothing is registered. ``options`` as for `run`.
    """
    settled = _settled(data, {"target": target, **options}, settings, FIXED)
    if peers is None:
        wanted = () if settled.config.source.kind == "synthetic" else OWN_PEERS
        here = [name for name in wanted if name not in missing_peers(wanted)]
        peers = peers_named(here, settled.config.network, RefitSchedule())
    with threads_as_before():
        config, make_source, _ = contest(settled)
        seeded = range(config.seed, config.seed + seeds)
        results = offline.compare(
            config, make_source, [name_of("recipe", one) for one in recipes], dict(peers or {}),
            seeded, on_result,
        )  # fmt: skip
    order = offline.ranking(results, config)
    return ComparisonTable(tuple(offline.summarise(results)), order, tuple(results))


def suggest_rules(
    data: str | Path | pd.DataFrame, *, target: str, limit: int = 5, depth: int = 3,
    held_out: float = 0.3, **columns: Any,
) -> tuple[Suggestion, ...]:  # fmt: skip
    """`selfheal rules suggest`: short rules that hold on later rows too, with their figures.

    ``columns`` are ``positive``, ``separator``, ``drop`` and ``categorical``.
    """
    table = read_whole(_path(data), target=target, **columns)
    return search(
        table.columns, table.numeric, table.text, table.y, max_rules=limit, depth=depth,
        held_out=held_out,
    )  # fmt: skip


def wrap(
    module: nn.Module,
    x: ArrayLike,
    *,
    name: str,
    columns: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    at: str = AUTO,
    adapter: str = REFLEXIVE,
    init: Mapping[str, Any] | None = None,
    output: str = ANY_OUTPUT,
    promote: bool = False,
    tracking_uri: str | None = None,
) -> Placed:
    """`selfheal wrap`: register a module with an adapter in it, as a baseline to heal.

    ``x`` (n, ...) are rows as it takes them. Raises `ModelError` where it cannot be wrapped.
    """
    require_name(name)
    _, sample = shown(x, columns)
    network = wrap_module(
        module, sample.rows, shape=sample.shape, dtype=sample.dtype, at=at, adapter=adapter,
        init=init, output=output,
    )  # fmt: skip
    base = base_of(network, sample, labels)
    around = RunContext(MlflowRegistry(tracking_uri, create=True), clock, actor())
    origin = type(module).__qualname__
    return add_wrapped(network, base, name, origin, around, promote=promote)


# options that take parts of the program's own
NAMED: Mapping[str, Callable[[Any], Any]] = {
    "recipe": partial(name_of, "recipe"),
    "rules": lambda rules: list(named_rules(rules)),
    "monitors": lambda monitors: [str(one) for one in named_monitors(monitors)],
}


def _settled(
    data: str | Path | pd.DataFrame | SourcePart | None, options: Mapping[str, Any],
    settings: Mapping[str, Any] | None, fixed: Mapping[str, Any] | None = None,
) -> ResolvedSettings:  # fmt: skip
    layers = [Layer(settings or {})]
    if callable(data):
        data, own = None, {"kind": "own", "provider": name_of("source", data)}
        layers += [single(("source", key), value, Origin("option", "data"))
                   for key, value in own.items()]  # fmt: skip
    if data is not None:
        layers += [
            single(("source", name), value, Origin("option", "data"))
            for name, value in source_at(_path(data)).items()
        ]
    for name, value in options.items():
        key = group_of(name)
        if key is None:
            raise OptionError(f"{name}: no such setting; docs/configuration.md lists them")
        if value is not None:
            named = NAMED[name](value) if name in NAMED else value
            layers.append(expanded(single(key, named, Origin("option", name))))
    return resolve([beside(layers), Layer(fixed or {})])


def _path(data: str | Path | pd.DataFrame) -> Path:
    """A file; of a DataFrame one that is made of it."""
    if not isinstance(data, pd.DataFrame):
        return Path(data)
    TABLES.mkdir(parents=True, exist_ok=True)
    content = data.to_parquet(index=False)
    path = TABLES / f"{sha256(content).hexdigest()[:16]}.parquet"
    if not path.exists():
        path.write_bytes(content)
    return path
