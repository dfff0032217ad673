"""Would the monitors of a run find a change in its table, when, and would healing pay?

The table is gone through once as it is. At each of several dates the session is copied, and the
copy goes on with a change in its rows: before the date, and in all draws, both are the same.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import DataError
from selfheal_cli.events.event import Event
from selfheal_cli.events.evidence import quantile
from selfheal_cli.events.types import BatchScored, MonitorAlarmed
from selfheal_cli.kinds import UNCHANGED
from selfheal_cli.pipeline.offline.compare import BaselineScorer
from selfheal_cli.pipeline.offline.injections import KINDS, POOL, Subject, subject_of
from selfheal_cli.pipeline.offline.jobs import side_by_side
from selfheal_cli.pipeline.prepare.baseline import Prepared, Trained, survey, train_networks
from selfheal_cli.pipeline.stream.memory import CountingLog, Replay
from selfheal_cli.records import Batch
from selfheal_cli.sources.base import Source

QUIET = 10  # batches before the first date: monitors look at so many together
LONGEST, SHORTEST = 25, 5  # batches of a change
LEVEL = 0.95


class AlarmLog(CountingLog):
    """Keeps which monitors were loud in which batch, and how often each began to be."""

    def __init__(self) -> None:
        super().__init__()
        self.loud: dict[int, frozenset[str]] = {}
        self.begun: Counter[str] = Counter()

    def append(self, event: Event) -> Event:
        """Count one."""
        if isinstance(event, BatchScored):
            loud = (name for name, one in event.monitors.items() if one["level"] == "alarm")
            self.loud[event.batch] = frozenset(loud)
        elif isinstance(event, MonitorAlarmed):
            self.begun[event.monitor] += 1
        return super().append(event)


@dataclass(frozen=True, slots=True)
class Dated:
    """A change from batch ``date`` on: by monitor, how many batches until its alarm, of those that
    the untouched run has not within the same lag; and a figure of the changed rows.
    """

    date: int
    lags: Mapping[str, int]
    healed: float
    frozen: float

    @property
    def lag(self) -> int | None:
        """Batches until the first alarm; 1 is the first that is changed."""
        return min(self.lags.values(), default=None)


@dataclass(frozen=True, slots=True)
class GainInterval:
    """What healing gave in the mean of some dates, with its interval over these."""

    mean: float
    low: float
    high: float

    @classmethod
    def over(cls, gains: Sequence[float]) -> GainInterval:
        """By Student's t."""
        reach = quantile((1 + LEVEL) / 2, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
        mean = fmean(gains)
        return cls(mean, mean - reach, mean + reach)


@dataclass(frozen=True, slots=True)
class InjectionRow:
    """A kind of change over all its dates: what healing gave by date, 1 is better by 1."""

    kind: str
    dates: tuple[Dated, ...]
    gains: tuple[float, ...]

    @property
    def gain(self) -> GainInterval:
        """Of the healed model over the frozen one, on the changed rows."""
        return GainInterval.over(self.gains)

    def gain_beyond(self, other: InjectionRow) -> GainInterval:
        """What it is more than that of the same rows under another change, or none."""
        pairs = zip(self.gains, other.gains, strict=True)
        return GainInterval.over([own - others for own, others in pairs])

    @property
    def share(self) -> float:
        """Of the dates, those at which it was noticed."""
        return sum(one.lag is not None for one in self.dates) / len(self.dates)

    @property
    def lag(self) -> float | None:
        """The median over the dates at which it was noticed."""
        lags = [one.lag for one in self.dates if one.lag is not None]
        return median(lags) if lags else None

    @property
    def by(self) -> dict[str, int]:
        """At how many dates each monitor noticed it, the most often first."""
        return dict(Counter(name for one in self.dates for name in one.lags).most_common())


@dataclass(frozen=True, slots=True)
class Untouched:
    """The table as it is: its batches, and alarms that began, by monitor."""

    batches: int
    alarms: Mapping[str, int]

    def per_thousand(self, monitor: str | None = None) -> float:
        """Alarms of one or of all in 1,000 batches."""
        count = sum(self.alarms.values()) if monitor is None else self.alarms.get(monitor, 0)
        return 1000 * count / self.batches


@dataclass(frozen=True, slots=True)
class Injection:
    """All that was tried: ``figure`` is what was judged, over ``length`` changed batches a date;
    ``beside`` are the same dates without a change.
    """

    rows: tuple[InjectionRow, ...]
    beside: InjectionRow
    untouched: Untouched
    figure: str
    length: int
    batch_size: int


def inject(
    config: RunConfig,
    source: Source,
    kinds: Sequence[str],
    count: int,
    on_done: Callable[[str], None],
    jobs: int = 1,
) -> Injection:
    """Try each kind at ``count`` dates; raises `DataError` where rows are too few for them."""
    dates, length = dates_of(source, config, count)
    trained = train_networks(config, source, lambda done, total: None)
    on_done("training")
    every = (UNCHANGED, *kinds)
    parts = [every[part::jobs] for part in range(min(jobs, len(every)))]
    tasks = [(config, source, trained, part, dates, length) for part in parts]
    rows: dict[str, InjectionRow] = {}
    untouched: list[Untouched] = []  # the same in each process
    for of_part, alone in side_by_side(jobs, _try, tasks):
        untouched.append(alone)
        for row in of_part:
            on_done(row.kind)
            rows[row.kind] = row
    return Injection(
        tuple(rows[kind] for kind in kinds), rows[UNCHANGED], untouched[0],
        config.objective.kind, length, config.batch_size,
    )  # fmt: skip


def dates_of(source: Source, config: RunConfig, count: int) -> tuple[list[int], int]:
    """Batches at which changes begin, and how long each is: they do not overlap."""
    batches = source.batch_count or 0
    length = min(LONGEST, (batches - QUIET) // count)
    if length < SHORTEST:
        raise DataError(
            f"the stream has {batches:,} batches of {config.batch_size:,} rows, and {count} dates "
            f"need {QUIET + SHORTEST * count}: give more rows or a smaller --batch-size"
        )
    step = (batches - QUIET) / count
    return [QUIET + 1 + int(place * step) for place in range(count)], length


def _try(
    config: RunConfig,
    source: Source,
    trained: Trained,
    kinds: Sequence[str],
    dates: Sequence[int],
    length: int,
) -> tuple[list[InjectionRow], Untouched]:
    """Go through the table once, and aside from it at each date."""
    prepared, subject = survey(config, source, trained), subject_of(source, trained)
    log = AlarmLog()
    session = Replay(config, source, prepared, log)
    asides: list[tuple[str, int, _Aside]] = []
    batches = 0
    for ahead in _with_those_after(source.batches(), length + POOL):
        batch = ahead[0]
        if batch.index in dates:
            for kind in kinds:
                seed = [config.seed, list(KINDS).index(kind), batch.index]
                draw = np.random.default_rng(seed)
                aside = _aside(session, prepared, subject, kind, ahead, length, draw)
                asides.append((kind, batch.index, aside))
        session.step(batch)
        batches += 1
    figure = config.objective.kind
    rows = []
    for kind in kinds:
        own = [aside.against(date, log) for of, date, aside in asides if of == kind]
        rows.append(_row(kind, own, sign=-1 if figure == "cost" else 1))
    return rows, Untouched(batches, dict(log.begun))


def _with_those_after(batches: Iterator[Batch], count: int) -> Iterator[Sequence[Batch]]:
    """Each batch with up to ``count`` that follow."""
    ahead: deque[Batch] = deque()
    for batch in batches:
        ahead.append(batch)
        if len(ahead) > count:
            yield tuple(ahead)
            ahead.popleft()
    while ahead:
        yield tuple(ahead)
        ahead.popleft()


@dataclass(frozen=True, slots=True)
class _Aside:
    """What was seen aside: loud monitors by batch, and the figure healed and frozen."""

    loud: Mapping[int, frozenset[str]]
    healed: float
    frozen: float

    def against(self, date: int, untouched: AlarmLog) -> Dated:
        """Count the alarms that the untouched run has not within the same lag."""
        lags: dict[str, int] = {}
        known: set[str] = set()
        for batch, names in sorted(self.loud.items()):
            known |= untouched.loud.get(batch, frozenset())
            for name in names - known:
                lags.setdefault(name, batch - date + 1)
        return Dated(date, lags, self.healed, self.frozen)


def _aside(
    session: Replay,
    prepared: Prepared,
    subject: Subject,
    kind: str,
    ahead: Sequence[Batch],
    length: int,
    draw: np.random.Generator,
) -> _Aside:
    """A copy of the session goes on with changed rows."""
    log = AlarmLog()
    copied, config = session.copied(log), session.config
    judges = [BaselineScorer(config.objective, subject.classes) for _ in range(2)]
    for place in range(min(length, len(ahead))):
        injected = KINDS[kind](subject, ahead[place : place + POOL], draw)
        x = injected.batch.rows.x
        answers = copied.predict(x), prepared.trained.network.predict(x)
        for judge, probabilities in zip(judges, answers, strict=True):
            judge.see(probabilities)
            judge.judge(probabilities, injected.truth)
        copied.step(injected.batch)
    healed, frozen = (judge.figures()[config.objective.kind] for judge in judges)
    return _Aside(log.loud, healed, frozen)


def _row(kind: str, dates: Sequence[Dated], *, sign: int) -> InjectionRow:
    gains = tuple(sign * (one.healed - one.frozen) for one in dates)
    return InjectionRow(kind, tuple(dates), gains)
