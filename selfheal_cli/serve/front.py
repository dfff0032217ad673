"""What the routes of the scoring process share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from selfheal_cli.errors import NotWritten, RequestRefused
from selfheal_cli.serve.companion import Companion
from selfheal_cli.serve.feedback import Labels, Outcome, as_feedback
from selfheal_cli.serve.following import Following
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.serve.lanes import Lanes
from selfheal_cli.serve.meters import Meters
from selfheal_cli.serve.protocol import AT_ONCE_BYTES, Answer, Scored, full_answer, quick_answer
from selfheal_cli.serve.recent import Recent
from selfheal_cli.serve.recorder import Recorder
from selfheal_cli.serve.scorer import Scorer
from selfheal_cli.serve.settings import ServerSettings
from selfheal_cli.serve.tracing import Tracing
from selfheal_cli.spool.board import Board
from selfheal_cli.spool.rows import Answered
from selfheal_cli.spool.store import Spool


@dataclass(frozen=True, slots=True)
class Front:
    """One a server."""

    settings: ServerSettings
    scorer: Scorer
    board: Board
    spool: Spool
    recorder: Recorder
    following: Following
    keeper: Keeper
    companion: Companion
    meters: Meters
    tracing: Tracing
    lanes: Lanes
    recent: Recent

    @property
    def model(self) -> str:
        """The registered model's name."""
        return self.settings.healer.model

    async def invoke(self, body: bytes, content_type: str | None) -> Answer:
        """Score a body: small ordinary ones at once, all others in a thread."""
        asked = (self.scorer.served, body, content_type, self.settings.key,
                 self.settings.limits.rows)  # fmt: skip
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

    def record(self, scored: Scored, request_id: str) -> None:
        """Have what was answered written down."""
        served = scored.served
        self.meters.rows.labels(served.shown_version).inc(len(scored.probabilities))
        self.recorder.take(
            Answered(
                request=request_id,
                columns=scored.columns,
                probabilities=scored.probabilities,
                snapshot=served.snapshot,
                threshold=served.threshold,
                at=time.time(),
                keys=scored.keys,
            )
        )

    def join(self, told: Labels) -> Outcome:
        """Join labels to their rows, those that were answered just now among them."""
        labels = as_feedback(told, self.scorer.served.labels, self.settings.limits.rows)
        try:
            self.recorder.flush()
            found = self.spool.label(labels)
        except NotWritten as exc:
            raise RequestRefused(
                "labels cannot be kept now; send them again later",
                status=503, code="TEMPORARILY_UNAVAILABLE", reason="disk",
            ) from exc  # fmt: skip
        for outcome in ("joined", "repeated", "unknown"):
            self.meters.labels.labels(outcome).inc(getattr(found, outcome))
        return Outcome(joined=found.joined, repeated=found.repeated, unknown=found.unknown)
