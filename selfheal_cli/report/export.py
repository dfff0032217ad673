"""The monitoring files that a dashboard reads, folded from the events and from nothing else."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from selfheal_cli.config import MonitorSettings, Policy
from selfheal_cli.decide.policy_file import thresholds
from selfheal_cli.report.fold import Row, RunView

METRICS, EVENTS, THRESHOLDS = "metrics.csv", "events.json", "threshold_config.json"


def export(view: RunView, folder: Path) -> list[Path]:
    """Write the three files; each appears whole or not at all. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = Policy.model_validate(view.started["config"]["policy"])
    texts = {
        METRICS: metrics_csv(view),
        EVENTS: _json(view.actions),
        THRESHOLDS: _json(thresholds(policy)),
    }
    return [_write(folder / name, text) for name, text in texts.items()]


def metrics_csv(view: RunView) -> str:
    """One line a batch, in order; a monitor's value and level are the last columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    asked = view.started["config"].get("monitors", ()) if view.started else ()
    keys = [MonitorSettings.model_validate(monitor).key for monitor in asked]
    names = [name for key in keys for name in (f"monitor_{key}", f"monitor_{key}_level")]
    writer.writerow([*(field.name for field in fields(Row)), *names])
    for batch, row in sorted(view.rows.items()):
        readings = [view.monitors[batch][key] for key in keys]
        last = [cell for one in readings for cell in (round(one["value"], 4), one["level"])]
        writer.writerow([*astuple(row), *last])
    return out.getvalue()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
