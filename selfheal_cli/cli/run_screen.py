"""What a person sees of a run: progress, a line a batch, the results table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from selfheal_cli.cli.output import Part, figure, line, make_console, make_table
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.events.log import keys_of
from selfheal_cli.events.state import Row, RowFold, RunView
from selfheal_cli.masking import masked_uri
from selfheal_cli.pipeline.runs.run import Finished
from selfheal_cli.pipeline.stream.monitoring import describe
from selfheal_cli.scores import title_of

COLOURS = {"HEALTHY": "green", "DRIFTING": "yellow", "HEALING": "blue", "ROLLED_BACK": "red"}
HEADER = (
    "batch       z  conflicts  shadow acc  healed acc     lift  shadow F1  healed F1  "
    "state        action"
)
FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc", "log_loss", "ece", "kappa")
COLUMNS = ("stage", ">rows", *(f">{title_of(name)}" for name in FIGURES), ">cost", ">TP", ">TN",
           ">FP", ">FN")  # fmt: skip


OTHER_ENDS = {
    events.HealFailed: "failed heals",
    events.HealCoalesced: "heals coalesced",
    events.HealRejected: "heals rejected",
    events.HealRefuted: "heals refused",
    events.RollbackDeclined: "rollbacks declined",
}
ALARMING = (events.HealFailed, events.RollbackFailed, events.BatchSetApart)
# what a batch's line has, or nobody is told
UNTOLD = (events.HealPublished, events.HealRejected, events.HealCoalesced, events.AliasMoved)
MOST_TOLD = 5  # columns


class RunScreen:
    """Follows a run's events; says nothing when ``quiet``."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = make_console()
        self._quiet = quiet
        self._rows = RowFold()
        self._config: Mapping[str, Any] = {}
        self._refused = -1  # the last batch in which a heal was refused
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._training = self._progress.add_task("training", total=None)
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
        self._progress.update(self._training, completed=done, total=total)

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
        match event:
            case events.RunStarted():
                self._config = event.config
            case events.ModelTrained():
                self._progress.update(self._training, visible=False)
                self._progress.update(self._stream, visible=True, total=event.batches)
                self._introduce(event)
            case events.BatchScored():
                self._progress.update(self._stream, completed=event.batch)
                self._line(self._rows.rows[event.batch])
                self._rows.forget(event.batch)
            case events.RolledBack():
                self._say(
                    ("rollback", "red"),
                    f" to v{event.version} (F1 {event.f1:.3f} on {event.rows} rows): {event.why}",
                )
            case events.Diagnosed():
                self._say(("diagnosis", "bold"), f" in batch {event.batch}: {event.why}")
            case events.RunResumed():
                self._say(
                    ("Resumed", "bold"),
                    f" after batch {event.batch}: its {event.events} "
                    "recorded events are gone through again, and each must come out the same.",
                )
            case _ if event.is_action and not isinstance(event, UNTOLD):
                self._tell(event)

    def _tell(self, event: Event) -> None:
        """What happened beside the batches, unless the same was just said."""
        where = f" in batch {event.batch}" if isinstance(event, OfBatch) else ""
        who = ""
        if isinstance(event, events.ChampionFollowed):
            who = f" (by {event.actor}, v{event.version})"
        elif isinstance(event, events.HealRefuted):
            before, self._refused = self._refused, event.batch
            if before == event.batch - 1:
                return
        colour = "red" if isinstance(event, ALARMING) else "yellow"
        self._say((event.kind, colour), f"{where}: {event.why}{who}")

    def conclude(self, finished: Finished, tracking_uri: str | None) -> None:
        """The results table, the verdict, and what to do next."""
        view, end = finished.view, finished.view.finished
        if end is None or end.stages is None:
            return
        costs = any("cost" in line for line in end.stages)
        rows = [_cells(line, costs=costs) for line in end.stages]
        columns = [name for name in COLUMNS if costs or name != ">cost"]
        self._say("")
        self._console.print(make_table("Results", columns, rows))
        self._say(((end.verdict or {}).get("sentence", ""), "bold"))
        self._say(end.evaluation or "")
        for name, count in (end.notes or {}).items():
            self._say(f"In the stream: {count:,} {name}.")
        if end.departures:
            self._say(f"Not as in training: {_departures(end.departures)}.")
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
        self._say(
            "Next: ",
            (f"selfheal ui{store}", "bold"),
            " to browse the snapshots, ",
            (f"selfheal rollback --to-best{suffix}{store}", "bold"),
            " to restore the best.",
        )

    def _introduce(self, trained: events.ModelTrained) -> None:
        self._say(
            f"Network of {trained.parameters:,} parameters, {trained.adapter_parameters:,} "
            f"of them in the adapter; backbone and head are frozen."
        )
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
        if self._config["labels"]["regime"] != "full":
            self._say("Figures with ~ are estimated from the network's confidence, not measured.")
        self._say((HEADER, "bold"))

    def _line(self, row: Row) -> None:
        colour = COLOURS[row.state]
        self._say(
            f"{row.batch_idx:5d}  {row.z_score:6.4f}  {row.n_conflicts:9d}  "
            f"{_known(row.shadow_acc, '10.4f')}  "
            f"{_known(row.healed_acc, '10.4f', row.est_accuracy)}  "
            f"{_known(row.acc_lift, '+7.4f')}  {_known(row.shadow_f1, '9.4f')}  "
            f"{_known(row.healed_f1, '9.4f', row.est_f1)}  ",
            (f"{row.state:<11}", colour),
            f"  {row.action}",
        )

    def _say(self, *parts: Part) -> None:
        self._console.print(line(*parts), soft_wrap=not self._console.is_terminal)


