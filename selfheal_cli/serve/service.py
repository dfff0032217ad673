"""What the routes of the scoring process share."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from selfheal_cli.errors import RequestRefused, StorageError
from selfheal_cli.labels.selection import LabelSelection, lots_of
from selfheal_cli.serve.healer.supervisor import Supervisor
from selfheal_cli.serve.http.access_log import AccessLog
from selfheal_cli.serve.http.auth import Guard
from selfheal_cli.serve.http.feedback import Labels, Outcome, as_feedback
from selfheal_cli.serve.http.invocations import (
    AT_ONCE_BYTES,
    Answer,
    ScoredRequest,
    full_answer,
    quick_answer,
)
from selfheal_cli.serve.http.lanes import Lanes
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.model import ModelReloader, Scorer
from selfheal_cli.serve.http.parsing import parsed
from selfheal_cli.serve.http.recent import RecentIds
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.serve.settings import Right, ServerSettings
from selfheal_cli.serve.staff import ProcessWord, Staff
from selfheal_cli.serve.tracing import Tracing
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.entries import LoggedRequest
from selfheal_cli.spool.recorder import GROUP_SECONDS, Recorder
from selfheal_cli.spool.store import Spool

OTHERS_SECONDS = 3 * GROUP_SECONDS


@dataclass(frozen=True, slots=True)
class ScoringService:
    """One a server."""

    settings: ServerSettings
    scorer: Scorer
    channel: ControlChannel
    spool: Spool
    recorder: Recorder
    following: ModelReloader
    keeper: Keeper | None  # of a worker, the one that began it has them
    supervisor: Supervisor | None
    staff: Staff | None
    meters: ServerMetrics
    tracing: Tracing
    lanes: Lanes
    recent: RecentIds
    guard: Guard
    access_log: AccessLog | None
    selection: LabelSelection | None = None

    @property
    def model(self) -> str:
        """The registered model's name."""
        return self.settings.healer.model

    def others(self) -> list[ProcessWord]:
        """What the server's other processes said last, where it has some."""
        with suppress(StorageError):  # the recorder says so
            return [] if self.staff is None else self.staff.words()
        return []

    def healer(self) -> tuple[int | None, int]:
        """The healer's process, and how often one ended by itself."""
        if self.supervisor is not None:
            return self.supervisor.pid, self.supervisor.restarts
        words = [word for word in self.others() if word.alive and not word.scores]
        return (words[0].healer_pid, words[0].healer_restarts) if words else (None, 0)

    async def invoke(self, body: bytes, content_type: str | None, request_id: str) -> Answer:
        """Score a body: small ordinary ones at once, all others in a thread."""
        served, trial = self.scorer.choose(request_id)
        asked = (served, body, content_type, self.settings.key, self.settings.limits.rows, trial)
        if len(body) <= AT_ONCE_BYTES:
            quick = quick_answer(*asked)
            if quick is not None:
                return quick
            return await self.lanes.small.run(len(body), lambda: full_answer(*asked))

        def either() -> Answer:
            return quick_answer(*asked) or full_answer(*asked)

        return await self.lanes.large.run(len(body), either)

    async def stands_for(self, request_id: str, body: bytes) -> bool:
        """Whether a caller's id is new, or stood for the same body before."""
        content = hash(body) if len(body) <= AT_ONCE_BYTES else await asyncio.to_thread(hash, body)
        return self.recent.stands_for(request_id, content)

    def record(self, scored: ScoredRequest, request_id: str) -> None:
        """Have what was answered written down."""
        served, canary = scored.served, self.scorer.canary
        self.meters.rows.labels(served.shown_version).inc(len(scored.probabilities))
        if canary is not None and served is canary.served:
            self.scorer.canary_rows += len(scored.probabilities)
        self.recorder.take(
            LoggedRequest(
                request=request_id,
                columns=scored.columns,
                probabilities=scored.probabilities,
                snapshot=served.snapshot,
                threshold=served.threshold,
                at=time.time(),
                keys=scored.keys,
            )
        )

    def let_through(self, scored: ScoredRequest, request_id: str) -> str:
        """Places of the rows that are to be let through although the condition is not true."""
        if self.selection is None:
            return ""
        served, p = scored.served, scored.probabilities
        lots = lots_of(request_id, 0, len(p))
        columns = served.quick.encoding.cleaned(scored.columns)
        by_lot = self.selection.chosen(lots)
        by_lot &= ~self.selection.let_through(columns, p, served.threshold)
        return ",".join(map(str, by_lot.nonzero()[0].tolist()))

    def join(self, body: bytes, caller: str) -> Outcome:
        """Join the labels that a caller tells to their rows, those answered just now among them."""
        labels = as_feedback(
            parsed(Labels, body), self.scorer.served.labels, self.settings.limits.rows
        )
        if self.staff is not None:
            time.sleep(OTHERS_SECONDS)  # till most rows of others are there; labels wait for more
        try:
            self.recorder.flush()
            operates = self.guard.may(caller, Right.OPERATE)

            def corrects(teller: str) -> bool:
                return operates or teller == caller

            counts = self.spool.label(
                labels, caller, time.time(), corrects, beside=self.staff is not None
            )
        except StorageError as exc:
            raise RequestRefused(
                "labels cannot be kept now; send them again later",
                status=503, code="TEMPORARILY_UNAVAILABLE", reason="disk",
            ) from exc  # fmt: skip
        outcome = Outcome(
            joined=counts.joined, repeated=counts.repeated, unknown=counts.unknown,
            contradicting=counts.other, corrected=counts.corrected,
        )  # fmt: skip
        for name, count in outcome.model_dump().items():
            self.meters.labels.labels(name).inc(count)
        return outcome
