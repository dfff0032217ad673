"""A run as one HTML file that needs nothing else: folded from its log, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from heapq import nsmallest
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from selfheal_cli.history.events import Kind
from selfheal_cli.history.writable import whole
from selfheal_cli.report import pictures
from selfheal_cli.report.advice import steps
from selfheal_cli.report.fold import LATEST, Action, RunView, SnapshotRow
from selfheal_cli.report.story import Story
from selfheal_cli.report.telling import NOT_SERVED, compared, telling
from selfheal_cli.visible import on_page

if TYPE_CHECKING:
    from jinja2 import Template

PAGE = "report.html"
TEMPLATE = "page.html.j2"
MOST_LINES = LATEST  # of a table; the history has the rest
MOST_VERSIONS = 12
FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "cost")
TITLES = {"f1": "F1", "roc_auc": "ROC AUC", "log_loss": "log loss", "cost": "cost per 100 rows"}
LEARNING = {Kind.HEAL.value, *(kind.value for kind in NOT_SERVED)}
BACK = {Kind.ROLLBACK.value, Kind.ROLLBACK_FAILED.value, Kind.ROLLBACK_DECLINED.value}
APART = LEARNING | BACK | {Kind.ALIAS_MOVED.value, Kind.DIAGNOSIS.value}
WHY = ("error", "declined", "rejected", "sentence", "reason")  # the first that there is


def write_page(story: Story, path: Path) -> Path:
    """Write the page; it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as stream:
        stream.write(render(story))
    return path


def render(story: Story) -> str:
    """The page as text."""
    view, drifts = story.view, story.drifts()
    beside = [kind for kind in view.happened if kind not in APART]
    return _template().render(
        story=story,
        view=view,
        told=telling(story),
        compared=compared(story),
        facts=_facts(story),
        stages=_stages(view.finished.get("stages", [])),
        watched=pictures.watched(story) if view.rows else None,
        drifts=pictures.drifts(story, drifts),
        all_drifts=drifts,
        accuracy=pictures.accuracy(story),
        f1=pictures.f1(story),
        lift=pictures.lift(story) if story.scores else None,
        version_chart=pictures.versions(story),
        diagnoses=_lines(view.latest(Kind.DIAGNOSIS)),
        outcomes=_outcomes(view),
        heals=_heals(story),
        heals_left_out=max(0, view.times(*LEARNING) - MOST_LINES),
        happenings=_lines(view.latest(*beside)),
        rollbacks=_lines(view.latest(*BACK)),
        versions=_versions(story),
        moves=list(reversed(story.moves)),
        steps=steps(story),
        departures=list(view.finished.get("departures", {}).items())[:MOST_LINES],
    )


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


def _facts(story: Story) -> list[tuple[str, str]]:
    """How the run was begun."""
    view = story.view
    config: Mapping[str, Any] = view.started.get("config", {})
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
        ("Rules", "; ".join(view.trained.get("rules", [])) or "none"),
        ("Begun", f"{story.first[:19].replace('T', ' ')} UTC by {view.started.get('actor', '?')}"),
        ("Took", _duration(story)),
        ("Outcome", str(view.finished.get("outcome", "no end yet")).lower()),
    ]
    software = view.started.get("versions", {})
    return [*facts, ("Software", ", ".join(f"{name} {found}" for name, found in software.items()))]


def _data(source: Mapping[str, Any]) -> str:
    """A table by its name alone: the page goes to people who are not on this machine."""
    names = {"sql": "a SQL query", "stdin": "standard input"}
    kind, path = source.get("kind", "unknown"), source.get("path")
    if kind == "kafka":
        return f"Kafka topic {source['topic']}"
    return PurePath(path).name if path else names.get(kind, f"the {kind} stream")


def _duration(story: Story) -> str:
    if not story.first:
        return "nothing"
    span = datetime.fromisoformat(story.last) - datetime.fromisoformat(story.first)
    seconds = span.total_seconds()
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _stages(lines: list[dict[str, Any]]) -> dict[str, Any]:
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
    return {"names": [TITLES.get(name, name) for name in names], "lines": cells}


def _outcomes(view: RunView) -> list[dict[str, Any]]:
    """What became of heals: how often, when, and why the last time."""
    found = []
    for kind, one in view.happened.items():
        if kind in LEARNING:
            last = one.latest[-1][1]
            told = {"times": one.times, "last": last["batch"], "why": _why(last)}
            found.append({"kind": kind, "batch": one.first["batch"]} | told)
    return found


def _heals(story: Story) -> list[dict[str, Any]]:
    """The latest heals, newest first, with what they were judged on."""
    return [
        {
            "batch": one["batch"],
            "kind": one["kind"],
            "why": _why(one),
            "before": (one.get("before") or {}).get("f1"),
            "after": (one.get("after") or {}).get("f1"),
            "rows": (one.get("after") or {}).get("rows"),
            "evaluation": one.get("evaluation", ""),
        }
        for one in reversed(story.view.latest(*LEARNING))
    ]


def _lines(actions: Sequence[Action]) -> list[dict[str, Any]]:
    """Actions with their reasons."""
    return [
        {"batch": one.get("batch"), "kind": one["kind"], "why": _why(one), "data": one}
        for one in actions
    ]


def _why(one: Mapping[str, Any]) -> str:
    return next((str(one[name]) for name in WHY if one.get(name)), "")


def _versions(story: Story) -> list[dict[str, Any]]:
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
    story: Story, row: SnapshotRow, serving: SnapshotRow | None, best: SnapshotRow | None
) -> dict[str, Any]:
    marks = [name for name, found in (("serving", serving), ("best", best)) if found == row]
    told = story.reasons.get(row.id, {})
    return {
        "version": row.version,
        "phase": row.phase,
        "batch": row.batch,
        "accuracy": row.accuracy,
        "f1": row.f1,
        "rows": row.rows,
        "marks": marks,
        "evaluation": told.get("evaluation", ""),
        "threshold": told.get("threshold"),
    }
