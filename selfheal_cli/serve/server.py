"""The scoring process from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import uvicorn

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.labels.selection import LabelSelection
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.lease import healed_here
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.scoring import quiet
from selfheal_cli.serve.app import create_app, facts_of, guarded
from selfheal_cli.serve.healer import supervisor
from selfheal_cli.serve.healer.supervisor import Supervisor
from selfheal_cli.serve.http import access_log
from selfheal_cli.serve.http.auth import Guard
from selfheal_cli.serve.http.connections import Acceptor, patient, taken_over
from selfheal_cli.serve.http.invocations import full_answer
from selfheal_cli.serve.http.lanes import Lanes
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.model import (
    ModelReloader,
    Scorer,
    ServedModel,
    load_champion,
    served_up_to,
)
from selfheal_cli.serve.http.recent import RecentIds
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.serve.notify.sender import telling
from selfheal_cli.serve.operator.status import last_word
from selfheal_cli.serve.replicas import Replicas
from selfheal_cli.serve.service import ScoringService
from selfheal_cli.serve.settings import HealerSettings, ServerSettings
from selfheal_cli.serve.staff import ProcessWord, Staff, samples_of, somebody_scores
from selfheal_cli.serve.tracing import open_tracing
from selfheal_cli.sources.encoding import TEXTS
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.database import LogDatabase
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.places import place_of
from selfheal_cli.spool.recorder import Recorder
from selfheal_cli.spool.store import Spool

SWITCH_SECONDS = 0.0005  # that a thread which writes keeps the one which scores waiting
KEEP_ALIVE_SECONDS = 75  # longer than balancers keep an idle connection
# from SIGTERM to the end there are ten seconds: for callers who are about to ask once more, for
# answers that are under way, and for the healer
DRAIN_SECONDS, ANSWER_SECONDS = 1.0, 6
LOOK_SECONDS = 0.02


def serve(
    settings: ServerSettings,
    on_ready: Callable[[str, ScoringService], None],
    command: Sequence[str] = supervisor.COMMAND,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way; SIGHUP ends nothing.

    ``on_ready`` is called with the address once a request can be answered. The port is taken at
    once, and opened only then. Raises `ConfigurationError` where it is taken already and
    `RegistryError` where there is no champion that verifies.
    """
    with (
        ended_by_signal(),
        unmoved_by_hangup(),
        bound(settings.host, settings.port) as listening,
        opened(settings, command) as front,
    ):
        run(front, listening, lambda: on_ready(url_of(listening), front))


def run(front: ScoringService, listening: socket.socket, on_ready: Callable[[], object]) -> None:
    """Answer until a signal."""
    _undisturbed()
    on_end = front.supervisor.end if front.supervisor else lambda: None
    Server(config(front.settings, front), on_ready, on_end).run(sockets=[listening])


@contextmanager
def opened(
    settings: ServerSettings, command: Sequence[str], server: str | None = None
) -> Iterator[ScoringService]:
    """The champion, warm, with all that stands around it; ended in order.

    In one of several processes that score, ``server`` is the name that they have together: the one
    that began them keeps healer and spool. Without a ``command`` no healer is begun.
    """
    use_one_thread()
    quiet()
    healer = settings.healer
    registry = MlflowRegistry(healer.tracking_uri)
    with ExitStack() as stack:
        channel, spool = ControlChannel(place(healer)), Spool(place(healer))
        own = ControlChannel(spool_path(healer.model, healer.workspace))  # of this machine
        for one in (channel, spool, own):
            stack.callback(one.close)
        fence = channel.fence()
        scorer = Scorer(load_champion(registry, healer.model))
        here = (
            last_word(channel, channel.now()).heals
            if channel.shared
            else healed_here(registry, healer.model, healer.workspace)
        )
        if server is not None:
            here = here or somebody_scores(own, server)
        since = served_up_to(channel, scorer.served, fence, beside_healer=here)
        warm(scorer.served)
        meters = ServerMetrics()
        tracing = open_tracing("selfheal")
        stack.callback(tracing.close)
        alone = server is None
        front = ScoringService(
            settings=settings,
            scorer=scorer,
            channel=channel,
            spool=spool,
            recorder=Recorder(spool, meters.unrecorded.inc),
            following=ModelReloader(
                scorer, channel, lambda: registry, meters.publications_refused.inc, since
            ),
            keeper=Keeper(channel, spool, healer.keep_rows, healer.max_wait) if alone else None,
            supervisor=Supervisor(healer, meters, command) if alone and command else None,
            staff=None if server is None else Staff(own, server, lambda: word_of(front)),
            meters=meters,
            tracing=tracing,
            lanes=Lanes(),
            recent=RecentIds(),
            guard=Guard(settings.tokens, settings.sites),
            access_log=stack.enter_context(
                access_log.opened(settings.access_log, settings.access_format)
            ),
            selection=_selection(settings, scorer),
        )
        stack.callback(front.lanes.close)
        _start(front, stack)
        yield front


