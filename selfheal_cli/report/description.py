"""A run as MLflow's interface shows it: what it is called, and what its description says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.events.state import RunView
from selfheal_cli.report.page import PAGE
from selfheal_cli.report.recommendation import recommend
from selfheal_cli.scores import title_of
from selfheal_cli.visible import visible

NAME_TAG, NOTE_TAG = "mlflow.runName", "mlflow.note.content"
FIGURES = ("accuracy", "f1", "roc_auc", "pr_auc")


def run_name(config: RunConfig, at: datetime) -> str:
    """The data and the time.

    >>> run_name(RunConfig(), datetime(2026, 1, 31, 14, 5))
    'synthetic, 2026-01-31 14:05'
    """
    source = config.source
    path = getattr(source, "path", None)
    data = path.name if path is not None else getattr(source, "topic", None) or source.kind
    return f"{visible(str(data))}, {at:%Y-%m-%d %H:%M}"


def note(view: RunView, run_id: str) -> str:
    """Verdict, figures, recommendation and where the report is, in Markdown; "" without results."""
    end = view.finished
    if end is None or not end.stages:
        return ""
    parts = [
        f"**{(end.verdict or {}).get('sentence', '')}**",
        _table(end.stages),
        end.evaluation or "",
        recommend(view).sentence if view.evidence.batches else "",
        f"Report: [{PAGE}](get-artifact?path=monitoring_export%2F{PAGE}&run_uuid={run_id}), among "
        "the artifacts under `monitoring_export`.",
    ]
    return "\n\n".join(visible(part, keep="\n") for part in parts if part)


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in FIGURES if any(line.get(name) is not None for line in lines)]
    head = ["", "rows", *map(title_of, names)]
    rows = [
        [str(line["title"]), f"{line['rows']:,}" if "rows" in line else "-",
         *(f"{line[name]:.3f}" if line.get(name) is not None else "-" for name in names)]
        for line in lines
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
