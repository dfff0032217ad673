"""The page of a run, for a program and for a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import read
from selfheal_cli.events.state import RunView
from selfheal_cli.report.page import write_page
from selfheal_cli.report.summary import tell

PAGE = "report.html"
HEIGHT = 600  # pixels of the page in a notebook


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run: its id, its page on disk, its verdict in a sentence, empty while it goes
    on, and everything folded from its log.
    """

    run_id: str
    path: Path
    sentence: str
    view: RunView

    def __repr__(self) -> str:
        return f"<Report of run {self.run_id[:8]} in {self.path}: {self.sentence or 'it goes on'}>"

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="{HEIGHT}"></iframe>'


def page_of(run_id: str) -> Path:
    """Where the page of a run is written, unless another place is asked for."""
    return run_folder(run_id) / PAGE


def report_of(run_id: str, path: Path | None = None) -> Report:
    """Write the page of a run in this folder; raises `EventLogError` where its log is not here."""
    log = run_folder(run_id) / LOG_NAME
    if not log.exists():
        raise EventLogError(f"{log}: the run's log is not here; it was begun in another folder")
    story = tell(read(log))
    written = write_page(story, path or page_of(run_id))
    end = story.view.finished
    sentence = (end.verdict or {}).get("sentence", "") if end else ""
    return Report(run_id, written, sentence, story.view)
