"""What ``selfheal compare --inject`` shows of changes put into a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import configured as standing
from selfheal_cli.cli.say import say
from selfheal_cli.errors import ConfigurationError, OptionError
from selfheal_cli.kinds import INJECTIONS, UNCHANGED
from selfheal_cli.scores import title_of

if TYPE_CHECKING:
    from selfheal_cli.config import RunConfig
    from selfheal_cli.pipeline.offline.injecting import Injection, InjectionRow
    from selfheal_cli.settings.resolve import ResolvedSettings


def kinds_named(given: Sequence[str]) -> tuple[str, ...]:
    """The kinds of ``--inject``; click's usage error lists all where there is none of a name."""
    names = [name.strip() for one in given for name in one.split(",") if name.strip()]
    if names == ["all"]:
        return INJECTIONS
    unknown = next(
        (name for name in names if name not in INJECTIONS), None if names else ",".join(given)
    )
    if unknown is not None:
        raise click.BadParameter(
            f"there is no change {unknown!r}; known: {', '.join(INJECTIONS)}, all",
            param_hint="--inject",
        )
    return tuple(dict.fromkeys(names))


def inject_and_show(
    settled: ResolvedSettings, kinds: tuple[str, ...], dates: int, jobs: int, plot: Path,
    tracking_uri: str | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """``selfheal compare --inject``."""
    from selfheal_cli.cli import output
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.offline.contest import contest
    from selfheal_cli.pipeline.offline.injecting import dates_of, inject
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.report.injections import draw_injections

    require_injectable(settled.config)
    with standing.naming_the_file(settled):
        config, make_source, _ = contest(settled)
    use_one_thread()
    source = make_source(config.seed)
    dates_of(source, config, dates)
    registry = MlflowRegistry(tracking_uri, create=True)
    with output.counting("injecting", len(kinds) + 2, quiet=quiet or as_json) as on_done:
        tried = inject(config, source, kinds, dates, on_done, jobs)
    picture = draw_injections(
        {row.kind: [one.lag for one in row.dates] for row in tried.rows},
        {row.kind: (row.gain.mean, row.gain.low, row.gain.high) for row in tried.rows},
        tried.length, title_of(tried.figure),
        f"{subject_of(config)}, {dates} dates, recipe {config.heal.recipe}", plot,
    )  # fmt: skip
    run_id = _log(registry, config, tried, picture)
    if as_json:
        output.print_json(document(tried, config.heal.recipe, run_id, plot))
        return
    show(tried, config.heal.recipe)
    say(f"Picture in {plot}; in MLflow: run {run_id}.")


def _log(registry: Any, config: RunConfig, tried: Injection, picture: Path) -> str:
    from selfheal_cli.actor import clock
    from selfheal_cli.registry.base import StepMetrics

    tags = {"mlflow.runName": "injection", "selfheal.kind": "injection"}
    run_id: str = registry.begin_run(config.experiment, config.parameters(), tags)
    figures = {"alarms_per_1000": tried.untouched.per_thousand()}
    for row in tried.rows:
        figures |= {f"{row.kind}.share_found": row.share, f"{row.kind}.gain": row.gain.mean}
        figures |= {} if row.lag is None else {f"{row.kind}.median_lag": row.lag}
    at_ms = round(clock().timestamp() * 1000)
    registry.log_metrics(run_id, [StepMetrics(0, figures, at_ms)])
    registry.log_files(run_id, [picture])
    registry.end_run(run_id, "FINISHED", {})
    return run_id


def subject_of(config: RunConfig) -> str:
    """What a picture calls the rows."""
    if config.source.kind in ("table", "folder", "ndjson"):
        return config.source.path.name
    if config.source.kind == "synthetic":
        return f"synthetic stream, drift {config.source.drift_strength:g}"
    return ""


def require_injectable(config: RunConfig) -> None:
    """Raise a `ConfigurationError` where there is no table, or nothing that could notice."""
    if config.source.kind == "synthetic":
        raise OptionError("--inject puts changes into rows of yours: give a file")
    if not config.monitors:
        raise ConfigurationError(
            "--inject asks whether monitors notice a change, and 'monitors' is empty: name one"
        )


def document(tried: Injection, recipe: str, run_id: str, plot: Path) -> dict[str, Any]:
    """Everything, for ``--json``."""
    return {
        "run_id": run_id,
        "recipe": recipe,
        "figure": tried.figure,
        "batches_changed": tried.length,
        "batch_size": tried.batch_size,
        "untouched": {
            "batches": tried.untouched.batches,
            "alarms": dict(tried.untouched.alarms),
            "alarms_per_1000": tried.untouched.per_thousand(),
        },
        "kinds": [
            {**_kind(row), "beyond_no_change": asdict(row.gain_beyond(tried.beside))}
            for row in tried.rows
        ],
        "without": _kind(tried.beside),
        "plot": str(plot),
    }


def _kind(row: InjectionRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "dates": len(row.dates),
        "share_found": row.share,
        "median_lag": row.lag,
        "found_by": row.by,
        "gain": row.gain.mean,
        "low": row.gain.low,
        "high": row.gain.high,
        "by_date": [
            {"batch": one.date, "lag": one.lag, "lags": dict(one.lags), "healed": one.healed,
             "frozen": one.frozen}
            for one in row.dates
        ],
    }  # fmt: skip


def show(tried: Injection, recipe: str) -> None:
    """The table, and what follows from it in words."""
    from selfheal_cli.cli import output

    dates = len(tried.rows[0].dates)
    title = (
        f"Changes put in at {dates} dates, each for {tried.length} batches of "
        f"{tried.batch_size:,} rows, recipe {recipe}"
    )
    figure = title_of(tried.figure)
    columns = ("", ">found", ">lag", "by", f">{figure}: healed - frozen", "+>frozen", "+>healed")
    output.print_table(
        title, columns, [_cells(row, tried.figure) for row in (tried.beside, *tried.rows)]
    )
    alone = tried.untouched
    each = ", ".join(f"{name} {alone.per_thousand(name):.1f}" for name in alone.alarms)
    say(
        f"Without a change {sum(alone.alarms.values())} alarms began in {alone.batches:,} batches, "
        f"{alone.per_thousand():.1f} in 1,000{f' ({each})' if each else ''}.",
        *_sentences(tried),
    )


def _cells(row: InjectionRow, figure: str) -> list[str]:
    digits = 1 if figure == "cost" else 3
    frozen, healed = (
        sum(values) / len(values)
        for values in zip(*((one.frozen, one.healed) for one in row.dates), strict=True)
    )
    noticed = sum(one.lag is not None for one in row.dates)
    return [
        row.kind,
        f"{noticed} of {len(row.dates)}" if row.kind != UNCHANGED else "-",
        "-" if row.lag is None else f"{row.lag:g}",
        ", ".join(f"{name.partition(':')[0]} {count}" for name, count in row.by.items()) or "-",
        f"{row.gain.mean:+.{digits}f} ({row.gain.low:.{digits}f} to {row.gain.high:.{digits}f})",
        f"{frozen:,.{digits}f}",
        f"{healed:,.{digits}f}",
    ]


def _sentences(tried: Injection) -> list[str]:
    """Where healing paid, where it cost, and where nobody can say; what the rows would have gained
    without the change is not the change's.
    """
    alone = tried.beside.gain
    beyond = {row.kind: row.gain_beyond(tried.beside) for row in tried.rows}
    if alone.low <= 0 <= alone.high:
        words = (
            "Healing would have paid",
            "Healing would have cost",
            "No difference beyond chance",
        )
        told = []
    else:
        words = ("More with", "Less with", "No more and no less, beyond chance, with")
        told = [
            f"Healing {'pays' if alone.low > 0 else 'costs'} on these rows without any change: "
            f"{alone.mean:+.3g} ({alone.low:.3g} to {alone.high:.3g})."
        ]
    kinds = (
        [kind for kind, gain in beyond.items() if gain.low > 0],
        [kind for kind, gain in beyond.items() if gain.high < 0],
        [kind for kind, gain in beyond.items() if gain.low <= 0 <= gain.high],
        [row.kind for row in tried.rows if row.share < 0.5],
    )
    named = zip((*words, "Not noticed at half of the dates"), kinds, strict=True)
    return [*told, *(f"{word}: {', '.join(which)}." for word, which in named if which)]
