"""A run as one HTML file that needs nothing else: folded from its log, the same bytes each time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from heapq import nsmallest
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from selfheal_cli.drift.sentences import changes_of, ranked_segments
from selfheal_cli.events.log import whole
from selfheal_cli.events.state import LATEST, RunView, SnapshotRow
from selfheal_cli.events.types import (
    AliasMoved,
    ColumnMoved,
    Diagnosed,
    HealEnded,
    HealJudged,
    HealPublished,
    HealRefuted,
    LabelsQuarantined,
    RollbackAsked,
    SegmentsDrifted,
    SegmentsRanked,
)
from selfheal_cli.records import Advice, spelled
from selfheal_cli.report import pictures
from selfheal_cli.report.recommendation import recommend
from selfheal_cli.report.summary import RunSummary
from selfheal_cli.report.verdict import WORSE, compared, telling
from selfheal_cli.scores import title_of
from selfheal_cli.visible import on_page

if TYPE_CHECKING:
    from jinja2 import Template


MODEL = "fraud"  # the commands' own default


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do. ``commands`` may be none where it is not this tool that does it."""

    title: str
    why: str
    commands: tuple[str, ...] = ()


def steps(story: RunSummary) -> list[Step]:
    """Most pressing first; never empty."""
    advised = [*_the_run(story), *_retrain(story), *_the_model(story), *_the_world(story)]
    name = _model_name(story)
    look = Step(
        "Look closer",
        "Which version serves and why, what was done to the model by whom, and each version's "
        "figures.",
        (f"selfheal champion{name}", f"selfheal history --run {_run(story)}", "selfheal ui"),
    )
    ended = "The run ended, and nothing in its log asks for a person."
    stays = f" {recommend(story.view).sentence}" if story.view.evidence.batches else ""
    calm = Step("Nothing presses", ended + stays)
    return [*(advised or [calm]), look]


def _the_run(story: RunSummary) -> Iterator[Step]:
    """Is the run itself whole?"""
    outcome = story.view.finished.outcome if story.view.finished else ""
    if outcome != "FINISHED":
        yield Step(
            "Go on with the run" if outcome else "If the run's process has died, go on with it",
            "Its recorded batches are gone through again, and the rest follows.",
            (f"selfheal run --resume {_run(story)}",),
        )
    left = sum(row.version is None for row in story.view.snapshots.values())
    if left:
        yield Step(
            "Bring what waits to the registry",
            f"{left:,} snapshots have no version yet: they are on the disk of the machine that "
            "made them.",
            (f"selfheal flush {_run(story)}",),
        )
    if story.view.held:
        yield Step(
            "Allow healing again when its reason is gone",
            "Healing was held when the log ended.",
            (f"selfheal release{_model_name(story)}",),
        )


def _the_model(story: RunSummary) -> Iterator[Step]:
    """Should something else serve?"""
    view, name = story.view, _model_name(story)
    advised = recommend(view)
    if advised.back:
        yield Step(
            "Go back to a better version",
            f"{advised.sentence} Look at the plan first; nothing moves in a dry run.",
            (f"selfheal rollback --to-best --dry-run{name}",),
        )
    told = telling(story)
    baseline = next((row for row in view.snapshots.values() if row.phase == "baseline"), None)
    if view.evidence.batches or told.tone != WORSE or told.doubt:
        return
    if baseline is not None and baseline.version is not None:
        yield Step(
            "Serve the trained version again",
            "Healing did worse than doing nothing. Look at the plan first; nothing moves in a dry "
            "run.",
            (
                f"selfheal rollback --to {baseline.version} --dry-run{name}",
                f"selfheal hold --reason 'healing did harm'{name}",
            ),
        )


def _retrain(story: RunSummary) -> Iterator[Step]:
    """What no heal can mend."""
    diagnoses = story.view.latest(Diagnosed)
    advice = diagnoses[-1].diagnosis.advice if diagnoses else None
    if advice is Advice.RETRAIN:
        yield Step(
            "Retrain on these columns",
            f"The last diagnosis (batch {diagnoses[-1].batch}) says that trees on the columns "
            "reach what the network's frozen features do not.",
        )
    if advice is Advice.GONE:
        yield Step(
            "Retrain with new features",
            f"The last diagnosis (batch {diagnoses[-1].batch}) says that the information which "
            "told the classes apart is gone; no heal brings it back.",
        )


