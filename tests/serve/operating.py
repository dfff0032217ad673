"""A channel with a healer's words on it, a healer that answers orders, and a server beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from selfheal_cli.report.gains import FigureGain
from selfheal_cli.serve.app import explain_refusals
from selfheal_cli.serve.http.auth import Guard
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.middleware import Gate
from selfheal_cli.serve.http.openapi import documented
from selfheal_cli.serve.operator.routes import operator_routes
from selfheal_cli.serve.operator.status import (
    HEALER,
    Candidate,
    Champion,
    Drift,
    Happening,
    Judged,
    ModelStatus,
    Proposed,
    ServerInfo,
    Stretch,
)
from selfheal_cli.serve.server import bound, url_of
from selfheal_cli.serve.settings import Limits, Sites, Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import PATIENCE
from tests.serve.conftest import in_thread

FACTS = ServerInfo(model="fraud", version=12, snapshot="s-12", threshold=0.41, queue=2)
DIGEST = "5f1c" * 16
WORSE = ModelStatus(
    state="ROLLED_BACK",
    pid=4711,
    run_id="8d1f0a6c2b7e4f3a9c5d1e2f3a4b5c6d",
    batch=212,
    rows=21_200,
    waiting=37,
    pending_writes=1,
    drift=Drift(feature="V14", z=2.31, threshold=1.0, drifting=True),
    monitors={"psi": 0.31, "ks": 0.06, "missing": 0.0},
    alarms=("psi",),
    conflicts=418,
    heals={"healed": 9, "rejected": 2, "refused": 0, "failed": 1, "coalesced": 0},
    rollbacks=1,
    notes={"missing values": 3},
    labels=18_040,
    labels_unknown=12,
    labels_at="2026-11-25T21:58:11.204+00:00",
    history=tuple(
        Stretch(at=f"2026-11-25T{18 + hour}:30:00.000+00:00", batch=50 * hour + 1, batches=50,
                z=(0.4, 0.8, 1.9, 2.3)[hour], labels=(5_000, 5_000, 5_000, 3_040)[hour],
                live=(0.92, 0.9, 0.84, 0.78)[hour], shadow=(0.92, 0.9, 0.86, 0.81)[hour])
        for hour in range(4)
    ),
    live=Judged(rows=18_040, figures={"f1": 0.402, "accuracy": 0.861, "precision": 0.44,
                                      "recall": 0.37}),
    shadow=Judged(rows=18_040, figures={"f1": 0.517, "accuracy": 0.873, "precision": 0.5,
                                        "recall": 0.535}),
    compared=(
        FigureGain("F1", None, 0.517, 0.402, -0.15, -0.08, 18_040, 200),
        FigureGain("accuracy", None, 0.873, 0.861, -0.02, -0.004, 18_040, 200),
    ),
    mode="recommend",
    mode_by="ann",
    mode_reason="first week",
    proposals=(
        Proposed(number=7, version=13, by="selfheal", at="2026-11-25T21:58:00.000+00:00",
                 reason="heal h7: new labels", expires="2026-11-26T21:58:00.000+00:00"),
    ),
    champion=Champion(
        version=12, since="2026-11-25T21:57:02.000+00:00", by="selfheal", reason="F1 fell by 0.09"
    ),
    candidates=(
        Candidate(version=12, f1=0.61, rows=900, phase="post-heal", recipe="anchored",
                  at="2026-11-25T20:11:42.000+00:00"),
        Candidate(version=9, f1=0.584, rows=700, phase="post-heal", recipe="anchored",
                  at="2026-11-25T19:47:10.000+00:00"),
        Candidate(version=1, f1=None, rows=0, phase="baseline", recipe="anchored",
                  at="2026-11-25T18:00:00.000+00:00"),
    ),
    happenings=(
        Happening(at="2026-11-25T21:57:02.000+00:00", kind="rollback",
                  text="to v12: mean F1 of 5 heals fell by 0.09"),
        Happening(at="2026-11-25T21:55:40.000+00:00", kind="heal",
                  text="v14 on 2,500 rows: F1 0.55 to 0.57 on 200 held-out rows"),
        Happening(at="2026-11-25T21:51:13.000+00:00", kind="heal-rejected",
                  text="worse on 180 held-out rows: F1 0.55 to 0.49"),
    ),
)  # fmt: skip
BETTER = WORSE.model_copy(
    update={
        "state": "HEALTHY",
        "live": Judged(rows=18_040, figures={"f1": 0.612, "accuracy": 0.901, "precision": 0.66}),
        "compared": (
            FigureGain("F1", None, 0.517, 0.612, 0.06, 0.13, 18_040, 200),
            FigureGain("accuracy", None, 0.873, 0.901, 0.02, 0.036, 18_040, 200),
        ),
        "alarms": (),
        "drift": Drift(feature="V14", z=0.4, threshold=1.0, drifting=False),
    }
)


class Healer:
    """Answers orders from the channel as the healer does, and keeps what it was asked."""

    def __init__(self, channel: ControlChannel, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self.orders: list[tuple[str, Mapping[str, Any]]] = []
        self._channel = channel
        self._answers = answers
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Healer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._end.wait(0.02):
            order = self._channel.take_command(0.0)
            if order is not None:
                self.orders.append((order.kind, order.argument))
                self._channel.answer(order.number, self._answers[order.kind])


ANSWERS: dict[str, dict[str, Any]] = {
    "plan": {
        "ok": True,
        "plan": {
            "lines": [
                "serves now: v12, F1 0.610 on 900 rows",
                "would serve: v9, F1 0.584 on 700 rows",
            ],
            "notes": ["v9's F1 rests on few rows"],
            "from": 12,
            "to": 9,
            "digest": DIGEST,
        },
    },
    "rollback": {"ok": True, "move": {"source": 12, "target": 9}},
    "canary-plan": {
        "ok": True,
        "plan": {"lines": ["v9 is tried"], "notes": [], "from": 9, "to": 0, "digest": DIGEST},
    },
    "canary": {"ok": True, "move": {"source": 9, "target": 0}},
    "mode-plan": {
        "ok": True,
        "plan": {
            "lines": ["auto now: heals serve", "shadow then: nothing is published"],
            "notes": [],
            "from": "auto",
            "to": "shadow",
            "digest": "auto-shadow",
        },
    },
    "mode": {"ok": True, "mode": "shadow", "before": "auto"},
    "approve-plan": {
        "ok": True,
        "plan": {"lines": ["would serve: v9"], "notes": [], "from": 12, "to": 9, "digest": DIGEST},
    },
    "approve": {"ok": True, "move": {"source": 12, "target": 9}, "proposal": 7},
    "reject": {"ok": True, "proposal": 7, "reason": "by hand"},
    "hold": {"ok": True, "reason": "by hand"},
    "release": {"ok": True, "reason": "by hand"},
}
REFUSED = {"ok": False, "error": "the champion was moved to v13 by ann since the plan was made"}


@contextmanager
def serving(app: Gate) -> Iterator[str]:
    """The app behind real HTTP on a free port; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with bound("127.0.0.1", 0) as listening, in_thread(server, listening):
        yield url_of(listening)


class Timeless(ControlChannel):
    """A channel whose healer has just spoken, however slow a test is."""

    def now(self) -> float:
        return self.status(HEALER)[1] or super().now()


def channel_with(path: Path, standing: ModelStatus | None) -> ControlChannel:
    """A channel on which a healer said this."""
    channel = Timeless(path / "spool.db")
    if standing is not None:
        channel.set_status(HEALER, standing.as_status())
    return channel


def operator_app(
    channel: ControlChannel,
    tokens: Tokens | None = None,
    wait_seconds: float = PATIENCE,
    sites: Sites | None = None,
) -> Gate:
    """The operator's routes alone, behind the gate."""
    app, meters, guard = FastAPI(), ServerMetrics(), Guard(tokens or Tokens(), sites)
    explain_refusals(app, meters)
    app.include_router(operator_routes(channel, meters, lambda: FACTS, guard, wait_seconds))
    documented(app)
    return Gate(app, guard, Limits(), meters)