def as_document(finished: Finished, store: str) -> dict[str, Any]:
    """A run as one JSON document, but for its ``batches``: they are `batches_of` it."""
    view = finished.view
    best = view.best()
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
    }


def batches_of(finished: Finished) -> Iterator[dict[str, Any]]:
    """What is known of each batch, one after the other."""
    by_batch = finished.view.by_batch
    for batch, row in by_batch.rows.items():
        readings = by_batch.monitors.get(batch)
        yield asdict(row) | ({"monitors": readings} if readings is not None else {})


def _cells(line: Mapping[str, Any], *, costs: bool) -> list[str]:
    counts = [str(line[name]) if name in line else "-" for name in ("tp", "tn", "fp", "fn")]
    rows = f"{line['rows']:,}" if "rows" in line else "-"
    cost = [figure(line.get("cost"), 1)] if costs else []
    return [line["title"], rows, *(figure(line.get(name)) for name in FIGURES), *cost, *counts]


def _departures(columns: Mapping[str, Mapping[str, int]]) -> str:
    """The columns with the most values that training did not have the like of."""
    told = [f"{name} ({sum(counts.values()):,})" for name, counts in columns.items()]
    return ", ".join(told[:MOST_TOLD]) + (" and others" if len(told) > MOST_TOLD else "")


def _known(value: float | None, layout: str, estimate: float | None = None) -> str:
    """A figure; while labels are awaited its ~estimate, or a dash."""
    if value is not None:
        return format(value, layout)
    instead = "-" if estimate is None else f"~{estimate:.4f}"
    return instead.rjust(int(layout.lstrip("+").split(".")[0]))


def _tally(view: RunView) -> str:
    best = view.best()
    text = f"{view.times(events.HealPublished)} heals, {view.times(events.RolledBack)} rollbacks, "
    text += f"{view.versions()} versions"
    for kind, name in OTHER_ENDS.items():
        if view.times(kind):
            text += f", {view.times(kind)} {name}"
    if best is not None:
        text += (
            f"; best post-heal v{best.version} (batch {best.batch}, accuracy "
            f"{figure(best.accuracy)}, F1 {figure(best.f1)} on {best.rows} rows)"
        )
    return text + "."
