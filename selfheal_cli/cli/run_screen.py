"""What a person sees of a run: progress, a line a batch, the results table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from selfheal_cli.cli.batch_lines import FEWEST, BatchLines
from selfheal_cli.cli.output import Part, counted, figure, line, make_console, print_table
from selfheal_cli.drift.sentences import listed, moved_by_now
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.events.log import keys_of
from selfheal_cli.events.state import RowFold, RunView
from selfheal_cli.masking import masked_uri
from selfheal_cli.pipeline.runs.run import Finished
from selfheal_cli.pipeline.stream.monitoring import describe
from selfheal_cli.records import ESTIMATED
from selfheal_cli.report.recommendation import recommend
from selfheal_cli.scores import title_of

# of the results table, by what decisions are for; the others are shown by --wide
FIRST = {
    "accuracy": ("accuracy", "recall", "f1", "roc_auc"),
    "f1": ("f1", "pr_auc", "recall_at_1pct_fp", "recall"),
    "cost": ("cost", "pr_auc", "recall_at_1pct_fp", "f1"),
}
FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "recall_at_1pct_fp",
           "log_loss", "ece", "kappa")  # fmt: skip
COUNTS = ("tp", "tn", "fp", "fn")
OTHER_ENDS = {
    events.HealLearned: "unpublished heal",
    events.HealFailed: "failed heal",
    events.HealCoalesced: "coalesced heal",
    events.HealRejected: "rejected heal",
    events.HealRefuted: "refused heal",
    events.RollbackDeclined: "declined rollback",
}
ALARMING = (events.HealFailed, events.RollbackFailed, events.BatchSetApart, events.PartFailed)
# what a batch's line has, or nobody is told
UNTOLD = (
    events.HealPublished, events.HealLearned, events.HealRejected, events.HealCoalesced,
    events.AliasMoved, events.LabelsCorrected, events.SegmentsRanked,
)  # fmt: skip
MOST_TOLD = 5  # columns
MOST_MOVED = 6  # sentences
MOST_SEGMENTS = 10  # in the table


class RunScreen:
    """Follows a run's events; says nothing when ``quiet``."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = make_console()
        self._quiet = quiet
        self._rows = RowFold()
        self._lines = BatchLines()
        self._config: Mapping[str, Any] = {}
        self._refused = -1  # the last batch in which a heal was refused
        self._moved: set[tuple[str, str]] = set()  # what was said to have moved
        self._alarms: dict[str, events.MonitorAlarmed] = {}  # that may be said as what moved
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._training = self._progress.add_task("training", total=None, visible=False)
        self._stream = self._progress.add_task("stream", total=None, visible=False)
        self._writing = self._progress.add_task("registry", total=0, visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def on_epoch(self, done: int, total: int) -> None:
        """Training goes on."""
        self._progress.update(self._training, visible=True, completed=done, total=total)

    def on_left(self, left: int) -> None:
        """Writes wait for the registry."""
        task = self._progress.tasks[self._writing]
        total = max(left, int(task.total or 0))
        self._progress.update(self._writing, visible=True, total=total, completed=total - left)

    def on_event(self, event: Event) -> None:
        """Something happened."""
        if self._quiet:
            return
        self._rows.add(event)
        if self._waits(event):
            return
        match event:
            case events.RunStarted():
                self._config = event.config
            case events.ModelTrained():
                self._progress.update(self._training, visible=False)
                self._progress.update(self._stream, visible=True, total=event.batches)
                self._introduce(event)
            case events.BatchScored():
                self._progress.update(self._stream, completed=event.batch)
                pair = self._rows.scores.get(event.batch)
                self._say_any(self._lines.add(self._rows.rows[event.batch], pair))
                self._rows.forget(event.batch)
            case events.LabelsArrived():
                self._say_any(self._lines.arrived(event.batch, (event.live, event.shadow)))
            case events.RolledBack():
                told = "" if event.f1 is None else f" (F1 {event.f1:.3f} on {event.rows} rows)"
                self._say(("rollback", "red"), f" to {event.named}{told}: {event.why}")
            case events.Diagnosed():
                self._say(("diagnosis", "bold"), f" in batch {event.batch}: {event.why}")
            case events.RunResumed():
                self._say(
                    ("Resumed", "bold"),
                    f" after batch {event.batch}: its {event.events} "
                    "recorded events are gone through again, and each must come out the same.",
                )
            case events.ColumnMoved() if (event.aspect, event.column) in self._moved:
                pass  # a column that comes and goes is told of once, and at the end
            case _ if event.is_action and not isinstance(event, UNTOLD):
                self._tell(event)

    def _waits(self, event: Event) -> bool:
        """Whether it is an alarm, which waits: a change is told of in one line, by what moved if
        that is known.
        """
        if isinstance(event, events.MonitorAlarmed):
            self._alarms[event.monitor] = event
            return True
        if isinstance(event, events.ColumnMoved):
            self._alarms.pop(event.monitor, None)
            return False
        alarms, self._alarms = self._alarms, {}
        for alarm in alarms.values():
            self._tell(alarm)
        return False

    def _tell(self, event: Event) -> None:
        """What happened beside the batches, unless the same was just said."""
        where = f" in batch {event.batch}" if isinstance(event, OfBatch) else ""
        who = ""
        if isinstance(event, events.ChampionFollowed):
            who = f" (by {event.actor}, v{event.version})"
        elif isinstance(event, events.ColumnMoved):
            self._moved.add((event.aspect, event.column))
        elif isinstance(event, events.HealRefuted):
            before, self._refused = self._refused, event.batch
            if before == event.batch - 1:
                return
        colour = "red" if isinstance(event, ALARMING) else "yellow"
        self._say((event.kind, colour), f"{where}: {event.why}{who}")

    def show_results(self, end: events.RunFinished) -> None:
        """The figures and the verdict, as soon as they are known."""
        if self._quiet:
            return
        self._say_any(self._lines.end())
        self._progress.update(self._stream, visible=False)
        self._show(end)

    def _show(self, end: events.RunFinished) -> None:
        columns, rows = _table(end.stages or (), self._config["objective"]["kind"])
        self._say("")
        print_table("Results", columns, rows)
        self._say(((end.verdict or {}).get("sentence", ""), "bold"))
        self._say(end.evaluation or "")
        for name, count in (end.notes or {}).items():
            self._say(f"In the stream: {count:,} {name}.")
        if end.departures:
            self._say(f"Not as in training: {_departures(end.departures)}.")

    def conclude(self, finished: Finished, tracking_uri: str | None) -> None:
        """What was kept where, and what to do next."""
        view, end = finished.view, finished.view.finished
        if end is None or end.stages is None:
            return
        if self._quiet:
            self._config = view.config
            self._show(end)
        for sentence in listed(moved_by_now(view.latest(events.ColumnMoved)), MOST_MOVED):
            self._say(("Moved: ", "yellow"), f"{sentence}.")
        for ranked in view.latest(events.SegmentsRanked)[-1:]:
            self._say_segments(ranked)
        frozen = "unchanged" if end.base_unchanged else ("CHANGED", "red")
        self._say("Backbone and head are ", frozen, " by every heal (checked by sha256).")
        self._say(_tally(view))
        where = f"{finished.files[0].parent}/" if finished.files else "nowhere"
        self._say(f"Monitoring files in {where}, event log in {finished.folder}/.")
        if finished.outcome == "KILLED" and finished.endless:
            resume = f"selfheal run --resume {finished.run_id[:8]}"
            self._say("Stopped; ", (resume, "bold"), " goes on.")
        elif finished.outcome == "KILLED":
            self._say(("Interrupted: the figures are of the batches until then.", "yellow"))
        if finished.left:
            self._say(
                (f"{finished.left} writes wait for the registry", "yellow"),
                ": ",
                ("selfheal flush", "bold"),
                " brings them.",
            )
        model = view.model
        suffix = f" --model {model}" if model != "fraud" else ""
        store = f" --tracking-uri {masked_uri(tracking_uri)}" if tracking_uri else ""
        self._say_next(view, suffix, store)

    def _say_segments(self, ranked: events.SegmentsRanked) -> None:
        """Those that drifted, the furthest first."""
        if ranked.drifted:
            rows = [
                [one["segment"], one["column"], f"{one['effect']:.3f}",
                 figure(ranked.whole.get(one["column"])), f"{one['rows']:,}", str(one["since"])]
                for one in ranked.drifted[:MOST_SEGMENTS]
            ]  # fmt: skip
            columns = [ranked.by, "column", ">effect", ">of all rows", ">rows",
                       ">named in batch"]  # fmt: skip
            print_table("Segments that drifted", columns, rows)
        left = len(ranked.drifted) - MOST_SEGMENTS
        more = f"; {left:,} more lines in the report" if left > 0 else ""
        apart = [
            f"{count:,} rows {why}"
            for count, why in (
                (ranked.unkeyed, f"without a value in {ranked.by}"),
                (ranked.beyond, "of further segments"),
            )
            if count
        ]
        beside = f"; of none: {', '.join(apart)}" if apart else ""
        self._say(("Segments: ", "yellow"), f"{ranked.reason}{more}{beside}.")

    def _say_next(self, view: RunView, suffix: str, store: str) -> None:
        """Whether to go back to an earlier version; then where to look."""
        advised = recommend(view)
        if view.evidence.batches:
            self._say(advised.sentence)
        look: list[Part] = [(f"selfheal ui{store}", "bold"), " to browse the snapshots."]
        if advised.back:
            back = f"selfheal rollback --to-best{suffix}{store}"
            look = [(back, "bold"), " to go back to it, ", *look]
        self._say("Next: ", *look)

    def _introduce(self, trained: events.ModelTrained) -> None:
        self._say(
            f"Network of {trained.parameters:,} parameters, {trained.adapter_parameters:,} "
            f"of them in the adapter; backbone and head are frozen."
        )
        if trained.training:
            self._say(f"Trained: {trained.training}.")
        origin = "suggested from the training part" if trained.rules_suggested else "given"
        self._say(f"Rules ({origin}): {'; '.join(trained.rules)}")
        self._say(
            f"FIDI watches {trained.sensitive}: mean {trained.mean:.3f}, standard deviation "
            f"{trained.sd:.3f}, threshold "
            f"{self._config['policy']['fidi_threshold']:g}"
        )
        if trained.sensitive_auto:
            shares = [f"{one['feature']} {one['share']:.0%}" for one in trained.sensitive_auto]
            self._say(
                f"{trained.sensitive} was chosen: by gradient times input over the training "
                f"rows the network's decisions hang on {', '.join(shares)}"
            )
        for monitor in self._config.get("monitors", ()):
            self._say(f"Monitor {describe(monitor)}")
        for name, seen in trained.held_out.items():
            self._say(
                f"{trained.sensitive} in {name} rows: mean {seen['mean']:.3f}; rules fire on "
                f"{100 * seen['rule_share']:.1f} %"
            )
        labels = [f"{place} is '{label}'" for place, label in enumerate(trained.labels)]
        self._say(f"Labels: {', '.join(labels)}")
        if len(labels) > 2 and self._config["heal"].get("verdict") != "change":
            self._say("No diagnosis is given of more than two classes; what moved is.")
        if self._config["labels"]["regime"] != "full":
            self._say(
                f"Figures with ~ are {ESTIMATED}; nothing without labels can see whether it has."
            )
        if self._config["labels"]["regime"] not in ("full", "none"):
            self._say(
                f"Of fewer than {FEWEST} known labels no figure is shown; a line comes again "
                "when its labels are in."
            )
        rules = self._config["heal"]["recipe"] == "article"
        if not rules and self._config["labels"]["regime"] != "none":
            self._say("A heal follows new labels, whatever the state; its reason is in the log.")
        late = self._config["labels"]["regime"] not in ("full", "none")
        self._lines = BatchLines(trained.batches, rules=rules, late=late)
        for name in self._lines.header:
            self._say((name, "bold"))

    def _say_any(self, parts: Sequence[Part]) -> None:
        if parts:
            self._say(*parts)

    def _say(self, *parts: Part) -> None:
        self._console.print(line(*parts), soft_wrap=not self._console.is_terminal)


def as_document(finished: Finished, store: str) -> dict[str, Any]:
    """A run as one JSON document, but for its ``batches``: they are `batches_of` it."""
    view = finished.view
    best, ranked = view.best(), view.latest(events.SegmentsRanked)
    return {
        "run_id": finished.run_id,
        "outcome": finished.outcome,
        "model": view.model,
        "tracking_uri": masked_uri(store),
        "config": view.config,
        "trained": keys_of(view.stored) if view.stored else {},
        "batches": [],
        "results": keys_of(view.finished) if view.finished else {},
        "versions": view.versions(),
        "best": asdict(best) if best else None,
        "files": [str(path) for path in finished.files],
        "event_log": str(finished.folder / "events.jsonl"),
        "writes_left": finished.left,
    } | ({"segments": keys_of(ranked[-1])} if ranked else {})


def batches_of(finished: Finished) -> Iterator[dict[str, Any]]:
    """What is known of each batch, one after the other."""
    by_batch = finished.view.by_batch
    for batch, row in by_batch.rows.items():
        readings = by_batch.monitors.get(batch)
        yield asdict(row) | ({"monitors": readings} if readings is not None else {})


def _table(lines: Sequence[Mapping[str, Any]], objective: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the results: few figures, and the others for --wide."""
    first = FIRST[objective]
    there = [name for name in (*FIGURES, "cost") if any(name in line for line in lines)]
    figures = [*(name for name in first if name in there),
               *(name for name in there if name not in first)]  # fmt: skip
    marks = ("" if name in first else "+" for name in figures)
    columns = ["", ">rows", *(f"{mark}>{title_of(name)}" for mark, name in zip(marks, figures,
                                                                             strict=True)),
               *(f"+>{name.upper()}" for name in COUNTS)]  # fmt: skip
    rows = [
        [
            line["title"],
            f"{line['rows']:,}" if "rows" in line else "-",
            *(figure(line.get(name), 1 if name == "cost" else 3) for name in figures),
            *(f"{line[name]:,}" if name in line else "-" for name in COUNTS),
        ]
        for line in lines
    ]
    return columns, rows


def _departures(columns: Mapping[str, Mapping[str, int]]) -> str:
    """The columns with the most values that training did not have the like of."""
    told = [f"{name} ({sum(counts.values()):,})" for name, counts in columns.items()]
    return ", ".join(told[:MOST_TOLD]) + (" and others" if len(told) > MOST_TOLD else "")


def _tally(view: RunView) -> str:
    best = view.best()
    counts = [counted(view.times(events.HealPublished), "heal"),
              counted(view.times(events.RolledBack), "rollback"),
              counted(view.versions(), "version"),
              *(counted(view.times(kind), name) for kind, name in OTHER_ENDS.items()
                if view.times(kind))]  # fmt: skip
    text = ", ".join(counts)
    if best is not None and not view.evidence.batches:  # F1s of different times are not compared
        text += (
            f"; best post-heal v{best.version} (batch {best.batch}, accuracy "
            f"{figure(best.accuracy)}, F1 {figure(best.f1)} on {best.rows} rows)"
        )
    return text + "."
