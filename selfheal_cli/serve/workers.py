"""Several processes that score behind one port, with one healer and one spool."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from selfheal_cli.errors import SelfhealError, StorageError, one_line
from selfheal_cli.serve.healer import supervisor
from selfheal_cli.serve.healer.supervisor import KeptProcess, Supervisor
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.serve.notify.sender import telling
from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.serve.replicas import Replicas
from selfheal_cli.serve.server import bound, place, url_of
from selfheal_cli.serve.settings import ServerSettings
from selfheal_cli.serve.staff import ProcessWord, Staff, samples_of, summed
from selfheal_cli.serve.worker import WorkerTask
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool

COMMAND = (sys.executable, "-P", "-m", "selfheal_cli.serve.worker")
TOPIC = "server-"
KEPT_SECONDS = 86_400.0  # words of servers that were killed
LOOK_SECONDS = 0.05
READY_SECONDS = 300.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve_with_workers(
    settings: Callable[[], ServerSettings],
    count: int,
    on_ready: Callable[[str, int | None], None],
    command: Sequence[str] = supervisor.COMMAND,
) -> None:
    """Serve by so many processes until SIGTERM or Ctrl-C; SIGHUP asks for the settings again and
    puts new processes in the place of the old ones, one by one.

    ``on_ready`` hears address and version. Raises as `serve`, but that what is wrong with the
    model is said by the first process, whose code is the exit code.
    """
    told = settings()
    with (
        _signals() as heard,
        bound(told.host, told.port) as listening,
        _office(told, count, listening, command) as workers,
    ):
        version = workers.start(heard.goes_on)
        if heard.goes_on():
            on_ready(url_of(listening), version)
        while heard.next() == signal.SIGHUP:
            try:
                workers.renew(settings(), heard.goes_on)
            except SelfhealError as exc:
                _say(f"the settings cannot be used, and stay as they were: {one_line(exc)}")


class Heard:
    """The signals that came, in their order."""

    def __init__(self) -> None:
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._ends = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """One came."""
        self._ends = self._ends or number != signal.SIGHUP
        self._signals.put(number)

    def next(self) -> int:
        """The next one, once there is one."""
        return self._signals.get()

    def goes_on(self) -> bool:
        """Whether none has asked for the end: whoever waits for something looks at it."""
        return not self._ends


@contextmanager
def _signals() -> Iterator[Heard]:
    heard = Heard()
    before = {name: signal.signal(name, heard.hear) for name in SIGNALS}
    try:
        yield heard
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def _office(
    settings: ServerSettings, count: int, listening: socket.socket, command: Sequence[str]
) -> Iterator[Workers]:
    """What all processes share: the spool's keeper, the healer, the sums."""
    healer = settings.healer
    server = f"{TOPIC}{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        channel, spool = ControlChannel(place(healer)), Spool(place(healer))
        own = ControlChannel(spool_path(healer.model, healer.workspace))  # of this machine
        for one in (channel, spool, own):
            stack.callback(one.close)
        own.forget_statuses(TOPIC, time.time() - KEPT_SECONDS)
        meters = ServerMetrics()
        keeper = Keeper(channel, spool, healer.keep_rows, healer.max_wait)
        beside = Supervisor(healer, meters, command)
        started = time.time()

        def word() -> ProcessWord:
            info = ServerInfo(
                model=healer.model, kept=keeper.kept, unread=keeper.unread, lost=keeper.lost,
                stalled=keeper.stalled, started=started, workers=count,
                worker_restarts=workers.restarts,
            )  # fmt: skip
            return ProcessWord(
                pid=os.getpid(), scores=False, info=info, samples=samples_of(meters.registry),
                healer_pid=beside.pid, healer_restarts=beside.restarts,
            )  # fmt: skip

        staff = Staff(own, server, word)
        workers = Workers(settings, count, listening, server, staff)
        stack.callback(own.forget_statuses, server, time.time() + KEPT_SECONDS)
        if channel.shared:
            replicas = Replicas(channel, spool, lambda: summed(word().info, staff.words()))
            replicas.start()
            stack.callback(replicas.stop)
        staff.start()
        stack.callback(staff.stop)
        keeper.start()
        stack.callback(keeper.stop)
        stack.enter_context(telling(settings, channel, meters.registry))
        beside.start()
        stack.callback(beside.stop)
        stack.callback(workers.stop)
        stack.callback(beside.end)  # at once, while the others answer what is under way
        yield workers


class Workers:
    """The processes that score; ``restarts`` counts those that ended by themselves."""

    def __init__(
        self,
        settings: ServerSettings,
        count: int,
        listening: socket.socket,
        server: str,
        staff: Staff,
    ) -> None:
        self.restarts = 0
        self._settings = settings
        self._count = count
        self._listening = listening
        self._server = server
        self._staff = staff
        self._processes: list[KeptProcess] = []
        self._lock = threading.Lock()

    def start(self, go_on: Callable[[], bool]) -> int | None:
        """Begin them; the first says whether there is something to serve. Returns its version.

        They are not waited for any more once ``go_on`` says no.
        """
        first = self._begin(tells=True)
        if not self._is_ready(first, go_on):
            if not go_on():
                return None
            raise SystemExit(first.code or 1)
        rest = [self._begin() for _ in range(self._count - 1)]
        for process in rest:
            self._is_ready(process, go_on)
        served = (word.info.version for word in self._staff.words() if word.scores)
        return next(served, None)

    def renew(self, settings: ServerSettings, go_on: Callable[[], bool]) -> None:
        """New processes with these settings, each beside an old one until it answers. One that
        does not come up changes nothing; ``go_on`` says whether there is time.
        """
        before, self._settings = self._settings, settings
        for old in list(self._processes):
            fresh = self._begin()
            if self._is_ready(fresh, go_on):
                self._leave(old)
                continue
            self._leave(fresh)
            self._settings = before
            _say("a new process did not come up: the old ones go on")
            return
        _say(f"{self._count} new processes score")

    def stop(self) -> None:
        """Have all answer what is under way, and end; who comes now finds nobody."""
        self._listening.close()
        for process in self._processes:
            process.end()
        for process in list(self._processes):
            self._leave(process)

    def _begin(self, *, tells: bool = False) -> KeptProcess:
        fd = self._listening.fileno()
        limits = self._settings.limits.of_one(self._count)
        settings = self._settings.model_copy(update={"limits": limits})
        task = WorkerTask(settings=settings, listening=fd, server=self._server, tells=tells)
        told = task.model_dump_json().encode()
        process = KeptProcess(told, COMMAND, lambda: self._ended(process), files=[fd])
        self._processes.append(process)
        process.start()
        return process

    def _leave(self, process: KeptProcess) -> None:
        process.stop()
        self._processes.remove(process)

    def _ended(self, process: KeptProcess) -> None:
        """One ended by itself; what it counted stays."""
        with self._lock:
            self.restarts += 1
        _say(f"a scoring process ended by itself (code {process.code}); another one is begun")
        with suppress(StorageError):
            for word in self._staff.words():
                if word.pid == process.ended_pid:
                    self._staff.write(word.model_copy(update={"alive": False}))

    def _is_ready(self, process: KeptProcess, go_on: Callable[[], bool]) -> bool:
        end = time.monotonic() + READY_SECONDS
        while process.restarts == 0 and time.monotonic() < end and go_on():
            with suppress(StorageError):
                if any(word.pid == process.pid for word in self._staff.words()):
                    return True
            time.sleep(LOOK_SECONDS)
        return False


def _say(text: str) -> None:
    sys.stderr.write(f"selfheal: {text}\n")
