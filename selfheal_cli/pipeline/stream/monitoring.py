"""The monitors of a run: fitted on its training rows, read after each batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import MonitorSettings
from selfheal_cli.drift.diagnosis import TrainingReference, diagnose
from selfheal_cli.drift.kinds import build, limits_of
from selfheal_cli.drift.monitor import QUIET, BatchView, Level, Monitor, Reading
from selfheal_cli.drift.moves import LoudMonitor, Moves
from selfheal_cli.drift.refit import MIN_ROWS
from selfheal_cli.errors import PartError
from selfheal_cli.events.types import (
    ColumnMoved,
    Diagnosed,
    MonitorAlarmed,
    MonitorReading,
    PartFailed,
    RuleStale,
)
from selfheal_cli.heal.experts.trees import grown
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import classify
from selfheal_cli.pipeline.prepare.baseline import frozen_logit
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.segments import NAMED, Segments, watch_segments
from selfheal_cli.records import Advice, Conflicts, Diagnosis
from selfheal_cli.rules.conditions import RuleTable
from selfheal_cli.rules.health import RuleHealth
from selfheal_cli.rules.ruleset import RuleVerdict

if TYPE_CHECKING:
    from selfheal_cli.model.architecture import Architecture
    from selfheal_cli.records import Columns


@dataclass(frozen=True, slots=True)
class Watched:
    """A batch's readings by monitor; ``reasons`` to heal, ``drifting`` where there is a verdict.

    ``since`` is the batch from which on something is not as it was, where that was told of with
    this one; ``began``: it had been as in training.
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    drifting: bool = False
    since: int | None = None
    began: bool = False

    def told(self) -> dict[str, MonitorReading]:
        """The readings, for the batch's event."""
        return {key: reading.as_dict() for key, reading in self.readings.items()}


NOTHING = Watched()


class Monitoring:
    """All monitors of a stream; without any it does nothing."""

    def __init__(self, run: SessionContext) -> None:
        self._recorder = run.recorder
        self.segments = watch_segments(run)
        self._monitors: list[tuple[MonitorSettings, Monitor]] = []
        sample = run.prepared.sample
        if sample is not None:
            exact = run.config.drift_by == "monitors"
            self._monitors = [(one, build(one, sample, exact=exact)) for one in run.config.monitors]
        self._alarmed: frozenset[str] = frozenset()
        self._failed: set[str] = set()
        # a run of before says nothing of what moved, and its state is the sensitive feature's
        by_all = run.config.drift_by == "monitors"
        self._moves = Moves(sample) if sample is not None and by_all else None
        self._away: set[tuple[str, str]] = set()  # what is not as in training: aspect and column

    def observe(
        self,
        scored: Scored,
        columns: Columns,
        conflicts: Conflicts,
        learned: Sequence[Scored],
        time: float | None,
    ) -> Watched:
        """Let every monitor see a batch of that time, and the labels that came with it."""
        if self.segments is not None:
            self.segments.observe(scored, columns, learned)
        if not self._monitors:
            return NOTHING
        view = BatchView(
            columns,
            scored.shadow,
            classify(scored.probabilities, scored.threshold),
            conflicts.count,
            _errors(learned),
            scored.batch,
        )
        readings = {
            settings.key: self._read(scored.batch, settings.key, one, view)
            for settings, one in self._monitors
        }
        loud = [
            (settings, one.limits.threshold, readings[settings.key])
            for settings, one in self._monitors
            if readings[settings.key].level is Level.ALARM
        ]
        for settings, threshold, reading in loud:
            if settings.key not in self._alarmed:
                self._note(scored.batch, settings, threshold, reading)
        self._alarmed = frozenset(settings.key for settings, _, _ in loud)
        drifting = any(settings.triggers != "nothing" for settings, _, _ in loud)
        changed: list[ColumnMoved] = []
        if self._moves is not None:
            self._moves.observe(scored.batch, time, view, scored.place)
            for part in learned:
                self._moves.learn(part.batch, part.place, part.y)
            for move in self._moves.told([LoudMonitor(s.key, t, r) for s, t, r in loud]):
                self._recorder.note(move)
                key = (move.aspect, move.column)
                if move.back == (key in self._away):  # else what was told of moved on
                    changed.append(move)
                    self._away ^= {key}
            drifting = bool(loud) or self._moves.still
        reasons = tuple(_reason(s.key, t, r) for s, t, r in loud if s.triggers == "heal")
        since = min((move.since for move in changed), default=None)
        began = any(not move.back for move in changed)
        return Watched(readings, reasons, drifting, since, began)

    def _read(self, batch: int, key: str, monitor: Monitor, view: BatchView) -> Reading:
        """A monitor's reading; one that fails is told of, and is quiet from then on."""
        if key in self._failed:
            return QUIET
        try:
            return monitor.update(view)
        except PartError as exc:
            self._failed.add(key)
            note = PartFailed(batch=batch, reason=str(exc), part=f"monitor '{key}'")
            self._recorder.note(note)
            return QUIET

    def _note(
        self, batch: int, settings: MonitorSettings, threshold: float, reading: Reading
    ) -> None:
        self._recorder.note(
            MonitorAlarmed(
                batch=batch, reason=_reason(settings.key, threshold, reading),
                monitor=settings.key, threshold=threshold, triggers=settings.triggers,
                **reading.as_dict(),
            )
        )  # fmt: skip