def _the_world(story: RunSummary) -> Iterator[Step]:
    """Rules, labels and assumptions, for a person to look at."""
    view = story.view
    if view.stale:
        yield Step(
            "Look at the rules",
            f"Stale at the end: {'; '.join(view.stale)}. A rule that no longer fires as in "
            "training teaches the wrong thing.",
        )
    odd = view.latest(LabelsQuarantined)
    if odd:
        yield Step(
            "Look where the labels come from",
            f"{view.times(LabelsQuarantined):,} times their rate was out of all proportion, "
            f"last in batch {odd[-1].batch}.",
        )
    refused = view.latest(HealRefuted)
    if refused:
        yield Step(
            "Get labels, or another assumption",
            f"{view.times(HealRefuted):,} heals without labels were refused, last in batch "
            f"{refused[-1].batch}: {refused[-1].reason}",
        )
    heal = view.config.get("heal", {})
    regime = view.config.get("labels", {}).get("regime")
    healed = view.times(HealPublished) > 0
    if regime == "none" and not heal.get("assume"):
        yield Step(
            "Name an assumption, or let labels come",
            "Without labels nothing heals unless it is said what may be relied on; the assumption "
            "is tested on every window.",
            ("selfheal run --help",),
        )
    if heal.get("recipe") == "article" and healed:
        yield Step(
            "Hold the recipes against each other",
            "The article's recipe is judged on the rows it learned from, and no guard acts on it.",
            ("selfheal compare --recipes article,ensemble",),
        )


def _run(story: RunSummary) -> str:
    return (story.view.run_id or "latest")[:8]


def _model_name(story: RunSummary) -> str:
    name = story.view.model or MODEL
    return "" if name == MODEL else f" --model {shlex.quote(name)}"


PAGE = "report.html"
TEMPLATE = "page.html.j2"
MOST_LINES = LATEST  # of a table; the history has the rest
MOST_VERSIONS = 12
FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "cost")
PER_ROWS = "cost per 100 rows"
APART = (
    HealEnded,
    RollbackAsked,
    AliasMoved,
    Diagnosed,
    ColumnMoved,
    SegmentsDrifted,
    SegmentsRanked,
)  # which have tables of their own


def write_page(story: RunSummary, path: Path) -> Path:
    """Write the page; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as stream:
        stream.write(render(story))
    return path


def render(story: RunSummary) -> str:
    """The page as text."""
    view, drifts = story.view, story.drifts()
    beside = [kind for kind in view.happened if not issubclass(kind, APART)]
    end = view.finished
    return _template().render(
        story=story,
        view=view,
        told=telling(story),
        compared=compared(story),
        facts=_facts(story),
        stages=_stages((end and end.stages) or ()),
        watched=pictures.watched(story) if view.rows else None,
        drifts=pictures.drifts(story, drifts),
        all_drifts=drifts,
        accuracy=pictures.accuracy(story),
        f1=pictures.f1(story),
        lift=pictures.lift(story) if story.scores else None,
        version_chart=pictures.versions(story),
        moved=(changes := changes_of(view.latest(ColumnMoved))),
        distributions=[pictures.distribution(one) for one in changes],
        segments=_segments(view),
        diagnoses=view.latest(Diagnosed),
        outcomes=_outcomes(view),
        heals=_heals(story),
        heals_left_out=max(0, view.times(HealEnded) - MOST_LINES),
        happenings=view.latest(*beside),
        rollbacks=view.latest(RollbackAsked),
        versions=_versions(story),
        moves=list(reversed(story.moves)),
        steps=steps(story),
        departures=list(((end and end.departures) or {}).items())[:MOST_LINES],
    )


def _segments(view: RunView) -> dict[str, Any] | None:
    """Segments as they stood at the end, or as they were named so far; None where none are."""
    ranked, named = view.latest(SegmentsRanked), view.latest(SegmentsDrifted)
    if ranked:
        last = ranked[-1]
        return {"by": last.by, "reason": last.reason, "drifted": last.drifted[:MOST_LINES],
                "left_out": max(0, len(last.drifted) - MOST_LINES),
                "slices": last.slices[:MOST_LINES], "whole": last.whole,
                "unkeyed": last.unkeyed, "beyond": last.beyond}  # fmt: skip
    if named:
        drifted = ranked_segments(named)
        return {"by": named[-1].by, "slices": (),
                "reason": f"{len({one['segment'] for one in drifted})} drifted so far",
                "drifted": drifted[:MOST_LINES],
                "left_out": max(0, len(drifted) - MOST_LINES)}  # fmt: skip
    return None


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader

    rooms = Environment(
        loader=PackageLoader("selfheal_cli.report", "."),
        autoescape=True,
        finalize=on_page,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return rooms.get_template(TEMPLATE)


def _facts(story: RunSummary) -> list[tuple[str, str]]:
    """How the run was begun."""
    view = story.view
    config, started = view.config, view.started
    actor = started.actor if started else "?"
    source, labels = config.get("source", {}), config.get("labels", {})
    regime = labels.get("regime", "full")
    come = {
        "full": "with their batch",
        "delayed": f"{labels.get('delay')} batches late",
        "none": "never",
    }.get(regime, "at times of their own")
    rows = sum(row.rows for row in view.rows.values())
    facts = [
        ("Data", _data(source)),
        ("Stream", f"{rows:,} rows in {len(view.rows):,} batches"),
        ("Recipe", str(config.get("heal", {}).get("recipe", "unknown"))),
        ("Labels come", come),
        ("Rules", "; ".join(view.trained.rules if view.trained else ()) or "none"),
        ("Begun", f"{view.first[:19].replace('T', ' ')} UTC by {actor}"),
        ("Took", _duration(view)),
        ("Outcome", (view.finished.outcome if view.finished else "no end yet").lower()),
    ]
    software = started.versions if started else {}
    return [
        *facts,
        ("Software", ", ".join(f"{name} {version}" for name, version in software.items())),
    ]


def _data(source: Mapping[str, Any]) -> str:
    """A table by its name alone: the page goes to people who are not on this machine."""
    names = {"sql": "a SQL query", "stdin": "standard input"}
    kind, path = source.get("kind", "unknown"), source.get("path")
    if kind == "kafka":
        return f"Kafka topic {source['topic']}"
    return PurePath(path).name if path else names.get(kind, f"the {kind} stream")


def _duration(view: RunView) -> str:
    if not view.first:
        return "nothing"
    span = datetime.fromisoformat(view.last) - datetime.fromisoformat(view.first)
    seconds = span.total_seconds()
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _stages(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results table with the columns that something is known of."""
    names = [name for name in FIGURES if any(line.get(name) is not None for line in lines)]
    cells = [
        {
            "title": line["title"],
            "rows": line.get("rows"),
            "cells": [line.get(name) for name in names],
            "key": line["key"],
        }
        for line in lines
    ]
    return {
        "names": [PER_ROWS if name == "cost" else title_of(name) for name in names],
        "lines": cells,
    }


