"""``selfheal compare``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from selfheal_cli.cli import configured as standing
from selfheal_cli.cli import options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.command import section
from selfheal_cli.cli.inject_screen import subject_of
from selfheal_cli.cli.part_choice import PartOption, require_all
from selfheal_cli.cli.say import say
from selfheal_cli.cli.series_screen import show_series, versions_among
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.kinds import INJECTIONS, OWN_PEERS, PEERS, RECIPES, RIVER_PEERS
from selfheal_cli.scores import title_of

if TYPE_CHECKING:
    from selfheal_cli.config import RunConfig
    from selfheal_cli.pipeline.offline.baselines import MakePeer
    from selfheal_cli.pipeline.offline.compare import ComparisonRow, Result
    from selfheal_cli.pipeline.offline.refitted import RefitSchedule
    from selfheal_cli.pipeline.offline.winner import Ranking
    from selfheal_cli.settings.resolve import ResolvedSettings
    from selfheal_cli.sources.base import Source

BEHIND = "behind"
RARE = 0.05  # share of positives below which few alarms are what counts
# by objective, what is shown of a contestant
FIRST = {
    "accuracy": ("accuracy", BEHIND, "f1", "roc_auc", "log_loss"),
    "f1": ("f1", BEHIND, "pr_auc", "recall_at_1pct_fp", "roc_auc"),
    "cost": ("cost", BEHIND, "pr_auc", "recall_at_1pct_fp", "roc_auc"),
}
MORE = ("seconds", "accuracy", "f1_half", "f1", "kappa", "roc_auc", "pr_auc", "recall_at_1pct_fp",
        "log_loss", "ece", "processor_seconds", "memory_mb", "rows_per_second",
        "rows_per_second_whole")  # fmt: skip


@click.command("compare", cls=standing.ConfiguredCommand, old={"--plot": "--output"})
@run_options.data
@section(
    "What is compared",
    click.option(
        "--recipes",
        cls=PartOption,
        part="recipe",
        metavar="NAME,NAME",
        default=",".join(RECIPES),
        show_default=True,
        help="Recipes to compare; or article-v1..v7, the article's earlier versions as they were.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(1, 1_000),
        default=1,
        show_default=True,
        help="Networks (and synthetic streams) to take the mean of.",
    ),
    click.option(
        "--peers",
        metavar="NAME,NAME",
        help=f"What people would do instead: {', '.join(PEERS)}; all or none. [default: "
        f"{','.join(OWN_PEERS)} of own data, else none]",
    ),
    click.option(
        "--refit-every",
        type=click.IntRange(1, 1_000_000),
        default=10,
        show_default=True,
        metavar="BATCHES",
        help="When refitted peers are fitted again.",
    ),
    click.option(
        "--refit-rows",
        metavar="ROWS|all",
        default="10000",
        show_default=True,
        help="On how many of the latest labelled rows.",
    ),
    click.option(
        "--river",
        is_flag=True,
        help="Also three online learners of river; slow; needs selfheal-cli[compare].",
    ),
    click.option(
        "--inject",
        multiple=True,
        metavar="KIND,KIND",
        help="Compare nobody: put a change into your rows at several dates, and say whether your "
        f"monitors notice it, when, and whether healing pays: {', '.join(INJECTIONS)}; or all.",
    ),
    click.option(
        "--dates",
        type=click.IntRange(10, 1_000),
        default=10,
        show_default=True,
        help="At how many dates, for --inject.",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(1, 256),
        default=1,
        show_default=True,
        help="Processes; the figures are the same, times are of busier cores.",
    ),
    click.option(
        "--backend",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Whose processes: this machine's, or those of the Ray cluster that RAY_ADDRESS names; "
        "needs selfheal-cli[ray].",
    ),
)
@run_options.learning
@run_options.stream
@section(
    run_options.KEPT,
    click.option(
        "--output",
        "plot",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("comparison.png"),
        show_default=True,
        help="File for the picture.",
    ),
)
@options.settings
@options.tracking_uri
@options.quiet
@options.wide
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    recipes: str,
    seeds: int,
    peers: str | None,
    refit_every: int,
    refit_rows: str,
    river: bool,
    inject: tuple[str, ...],
    dates: int,
    jobs: int,
    backend: str,
    plot: Path,
    tracking_uri: str | None,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Send the same stream through each recipe, through peers, and through no heal at all.

    Everyone predicts a batch before its labels come, then learns. F1 is at a threshold that each
    sets by its own last 1,000 probabilities; accuracy is at 0.5. Who is ahead is said with the
    interval of the difference on the same rows, or over the streams of a generator. The comparison
    is kept in MLflow as one run with a child run for each contestant.
    """
    with _working_on(backend, jobs):
        chosen = [name.strip() for name in recipes.split(",") if name.strip()]
        versions = versions_among(chosen)
        if versions:
            _require_own_stream(ctx)
            show_series(versions, jobs, quiet=quiet, as_json=as_json)
            return
        require_all("recipe", chosen or [recipes], "--recipes")
        if inject:
            from selfheal_cli.cli.inject_screen import inject_and_show, kinds_named

            kinds, recipe = kinds_named(inject), _one_recipe(ctx, chosen)
            settled = _settle(
                ctx, {"plots": False, **({"heal": {"recipe": recipe}} if recipe else {})}
            )
            inject_and_show(settled, kinds, dates, jobs, plot, tracking_uri, quiet, as_json)
            return
        named, refit = _peers(peers, river), _refit(refit_every, refit_rows)
        usual = ctx.get_parameter_source("recipes") is ParameterSource.DEFAULT
        _compare(
            _settle(ctx), chosen, usual, named, refit, seeds, jobs, plot, tracking_uri, quiet,
            as_json,
        )  # fmt: skip