def place(healer: HealerSettings) -> Path | LogDatabase:
    """Where a served model's log is opened."""
    return place_of(healer.model, healer.workspace, healer.log)


def _start(front: ScoringService, stack: ExitStack) -> None:
    """Begin what works beside the requests, each to be ended in the other order."""
    if front.supervisor is not None:
        front.supervisor.start()
        stack.callback(front.supervisor.stop)
    if front.channel.shared and front.staff is None:
        replicas = Replicas(front.channel, front.spool, facts_of(front))
        replicas.start()
        stack.callback(replicas.stop)
    if front.staff is not None:  # which speaks once a request can be answered
        stack.callback(front.staff.stop)
    front.recorder.start()
    stack.callback(front.recorder.close)
    if front.keeper is not None:
        front.keeper.start()
        stack.callback(front.keeper.stop)
        stack.enter_context(telling(front.settings, front.channel, front.meters.registry))
    front.following.start()
    stack.callback(front.following.stop)


def word_of(front: ScoringService) -> ProcessWord:
    """What a worker says to the others."""
    return ProcessWord(
        pid=os.getpid(),
        scores=True,
        info=facts_of(front)(),
        samples=samples_of(front.meters.registry),
    )


def _undisturbed() -> None:
    """For the requests to come: what was loaded is never looked through for garbage again, and
    a thread that writes gives way soon to the one that scores.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)


def warm(served: ServedModel) -> None:
    """Score a row once each way, so that the first caller does not wait for what loads late."""
    columns = {
        column.name: np.array([""], dtype=object) if column.kind in TEXTS else np.zeros(1)
        for column in served.quick.encoding.columns
    }
    served.score(columns)
    row = {name: values.tolist()[0] for name, values in columns.items()}
    header, line = ",".join(f'"{name}"' for name in row), ",".join(str(v) for v in row.values())
    full_answer(served, f"{header}\n{line}\n".encode(), "text/csv", None, 1)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has the port and does not listen yet, or the one that was handed over."""
    handed = taken_over()
    if handed is not None:
        with handed:
            yield handed
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {host}, port {port} ({exc.strerror}); give another --port"
            ) from exc
        yield listener


class Server(uvicorn.Server):
    """uvicorn's, whose process ends with 0 after a signal that it has obeyed.

    At the end each caller is answered once more and told that the connection ends, so that none
    asks into one that is closed.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], object],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._on_ready, self._on_end = on_ready, on_end
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn; connections are taken by `Acceptor`."""
        await super().startup(sockets=[])
        for listening in sockets or []:
            acceptor = Acceptor(listening, self._connection)
            acceptor.start()
            self._acceptors.append(acceptor)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._on_end()
        for acceptor in self._acceptors:
            acceptor.stop()
        kind: Any = self.config.http_protocol_class
        kind.room.last = True
        await self._left(DRAIN_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second Ctrl-C does not wait."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    def _connection(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def _left(self, seconds: float) -> None:
        """Wait until all callers have gone, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.connections and not self.force_exit:
                    await asyncio.sleep(LOOK_SECONDS)


def config(settings: ServerSettings, front: ScoringService) -> uvicorn.Config:
    """How uvicorn serves the routes, behind the gate."""
    return uvicorn.Config(
        front.tracing.traced(guarded(create_app(front), front)),
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http=patient(settings.limits),
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        log_level=settings.log_level,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=min(int(settings.limits.seconds) + 1, ANSWER_SECONDS),
    )


def url_of(listening: socket.socket) -> str:
    """The address for a caller."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGTERM while it starts ends it in order as well."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def unmoved_by_hangup() -> Iterator[None]:
    """SIGHUP, by which the usual tools have a log opened anew, ends nothing: the access log sees by
    itself that its file was moved away. Settings are read anew where several processes score.
    """
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _selection(settings: ServerSettings, scorer: Scorer) -> LabelSelection | None:
    """By which rows are let through; raises `RuleError` for a condition on what they have not."""
    wanted = settings.exploring
    if wanted is None:
        return None
    return LabelSelection(wanted.only_when, wanted.share, scorer.served.quick.encoding.names)
