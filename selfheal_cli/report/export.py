"""The monitoring files that a dashboard reads, folded from the events and from nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from selfheal_cli.config import MonitorSettings, Policy
from selfheal_cli.events.log import whole
from selfheal_cli.events.state import Row, RunView
from selfheal_cli.settings.policy_file import thresholds

# why a heal was asked for stands in the events
FIGURES = tuple(one.name for one in fields(Row) if one.name != "heal_reason")
METRICS, EVENTS, THRESHOLDS = "metrics.csv", "events.json", "threshold_config.json"


def export(view: RunView, folder: Path) -> list[Path]:
    """Write the three files; each appears whole or not at all. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = Policy.model_validate(view.config["policy"])
    return [
        _write(folder / METRICS, lambda stream: _write_metrics(view, stream)),
        _write(folder / EVENTS, lambda stream: _write_events(view, stream)),
        _write(folder / THRESHOLDS, lambda stream: stream.write(_json(thresholds(policy)) + "\n")),
    ]


def keep_apart(files: Sequence[Path], folder: Path, run_id: str) -> None:
    """Copy what a run wrote into ``folder`` to where no later run writes: ``runs/RUN/``."""
    own = folder / "runs" / run_id
    for file in files:
        copy = own / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}")
        shutil.copyfile(file, partial)
        partial.replace(copy)


def _write_metrics(view: RunView, stream: TextIO) -> None:
    """One line a batch, in order; a monitor's value and level are the last columns."""
    writer = csv.writer(stream, lineterminator="\n")
    asked = view.config.get("monitors", ())
    keys = [MonitorSettings.model_construct(**monitor).key for monitor in asked]
    names = [name for key in keys for name in (f"monitor_{key}", f"monitor_{key}_level")]
    writer.writerow([*FIGURES, *names])
    monitors = view.by_batch.monitors
    for batch, row in view.rows.items():
        readings = [monitors[batch][key] for key in keys]
        last = [cell for one in readings for cell in (round(one["value"], 4), one["level"])]
        writer.writerow([*(getattr(row, name) for name in FIGURES), *last])


def _write_events(view: RunView, stream: TextIO) -> None:
    """A JSON list, one action after another."""
    stream.writelines(json_list(view.actions))
    stream.write("\n")


def json_list(values: Iterable[Any], indent: str = "") -> Iterator[str]:
    """A JSON list in parts, as `json.dumps` lays it out, without having all of it at once.

    >>> "".join(json_list([{"a": 1}, 2])) == json.dumps([{"a": 1}, 2], indent=2)
    True
    """
    before = "["
    for value in values:
        text = _json(value).replace("\n", f"\n{indent}  ")
        yield f"{before}\n{indent}  {text}"
        before = ","
    yield "[]" if before == "[" else f"\n{indent}]"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _write(path: Path, fill: Callable[[TextIO], object]) -> Path:
    with whole(path) as stream:
        fill(stream)
    return path