def describe(monitor: Mapping[str, Any]) -> str:
    """A configured monitor in words."""
    settings = MonitorSettings.model_validate(monitor)
    limits = limits_of(settings)
    started = "no heal" if settings.triggers == "nothing" else f"a {settings.triggers}"
    return (
        f"{settings.key}: warns from {limits.warning:g}, alarms from {limits.threshold:g}, "
        f"starts {started}"
    )


def _errors(learned: Sequence[Scored]) -> Any:
    """One a label: 1.0 where what served was wrong."""
    wrong = [classify(one.probabilities, one.threshold) != one.y for one in learned]
    return np.concatenate(wrong).astype(np.float64) if wrong else np.empty(0)


def _reason(key: str, threshold: float, reading: Reading) -> str:
    named = f" ({', '.join(reading.features)})" if reading.features else ""
    return f"monitor {key}: {reading.value:.3f} >= {threshold:g}{named}"


RECOVERED = 10  # batches in range before a stale rule counts as sound, or it would flicker
CHANGES = ("drift", "a segment")  # what reasons of a change begin with
MOST_READ = 256  # features of a refit, which takes seconds with more
AGAIN = 10  # labelled batches after a change until the verdict is given once more
LATEST = 1_000  # rows that a verdict may look at, however small batches are


class Diagnosing:
    """Gives a verdict before the first heal and whenever drift changes.

    With ``heal.verdict: change`` it is of the rows from the batch on with which something moved,
    and asks trees where the recipe has them. Else of the window, which holds rows from before as
    well, then once more of those that came after, and of two classes only. Segments that drifted
    have a verdict each, on their own rows, in the whole's words. Without ``verdicts`` it gives
    none.
    """

    def __init__(self, run: SessionContext, segments: Segments | None, *, verdicts: bool) -> None:
        self._segments, self._drifted = segments, list[str]()
        self._reference = run.prepared.reference if verdicts else None
        self._network = run.prepared.network
        self._labels = run.source.labels
        self._recorder = run.recorder
        heal = run.config.heal
        self._of_change, self._window = heal.verdict == "change", heal.window
        self._trees = partial(grown, len(self._labels)) if self._of_change and heal.trees else None
        self._told = run.config.drift_by == "monitors"  # since when something moved is told
        self._from = 0  # batch with which what is judged began
        self._parts: deque[Scored] = deque()
        self._since = 0  # parts that came since the verdict on a change: the latest of them
        self._drifting: bool | None = None
        self._wait = 0  # labelled batches until a verdict may be given again
        self._reason = ""  # why one is due
        self.verdict: Diagnosis | None = None
        self._gist: object = None

    def observe(
        self, batch: int, learned: Sequence[Scored], *, drifting: bool, since: int | None = None
    ) -> None:
        """Take what labels came, and judge where something changed; not more often than needed.

        ``since`` is as of `Watched`.
        """
        self._keep(learned)
        self._since += len(learned)
        changed = drifting != self._drifting and (drifting or self._drifting is not None)
        if changed:
            self._reason = "drift began" if drifting else "drift ended"
        self._drifting = drifting
        since = batch if changed and not self._told else since
        if self._of_change and since is not None:
            self._from = since
            self._reason = self._reason or "drift went on"
        furthest = [] if self._segments is None else self._segments.drifted[:NAMED]
        if set(furthest) - set(self._drifted):
            self._reason, self._wait = self._reason or "a segment drifted", 0
        self._drifted = furthest
        if not learned:
            return
        self._wait = max(0, self._wait - 1)
        undecided = self.verdict is not None and self.verdict.advice is Advice.UNDECIDED
        if undecided or (self._reason and not self._wait):
            self._judge(batch, self._reason or "more labels came")

    def _keep(self, learned: Sequence[Scored]) -> None:
        """The window's batches; more where they are small, and a verdict looks at many rows."""
        self._parts.extend(part.labelled for part in learned)
        rows, least = sum(map(len, self._parts)), LATEST if self._of_change else 0
        while len(self._parts) > self._window and rows - len(self._parts[0]) >= least:
            rows -= len(self._parts.popleft())

    def before_heal(self, batch: int) -> None:
        """The first heal is about to be asked for."""
        if self.verdict is None:
            self._judge(batch, "before the first heal")

    def _judge(self, batch: int, reason: str) -> None:
        reference, network = self._reference, self._network
        changes = reason.startswith(CHANGES)
        parts = self._judged(changes=changes)
        if reference is None or not parts:
            return
        read = _read(network.architecture)
        features = np.concatenate([part.features for part in parts])
        rows = (
            np.concatenate([part.x for part in parts]),
            features[:, :read],
            frozen_logit(network.predict_features(features)),
            np.concatenate([part.y for part in parts]),
        )
        diagnosis = diagnose(
            reference, self._labels, *rows, trees=self._trees, each=self._of_change
        )
        own = self._by_segment(parts, reference, rows)
        said = "; ".join([diagnosis.sentence, *(one.sentence for one in own.values())])
        diagnosis = replace(diagnosis, sentence=said)
        gist = _gist(diagnosis), {segment: _gist(one) for segment, one in own.items()}
        if gist != self._gist:
            self._recorder.note(Diagnosed(batch=batch, reason=reason, diagnosis=diagnosis))
        self.verdict, self._gist = diagnosis, gist
        # the window still holds rows from before the change: look once more at those after it
        self._reason = "the window is new" if changes else ""
        if self._of_change and changes and diagnosis.advice is Advice.UNDECIDED:
            self._reason = reason  # too few rows came since
        self._since = 0 if changes else self._since
        self._wait = AGAIN

    def _judged(self, *, changes: bool) -> list[Scored]:
        """The batches that a verdict is of."""
        parts = list(self._parts)
        if self._of_change:
            return [part for part in parts if part.batch >= self._from]
        # nobody knows yet which rows a change is in; those that came after it was seen are in it
        return parts[0 if changes or self._since < AGAIN else -self._since :]

    def _by_segment(
        self, parts: list[Scored], reference: TrainingReference, rows: Sequence[Any]
    ) -> dict[str, Diagnosis]:
        """Of the segments that drifted furthest: what may be said of the window's own rows."""
        own: dict[str, Diagnosis] = {}
        segments = self._segments
        if segments is None:
            return own
        for segment in self._drifted:
            of = segments.of(segment, parts)
            own_rows = (one[of] for one in rows)
            verdict = diagnose(reference, self._labels, *own_rows, each=self._of_change)
            told = verdict.sentence
            if verdict.rows < MIN_ROWS:
                told = f"its {verdict.rows:,} labelled rows of late are too few for a verdict"
            own[segment] = replace(verdict, sentence=f"{segments.named(segment)} by itself: {told}")
        return own


