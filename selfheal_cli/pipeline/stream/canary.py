"""A healed version that answers a share of the requests, until it is known to be better or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selfheal_cli.anytime import RunningMean
from selfheal_cli.config import RunConfig
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.events.types import CanaryCompared
from selfheal_cli.heal.engine import Serving, Tried
from selfheal_cli.labels.queue import Scored
from selfheal_cli.pipeline.stream.comparison import PairedRows, ScoredTwice
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.ordered import OrderedCanary, TriedNetwork
from selfheal_cli.records import Batch, OtherInputs
from selfheal_cli.registry.base import HEAL
from selfheal_cli.spool.entries import Cursor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

WEEK = 604_800.0  # seconds
Outcome = Literal["promoted", "proposed", "withdrawn"]


@dataclass(frozen=True, slots=True)
class CanaryLimits:
    """By what a canary is decided, as the policy and the labels have it; times in seconds."""

    share: float
    by: str
    delay: float
    margin: float
    level: float
    limit: float

    @classmethod
    def of(cls, config: RunConfig) -> CanaryLimits | None:
        """None where no canary is wanted; raises `ConfigurationError` where nobody said how late
        labels come.
        """
        policy, after = config.policy, config.labels.negative_after
        if policy.canary_share is None:
            return None
        if policy.canary_delay is None and after is None:
            raise ConfigurationError(
                "policy.canary_share: nobody says how late labels come, and rows whose labels come "
                "first are no fair sample; set policy.canary_delay, such as 7d, or "
                "labels.negative_after"
            )
        delay = max(policy.canary_delay or 0.0, after or 0.0)
        limit = policy.canary_limit or delay + WEEK
        if limit <= delay:
            raise ConfigurationError(
                f"policy.canary_limit: {limit:g} seconds are over before the first labels count, "
                f"after {delay:g}; give a longer time"
            )
        by = policy.canary_by or ""
        return cls(policy.canary_share, by, delay, policy.canary_margin, policy.canary_level, limit)


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that is tried: ``served`` beside the champion that it is held ``against``.

    ``since`` and ``until`` are times of the server, in seconds since 1970. ``seen`` are the
    differences so far, of ``rows`` labelled rows, up to those that were read ``through`` there.
    One that a person ``ordered``, by name, is the registry's ``own``; else a ``heal_id`` made it.
    """

    served: Serving
    against: Serving
    heal_id: str
    share: float
    by: str
    since: float
    until: float
    seen: RunningMean = field(default_factory=RunningMean)
    rows: int = 0
    through: Cursor = field(default_factory=Cursor)
    own: TriedNetwork | None = None
    ordered: str = ""

    @property
    def base(self) -> str:
        """The id of its own base; empty where it stands on the champion's."""
        return self.own.base if self.own is not None else ""

    @property
    def why(self) -> str:
        """Who made it, or wanted it, as the first words of a move's reason."""
        if self.ordered and self.own is not None:
            return f"v{self.own.version}, tried for {self.ordered}"
        return f"{HEAL}{self.heal_id}"


