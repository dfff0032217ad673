"""What ``selfheal compare --recipes article-v1..v7`` shows: the article's series side by side."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli.say import say
from selfheal_cli.kinds import VERSIONS

if TYPE_CHECKING:
    from selfheal_cli.pipeline.offline.series import VersionResult
    from selfheal_cli.scores import Scores

RANGE = re.compile(r"article-v(\d+)\.\.(?:article-)?v?(\d+)")
BESIDE = (
    "No model can beat accuracy 0.850, which is flagging nothing, nor F1 0.295 at drift 2.2.",
    "The series' own table says 17.0 % for v1, 58.9 % for v2 (0 of 15 healed) and 78.3 % for v3 "
    "(20 of 20): these programs do not give that, and v3's line there is v7's.",
)


def versions_among(recipes: list[str]) -> list[str]:
    """The versions of the series that were asked for; empty where there are none.

    ``article-v1..v7`` is a range. Raises click's usage error for versions that there are not, and
    for recipes beside them.
    """
    names: list[str] = []
    for name in recipes:
        span = RANGE.fullmatch(name)
        first, last = (int(part) for part in span.groups()) if span else (1, 0)
        names += [f"article-v{number}" for number in range(first, last + 1)] if span else [name]
    if not any(name.startswith("article-v") for name in names):
        return []
    other = next((name for name in names if name not in (*VERSIONS, "article")), None)
    if other is not None:
        raise click.BadParameter(
            f"{other!r}: {VERSIONS[0]} to {VERSIONS[-1]} and article stand side by side, and "
            "nothing else beside them",
            param_hint="--recipes",
        )
    return [name for name in dict.fromkeys(names) if name != "article"]


def show_series(names: list[str], jobs: int, *, quiet: bool, as_json: bool) -> None:
    """Run them, the article last, and show them."""
    from selfheal_cli.cli import output
    from selfheal_cli.model.threads import use_one_thread
    from selfheal_cli.pipeline.offline.jobs import side_by_side
    from selfheal_cli.pipeline.offline.series import run_version

    use_one_thread()
    results = []
    with output.counting("the series", len(names) + 1, quiet=quiet or as_json) as done:
        for result in side_by_side(jobs, run_version, [(name,) for name in (*names, "article")]):
            results.append(result)
            done(result.name)
    if as_json:
        output.print_json({"versions": [_document(one) for one in results], "beside": BESIDE})
        return
    columns = ("", ">clean", ">F1", ">unhealed", ">F1", ">healed", ">recall", ">F1", ">heals",
               "+>precision", "+>TP", "+>TN", "+>FP", "+>FN")  # fmt: skip
    title = "The article's series: accuracy and F1, clean and on 1,000 drifted rows"
    output.print_table(title, columns, [_cells(one) for one in results])
    say(*BESIDE)


def _cells(result: VersionResult) -> list[str]:
    clean, unhealed, healed = result.clean, result.unhealed, result.healed
    figures = (clean.accuracy, clean.f1, unhealed.accuracy, unhealed.f1, healed.accuracy)
    return [
        result.name,
        *(f"{value:.3f}" for value in figures),
        f"{healed.recall:.4f}",
        f"{healed.f1:.4f}",
        f"{result.heals} of {len(result.batches)}",
        f"{healed.precision:.4f}",
        *(str(count) for count in (healed.tp, healed.tn, healed.fp, healed.fn)),
    ]


def _document(result: VersionResult) -> dict[str, Any]:
    stages = {"clean": result.clean, "unhealed": result.unhealed, "healed": result.healed}
    return {
        "name": result.name,
        **{name: _figures(scores) for name, scores in stages.items()},
        "heals": result.heals,
        "batches": [asdict(batch) for batch in result.batches],
    }


def _figures(scores: Scores) -> dict[str, float]:
    names = ("accuracy", "precision", "recall", "f1", "tp", "tn", "fp", "fn")
    return {name: getattr(scores, name) for name in names}