def _read(size: Architecture) -> int:
    """How many of the features a refit may use: the network's own; of a model that is no network
    its logits and the columns beside them, which are all that a heal has.
    """
    return size.plain if size.scored and size.plain <= MOST_READ else size.hidden


def _gist(verdict: Diagnosis) -> tuple[Advice, bool, bool]:
    """What must change for a verdict to be worth repeating."""
    return verdict.advice, verdict.base_rate_moved, verdict.inputs_moved


class RuleWatch:
    """The rules as they count now: stale ones left out or moved, as the policy says."""

    def __init__(self, run: SessionContext) -> None:
        config, prepared = run.config, run.prepared
        self._health = RuleHealth(prepared.rule_calibration, z=config.policy.rule_rate_z)
        self._given = prepared.trained.rules
        self._recorder = run.recorder
        guarded = kind_of(config.heal.recipe).guarded
        self._treatment = config.policy.stale_rules if guarded else "keep"
        self._stale: frozenset[str] = frozenset()
        self._failed: set[str] = set()
        self._sound: dict[str, int] = {}  # batches in range again, of those that are stale
        self.rules = prepared.trained.rules
        self.several = len(self._given.rules) > 1  # then they vote, and may abstain

    def judge(self, batch: int, columns: Columns) -> RuleVerdict:
        """What the rules say of a batch, before it counts in what they are judged by."""
        table = RuleTable(columns, goes_on=True)
        verdict = self.rules.judge(table)
        self._health.observe(table)
        for name in sorted(table.failures.keys() - self._failed):
            self._failed.add(name)
            note = PartFailed(batch=batch, reason=table.failures[name], part=f"rule '{name}'")
            self._recorder.note(note)
        self._tell(batch)
        return verdict

    def _tell(self, batch: int) -> None:
        """Note which rules have become stale, and which are sound again."""
        stale = {str(one.rule): one for one in self._health.stale()}
        self._sound = {
            name: self._sound.get(name, 0) + 1 for name in self._stale if name not in stale
        }
        recovered = {name for name, batches in self._sound.items() if batches >= RECOVERED}
        if not recovered and frozenset(stale) <= self._stale:
            return
        for name in sorted(frozenset(stale) - self._stale):
            one = stale[name]
            moved = self._health.reanchored(one.rule) if self._treatment == "reanchor" else None
            self._recorder.note(
                RuleStale(
                    batch=batch, rule=name, reason=str(one), treatment=self._treatment,
                    now="" if moved is None else str(moved), trained_rate=one.trained_rate,
                    rate=one.rate, rows=one.rows, z=one.z,
                )
            )  # fmt: skip
        for name in sorted(recovered):
            reason = f"rule '{name}' fires as often as in training again"
            self._recorder.note(RuleStale(batch=batch, rule=name, reason=reason))
        self._stale = (self._stale | frozenset(stale)) - recovered
        self._apply()

    def _apply(self) -> None:
        if self._treatment == "keep":
            return
        rules = []
        for rule in self._given.rules:
            if str(rule) not in self._stale:
                rules.append(rule)
            elif self._treatment == "reanchor":
                rules.append(self._health.reanchored(rule))
        self.rules = self._given.with_rules(rules)