@dataclass(frozen=True, slots=True)
class TriedBefore:
    """What an earlier run tried when it ended: a ``canary`` that goes on, of that ``version``; or
    one that does not, and ``over`` says why. An ``order`` came while no run was there to take it.
    """

    canary: Canary | None = None
    version: int = 0
    over: str = ""
    order: OrderedCanary | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What is to become of a canary, and why; ``by`` somebody, where a person said so."""

    outcome: Outcome
    reason: str
    by: str = ""


class CanaryTrial:
    """Holds a canary against the champion on the rows that are scored while it runs.

    Both score every row here, on features that were computed once or each on its own base's; the
    share decides only whose answer a caller got. Neither learned from any of these rows.
    """

    def __init__(self, run: SessionContext) -> None:
        config = run.config
        self._source = run.source
        self.limits = CanaryLimits.of(config) if config.source.kind == "served" else None
        self.now: Canary | None = None
        self._labels, self._batch_size = config.labels, config.batch_size
        self._recorder, self._live = run.recorder, run.live
        self._rows = self._queue()
        self.at = float("-inf")  # when the latest row was scored
        self._place = Cursor()

    def begin(
        self, served: Serving, heal_id: str, own: TriedNetwork | None = None, ordered: str = ""
    ) -> Canary:
        """Try a version from the next batch on."""
        assert self.limits is not None  # noqa: S101 - who tries one has looked
        until = self.at + self.limits.limit
        canary = Canary(
            served, self._live.serving, heal_id, self.limits.share, self.limits.by, self.at, until,
            through=self._place, own=own, ordered=ordered,
        )  # fmt: skip
        self.go_on(canary)
        return canary

    def go_on(self, canary: Canary) -> None:
        """Hold it against the champion."""
        self.now, self._rows = canary, self._queue()
        self._source.make_beside(canary.own.encoding if canary.own is not None else None)
        self._live.try_out(Tried(canary.served, canary.share, canary.by, canary.until, canary.base))

    def end(self) -> None:
        """None is tried any more."""
        self.now, self._rows = None, self._queue()
        self._source.make_beside(None)
        self._live.try_out(None)

    def observe(
        self, scored: Scored, batch: Batch, may: NDArray[np.bool_] | None, held: Sequence[Scored]
    ) -> Decided | None:
        """Take the rows of a batch, and the labels that came with it; what that decides, if any.

        Rows may be labelled where ``may`` (n,) is true; the labels of ``held`` are not believed.
        """
        if batch.at is None:
            return None
        self.at = max(self.at, float(batch.at.max()))
        self._place = Cursor(**batch.offsets)
        if self.now is None:
            return None
        if batch.late is not None:
            self._rows.label(batch.late)
        self._add(scored, batch, may)
        for part in held:
            self._rows.leave_out(part.batch, part.place)
        for one in self._rows.ripe(self.at):
            seen = self.now.seen.plus(one.value)
            self.now = replace(
                self.now, seen=seen, rows=self.now.rows + one.rows, through=Cursor(**one.through)
            )
            self._note(one.batch, one.rows, one.positives, one.value)
            decided = self._decided()
            if decided is not None:
                return decided
        return self._timed_out()

    def recall(self, scored: Scored, batch: Batch, may: NDArray[np.bool_] | None) -> None:
        """Rows that were scored before a restart while this canary ran, with what is known of them
        by now; none that were counted then.
        """
        if self.now is None or batch.at is None:
            return
        began, self._place = self._place, Cursor(**batch.offsets)
        self.at = max(self.at, float(batch.at.max()))
        if not self.now.through.is_beyond(began):
            self._add(scored, batch, may)

    def _add(self, scored: Scored, batch: Batch, may: NDArray[np.bool_] | None) -> None:
        canary = self.now
        assert canary is not None  # noqa: S101 - who adds has looked
        assert scored.at is not None  # noqa: S101 - as the source of served rows has it
        rows = scored if may is None else scored.where(may)
        if canary.base:
            rows, x = _having(rows, batch.others)
        if not len(rows):
            return
        network = canary.served.network
        self._rows.add(
            ScoredTwice(
                scored.batch, rows.place, rows.y,
                canary.against.network.predict_features(rows.features),
                network.predict(x) if canary.base else network.predict_features(rows.features),
                float(scored.at.max()), rows.weight, dict(batch.offsets),
            )
        )  # fmt: skip

    def _note(self, batch: int, rows: int, positives: int, value: float) -> None:
        canary = self.now
        assert canary is not None and self.limits is not None  # noqa: S101 - one runs
        bounds = canary.seen.interval(self.limits.level)
        low, high = bounds or (None, None)
        seen = asdict(canary.seen)
        self._recorder.note(
            CanaryCompared(
                batch=batch, rows=rows, positives=positives, difference=value, low=low, high=high,
                seen=seen, rows_in_all=canary.rows, through=canary.through.as_dict(),
            )
        )  # fmt: skip

    def _decided(self) -> Decided | None:
        canary, limits = self.now, self.limits
        assert canary is not None and limits is not None  # noqa: S101 - one runs
        bounds = canary.seen.interval(limits.level)
        if bounds is None:
            return None
        if bounds[1] < 0.0:
            return Decided("withdrawn", f"it is worse: {self.figures()}")
        if bounds[0] > -limits.margin:
            than = f"not worse by more than {limits.margin:g}" if limits.margin else "better"
            return Decided("promoted", f"it is {than}: {self.figures()}")
        return None

    def _timed_out(self) -> Decided | None:
        canary = self.now
        if canary is None or self.at < canary.until:
            return None
        hours = (canary.until - canary.since) / 3_600.0
        lost = f"; {self._rows.lost} rows had to go unlabelled" if self._rows.lost else ""
        return Decided("withdrawn", f"not decided within {hours:g} hours: {self.figures()}{lost}")

    def figures(self) -> str:
        """What is known of the difference, in words."""
        canary, limits = self.now, self.limits
        assert canary is not None and limits is not None  # noqa: S101 - one runs
        if not canary.seen.count:
            return "no labelled rows were compared"
        bounds = canary.seen.interval(limits.level)
        between = f" ({bounds[0]:+.4f} to {bounds[1]:+.4f})" if bounds else ""
        return (
            f"the champion's log loss a row minus its own is {canary.seen.mean:+.4f}{between} on "
            f"{canary.rows} labelled rows in {canary.seen.count} batches"
        )

    def _queue(self) -> PairedRows:
        delay = self.limits.delay if self.limits else 0.0
        matures = self._labels.negative_after is not None
        return PairedRows(delay, self._batch_size, self._labels.keep, matures=matures)

    def told(self) -> dict[str, Any]:
        """The figures so far, as the event of its end has them."""
        canary, limits = self.now, self.limits
        assert canary is not None and limits is not None  # noqa: S101 - one runs
        low, high = canary.seen.interval(limits.level) or (None, None)
        return {
            "snapshot": canary.served.snapshot, "heal_id": canary.heal_id,
            "batches": canary.seen.count, "rows": canary.rows,
            "difference": canary.seen.mean if canary.seen.count else None,
            "low": low, "high": high,
        }  # fmt: skip


def _having(rows: Scored, others: OtherInputs | None) -> tuple[Scored, FloatArray]:
    """Those of the rows whose callers sent the other columns as well, with the inputs of these."""
    if others is None:
        return rows.where(np.zeros(len(rows), dtype=np.bool_)), np.empty((0, 0), np.float32)
    rows = rows.where(np.isin(rows.place, others.place))
    return rows, others.x[np.searchsorted(others.place, rows.place)]