def _outcomes(view: RunView) -> list[dict[str, Any]]:
    """What became of heals: how often, when, and why the last time."""
    outcomes = []
    for kind, one in view.happened.items():
        first, last = one.first, one.latest[-1]
        if isinstance(first, HealEnded) and isinstance(last, HealEnded):
            told = {"times": view.times(kind), "last": last.batch, "why": last.why}
            outcomes.append({"kind": kind.kind, "batch": first.batch} | told)
    return outcomes


def _heals(story: RunSummary) -> list[dict[str, Any]]:
    """The latest heals, newest first, with what they were judged on."""
    heals = []
    for one in reversed(story.view.latest(HealEnded)):
        judged = one if isinstance(one, HealJudged) else None
        before, after = (judged.before, judged.after) if judged else (None, None)
        heals.append(
            {
                "batch": one.batch,
                "kind": one.kind,
                "why": one.why,
                "before": before.f1 if before else None,
                "after": after.f1 if after else None,
                "rows": after.rows if after else None,
                "evaluation": spelled(judged.evaluation) if judged else "",
            }
        )
    return heals


def _versions(story: RunSummary) -> list[dict[str, Any]]:
    """The baseline, what serves, and the highest F1 among healed ones."""
    serving, best = story.serving, story.view.best()
    marked = {row.id for row in (serving, best) if row is not None}

    def known() -> Iterator[SnapshotRow]:
        return (row for row in story.view.snapshots.values() if row.version is not None)

    healed = nsmallest(
        MOST_VERSIONS,
        (row for row in known() if row.phase == "post-heal" and row.f1 is not None),
        key=lambda row: (-(row.f1 or 0.0), row.version),
    )
    special = [row for row in known() if row.phase == "baseline" or row.id in marked]
    chosen = {row.id: row for row in [*special, *healed]}
    shown = list(chosen.values())[:MOST_VERSIONS]
    return [_version(story, row, serving, best) for row in shown]


def _version(
    story: RunSummary, row: SnapshotRow, serving: SnapshotRow | None, best: SnapshotRow | None
) -> dict[str, Any]:
    marks = [name for name, marked in (("serving", serving), ("best", best)) if marked == row]
    told = story.reasons.get(row.id, {})
    return {
        "version": row.version,
        "phase": row.phase,
        "batch": row.batch,
        "accuracy": row.accuracy,
        "f1": row.f1,
        "rows": row.rows,
        "marks": marks,
        "evaluation": spelled(told.get("evaluation", "")),
        "threshold": told.get("threshold"),
    }
