"""A run's end, however it came: files and pictures from its log, kept with the run."""

from __future__ import annotations

from pathlib import Path

from selfheal_cli.config import RunConfig
from selfheal_cli.history.event_log import EventLog, read
from selfheal_cli.history.writable import written
from selfheal_cli.pipeline.sources import kept_rows
from selfheal_cli.registry.base import Outcome
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.report.export import export
from selfheal_cli.report.fold import RunView
from selfheal_cli.report.page import PAGE, write_page
from selfheal_cli.report.story import tell
from selfheal_cli.source.base import REJECTS

CONFIG_NAME = "config.json"


def publish(
    config: RunConfig, log: EventLog, part: int, outcome: Outcome, writer: RegistryWriter
) -> tuple[RunView, tuple[Path, ...]]:
    """Files and pictures from the log, to be kept with the run; then the run is closed."""
    story = tell(read(log.path))
    view = story.view
    settings = log.path.with_name(CONFIG_NAME)
    with written(config.export_dir):
        files = [*export(view, config.export_dir), write_page(story, config.export_dir / PAGE)]
        settings.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        plots = _draw(config, view)
    kept: list[tuple[Path, str | None]] = [(log.path, None), (settings, None)]
    rows = kept_rows(config, log.path.parent)
    rejects = log.path.with_name(REJECTS)
    kept += [(path, None) for path in (rows, rejects) if path is not None and path.exists()]
    kept += [(path, "monitoring_export") for path in files]
    kept += [(path, "plots") for path in plots]
    writer.finish(str(part), kept, outcome, {"selfheal.log_head": log.head})
    return view, (*files, *plots)


def _draw(config: RunConfig, view: RunView) -> list[Path]:
    if not (config.plots and view.rows):
        return []
    from selfheal_cli.report.plots import draw_all

    return draw_all(view, config.export_dir / "plots")