def _working_on(backend: str, jobs: int) -> AbstractContextManager[None]:
    """Within the block, whose processes compute."""
    if backend == "local":
        return nullcontext()
    from selfheal_cli.engine.jobs import jobs_on_cluster

    return jobs_on_cluster(jobs)


def _require_own_stream(ctx: click.Context) -> None:
    """Raise `OptionError` where rows were given, on the command line or in a file."""
    from selfheal_cli.errors import OptionError

    if _settle(ctx).config.source.kind != "synthetic":
        raise OptionError(
            "the article's versions run on streams of their own: leave FILE out (--no-config)"
        )


def _compare(
    settled: ResolvedSettings, chosen: list[str], usual: bool, named: tuple[str, ...] | None,
    refit: RefitSchedule, seeds: int, jobs: int, plot: Path, tracking_uri: str | None,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compare, show and keep it; of the ``usual`` recipes those that can tell the classes apart."""
    from selfheal_cli.pipeline.offline.contest import contest

    with standing.naming_the_file(settled):
        config, make_source, why = contest(settled)
    loud = not (quiet or as_json)
    if why and loud:
        say(f"{why[0].upper()}{why[1:]}.", err=True)
    from selfheal_cli.cli import output
    from selfheal_cli.heal.recipe import KINDS
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.offline.compare import compare, contestants, ranking, summarise
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    classes = len(make_source(config.seed).labels)
    if usual:
        chosen = [name for name in chosen if (KINDS[name].classes or classes) >= classes]
    makers = _makers(named, config, refit, classes, loud=loud)
    use_one_thread()
    registry = MlflowRegistry(tracking_uri, create=True)
    wanted = range(config.seed, config.seed + seeds)
    entries = len(contestants(config, chosen, makers, classes)) * seeds
    with output.counting("comparing", entries, quiet=not loud) as show:
        results = compare(
            config, make_source, chosen, makers, wanted,
            lambda result: show(f"seed {result.seed}: {result.title}"), jobs,
        )  # fmt: skip
    lines, order = summarise(results), ranking(results, config)
    limit = _limit(make_source(config.seed))
    picture = _draw(results, lines, limit, config, plot)
    run_id = _log(registry, config, lines, picture)
    if as_json:
        output.print_json(_document(run_id, results, lines, order, limit, plot))
        return
    _show(lines, order, seeds)
    say(str(order))
    if config.segments.by is not None:
        say(_of_segments(lines, chosen, config.segments.by))
    say(f"Picture in {plot}; in MLflow: run {run_id} with {len(lines)} child runs.")


def _one_recipe(ctx: click.Context, chosen: list[str]) -> str | None:
    """The recipe that was asked for, None where nobody asked; more than one is a usage error."""
    for name in ("peers", "river", "seeds", "refit_every", "refit_rows"):
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} does not go with --inject: nobody is compared")
    if ctx.get_parameter_source("recipes") is ParameterSource.DEFAULT:
        return None
    if len(chosen) > 1:
        raise click.BadParameter("--inject is for one recipe", param_hint="--recipes")
    return chosen[0]


def _peers(given: str | None, river: bool) -> tuple[str, ...] | None:
    """The peers that were asked for by name; None where nothing was said."""
    names = [name.strip() for name in (given or "").split(",") if name.strip()]
    if given is not None and names not in (["all"], ["none"]):
        unknown = next((name for name in names if name not in PEERS), None if names else given)
        if unknown is not None:
            raise click.BadParameter(
                f"there is no peer {unknown!r}; known: {', '.join(PEERS)}, all, none",
                param_hint="--peers",
            )
    names = {"all": [*PEERS], "none": []}.get(given or "", names)
    if river:
        own = OWN_PEERS if given is None else ()
        return (*own, *dict.fromkeys((*names, *RIVER_PEERS)))
    return None if given is None else tuple(dict.fromkeys(names))


def _refit(every: int, rows: str) -> RefitSchedule:
    from selfheal_cli.pipeline.offline.refitted import RefitSchedule

    if rows == "all":
        return RefitSchedule(every, None)
    if not (rows.isascii() and rows.isdigit() and int(rows)):
        raise click.BadParameter(
            f"{rows!r}: a number of rows from 1 on is allowed, or all", param_hint="--refit-rows"
        )
    return RefitSchedule(every, int(rows))


def _makers(
    named: tuple[str, ...] | None,
    config: RunConfig,
    refit: RefitSchedule,
    classes: int,
    *,
    loud: bool,
) -> dict[str, MakePeer]:
    """Makers of peers; of those that nobody named the missing ones are left out, and told."""
    from selfheal_cli.pipeline.offline.peers import (
        KINDS,
        missing_peers,
        peers_named,
        require_peers,
    )

    own = OWN_PEERS if config.source.kind != "synthetic" else ()
    if named is None:
        lacking = missing_peers(own)
        for name, lacks in lacking.items():
            if loud:
                say(f"Without {name}: {lacks}.", err=True)
        named = tuple(name for name in own if name not in lacking)
    if set(named) == set(PEERS):  # all, so far as they can tell the classes apart
        named = tuple(name for name in named if classes == 2 or not KINDS[name].binary)
    require_peers(named, classes)
    return peers_named(named, config.network, refit)


def _settle(ctx: click.Context, fixed: dict[str, Any] | None = None) -> ResolvedSettings:
    """What holds; each recipe is put in its place later, and a network is trained for each."""
    from selfheal_cli.pipeline.offline.contest import FIXED

    settled = standing.settle_here(ctx, FIXED if fixed is None else fixed)
    if settled.config.model is not None:
        raise ConfigurationError(
            f"{settled.origin(('model',))}: model: 'selfheal compare' trains a network of its own "
            "and cannot hold a wrapped one: give --no-config, or a file without it"
        )
    return settled


def _limit(source: Source) -> dict[str, float]:
    from dataclasses import asdict

    limit = source.limit()
    return {} if limit is None else asdict(limit)


def _show(lines: list[ComparisonRow], order: Ranking, seeds: int) -> None:
    from selfheal_cli.cli import output

    first = FIRST[order.figure]
    if "recall_at_1pct_fp" not in first and _rare(lines):
        first = (*first[:-1], "recall_at_1pct_fp")
    more = [name for name in MORE if name not in first and any(name in one.mean for one in lines)]
    rows = [[line.title, *(_cell(line, name, order) for name in (*first, *more))] for line in lines]
    title = f"Comparison on {lines[0].rows:,} rows, {output.counted(seeds, 'seed')}"
    columns = ("", *(f">{title_of(name)}" for name in first),
               *(f"+>{title_of(name)}" for name in more))  # fmt: skip
    output.print_table(title, columns, rows)


def _of_segments(lines: list[ComparisonRow], recipes: list[str], by: str) -> str:
    """What each recipe's run watched; peers watch nothing."""
    from selfheal_cli.pipeline.stream.memory import NAMED

    told = [f"{one.title} {one.mean.get(NAMED, 0.0):g}" for one in lines if one.title in recipes]
    return f"Segments by {by} that were named as drifted, mean over the seeds: {', '.join(told)}."


def _rare(lines: list[ComparisonRow]) -> bool:
    """Whether fewer than one row in twenty is positive, by who flags nothing."""
    from selfheal_cli.pipeline.offline.compare import NOTHING

    nothing = [line for line in lines if line.title == NOTHING]
    return any(line.mean["accuracy"] > 1 - RARE for line in nothing)


def _cell(line: ComparisonRow, name: str, order: Ranking) -> str:
    from selfheal_cli.pipeline.offline.compare import BLIND

    digits = 1 if name == "cost" else 0 if name.startswith("rows_") else 3
    if name == BEHIND:
        return order.behind(line.title)
    blind = name.startswith("rows_") and line.title in BLIND  # the speed of no model tells nothing
    if name not in line.mean or blind:
        return "-"
    spread = line.spread[name]
    text = f"{line.mean[name]:,.{digits}f}"
    return text if spread is None or digits == 1 else f"{text} ±{spread:.{digits}f}"


def _draw(
    results: list[Result],
    lines: list[ComparisonRow],
    limit: dict[str, float],
    config: RunConfig,
    path: Path,
) -> Path:
    from selfheal_cli.pipeline.offline.compare import COMMONEST, NOTHING
    from selfheal_cli.report.comparison import draw_comparison

    curves = {
        line.title: [
            sum(batch) / len(batch)
            for batch in zip(
                *(one.by_batch for one in results if one.title == line.title), strict=True
            )
        ]
        for line in lines
        if line.title not in (NOTHING, COMMONEST)
    }
    bars = {
        name: {line.title: line.mean.get(name, 0.0) for line in lines}
        for name in ("accuracy", "f1", "roc_auc")
    }
    title = f"{subject_of(config)}, labels {config.labels}"
    return draw_comparison(curves, bars, limit, title, path)


def _log(registry: Any, config: RunConfig, lines: list[ComparisonRow], picture: Path) -> str:
    from selfheal_cli.actor import clock
    from selfheal_cli.registry.base import StepMetrics

    at_ms = round(clock().timestamp() * 1000)
    tags = {"mlflow.runName": "comparison", "selfheal.kind": "comparison"}
    run_id: str = registry.begin_run(config.experiment, config.parameters(), tags)
    for line in lines:
        child = {"mlflow.parentRunId": run_id, "mlflow.runName": line.title}
        one = registry.begin_run(config.experiment, {"contestant": line.title}, tags | child)
        spread = {f"{name}_sd": v for name, v in line.spread.items() if v is not None}
        figures = StepMetrics(0, {**line.mean, **spread}, at_ms)
        registry.log_metrics(one, [figures])
        registry.end_run(one, "FINISHED", {})
    registry.log_files(run_id, [picture])
    registry.end_run(run_id, "FINISHED", {})
    return run_id


def _document(
    run_id: str,
    results: list[Result],
    lines: list[ComparisonRow],
    order: Ranking,
    limit: dict[str, float],
    plot: Path,
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run_id": run_id,
        "lines": [asdict(line) for line in lines],
        "results": [
            {name: value for name, value in asdict(result).items() if name != "parts"}
            for result in results
        ],
        "ranking": asdict(order) | {"winner": order.winner, "sentence": str(order)},
        "limit": limit or None,
        "plot": str(plot),
    }
