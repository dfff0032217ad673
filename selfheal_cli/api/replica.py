"""One of the processes that score a program's model; the first of them heals it as well.

All share the spool's file in this folder: what one scores and is told, the healing one learns from,
and what that publishes all serve.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from selfheal_cli.actor import actor
from selfheal_cli.api.estimator import TableIntake
from selfheal_cli.api.intake import Intake
from selfheal_cli.api.known import KnownVersions
from selfheal_cli.config import RunConfig
from selfheal_cli.errors import ModelError, StorageError
from selfheal_cli.model.threads import use_one_thread_here
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.pipeline.prepare.continuing import champion_on
from selfheal_cli.pipeline.prepare.lease import healed_here
from selfheal_cli.pipeline.prepare.wrapped import find_wrapped
from selfheal_cli.pipeline.runs.run import Finished
from selfheal_cli.pipeline.runs.serving import ServedRun
from selfheal_cli.registry.base import Registry
from selfheal_cli.serve.healer.healing import LOOK_SECONDS, HealerContext, ModelHealer
from selfheal_cli.serve.http.model import (
    ModelReloader,
    Scorer,
    ServedModel,
    load_champion,
    served_up_to,
)
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.sources.pushed import Reference
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.entries import Cursor, Feedback, Joined, LoggedRequest
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.recorder import Recorder
from selfheal_cli.spool.source import Pace, SpoolSource
from selfheal_cli.spool.store import Spool
from selfheal_cli.workspace import WORKSPACE

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

TURN = "healing.lock"  # whose holder heals; the system lets go of it when its process ends
logger = logging.getLogger("selfheal_cli")
logger.addHandler(logging.NullHandler())  # a library says nothing unless it is asked to


@dataclass(frozen=True, slots=True)
class Program:
    """What a program wants healed: a run's configuration, and what is normal.

    Rows that do not fill a batch wait for ``max_wait`` seconds; ``keep_rows`` are kept for labels.
    """

    config: RunConfig
    reference: Reference
    max_wait: float
    keep_rows: int

    @property
    def name(self) -> str:
        """The registered model's."""
        return self.config.model_name

    @property
    def intake(self) -> Intake:
        """How what is given is read."""
        known = self.reference
        if known.x.dtype == np.float64:  # of networks they are float32
            texts = frozenset(known.vocabulary)
            return TableIntake(known.names, known.shape, known.labels, texts)
        return Intake(self.reference.names, self.reference.shape, self.reference.labels)


def champion_for(registry: Registry, program: Program) -> ServedModel:
    """What serves; raises `ModelError` where the champion takes other columns."""
    served = load_champion(registry, program.name)
    takes, given = served.quick.encoding.names, list(program.reference.names)
    if takes != given or served.labels != program.reference.labels:
        raise ModelError(
            f"'{program.name}' v{served.shown_version}, the champion, takes {', '.join(takes)} and "
            f"gives {', '.join(served.labels)}; this program's rows have {', '.join(given)} and "
            f"{', '.join(program.reference.labels)}: use another name, or roll back"
        )
    return served


class Replica:
    """Scores with ``scorer``, writes down what it scored and was told, follows, and heals where no
    other process of this folder does. Made and used in one process.
    """

    def __init__(self, program: Program, scorer: Scorer, registry: Registry) -> None:
        path = spool_path(program.name)
        self.pid = os.getpid()
        self.scorer = scorer
        self.registry = registry
        self.channel = ControlChannel(path)
        self.finished: Finished | None = None
        self._program = program
        self._spool = Spool(path)
        self._recorder = Recorder(self._spool, int)
        here, fence = healed_here(registry, program.name, WORKSPACE), self.channel.fence()
        since = served_up_to(self.channel, scorer.served, fence, beside_healer=here)
        self._following = ModelReloader(scorer, self.channel, lambda: registry, int, since)
        self.known = KnownVersions(registry, program.name)
        self._keeper = Keeper(self.channel, self._spool, program.keep_rows)
        self._turn = FileLock(path.with_name(TURN))
        self._healer: ModelHealer | None = None
        self._prepared: Prepared | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"selfheal-{program.name}", daemon=True
        )
        for part in (self._recorder, self._keeper, self._following, self.known, self._thread):
            part.start()
        # what a process that ends without `close` has in memory goes to disk
        self._flush_at_exit = weakref.finalize(self, self._recorder.close)

    @property
    def error(self) -> Exception | None:
        """What prevents healing in this process."""
        return self._healer.error if self._healer else None

    @property
    def heals(self) -> bool:
        """Whether this is the process that heals."""
        return self._healer is not None

    @property
    def waiting(self) -> int:
        """Rows that are not on disk yet."""
        return self._recorder.waiting

    def scored(
        self, rows: FloatArray, probabilities: FloatArray, served: ServedModel,
        ids: Sequence[str] | None, *, durable: bool,
    ) -> None:  # fmt: skip
        """Have answered rows (n, d) written down, with ``durable`` now; raises `StorageError` where
        that cannot be.
        """
        request = LoggedRequest(
            uuid.uuid4().hex, self._program.intake.columns(rows), probabilities, served.snapshot,
            served.threshold, time.time(), None if ids is None else tuple(ids),
        )  # fmt: skip
        kept = self._recorder.take(request)
        if durable:
            self._recorder.flush()
            if not kept:
                raise StorageError(f"{len(rows)} scored rows are not kept: the disk is far behind")

    def shown(self, rows: FloatArray, y: LabelArray) -> bool:
        """Have rows (n, d) written down that nobody asked about, with their classes."""
        intake = self._program.intake
        request = LoggedRequest.unanswered(
            uuid.uuid4().hex, intake.columns(rows), len(rows), len(intake.labels), time.time(), y
        )
        return self._recorder.take(request)

    def label(self, labels: Sequence[Feedback]) -> Joined:
        """Join labels to their rows, on disk; raises `StorageError` where they cannot be kept."""
        self._recorder.flush()
        return self._spool.label(labels)

    def end(self) -> None:
        """Write down what is left, heal on it where this process heals, and do no more."""
        self._flush_at_exit()
        self._stop.set()
        self._thread.join()
        self._following.look()
        self._following.stop()
        self._keeper.stop()
        self.known.stop()

    def leave(self) -> None:
        """In a fork: its parent's, which writes down by itself what it has in memory."""
        self._flush_at_exit.detach()

    def release(self) -> None:
        """Close the files; no call may follow."""
        self._spool.close()
        self.channel.close()

    def _work(self) -> None:
        """Heal as soon as nobody else here does, to the end; at the end once more."""
        use_one_thread_here()
        while True:
            last = self._stop.is_set()
            with suppress(Timeout), self._turn.acquire(timeout=0):
                self._heal()
                return
            if last:
                return
            self._stop.wait(LOOK_SECONDS)

    def _heal(self) -> None:
        around = HealerContext(
            self._program.name, actor(), WORKSPACE, self.registry, self._spool, self.channel,
            self._stop, logger.info, lambda event: None,
        )  # fmt: skip
        self._healer = healer = ModelHealer(around, self._open)
        done = threading.Event()
        telling = threading.Thread(target=healer.tell, args=(done,), name="status", daemon=True)
        telling.start()
        while True:
            try:
                healer.look()
            except Exception as exc:
                logger.info("healing '%s' ended", self._program.name, exc_info=True)
                healer.block(exc)
            if self._stop.wait(LOOK_SECONDS):
                break
        self.finished = healer.finished
        done.set()
        telling.join()

    def _open(self) -> ServedRun:
        program = self._program
        config = program.config
        wrapped = find_wrapped(self.registry, config.model or program.name)
        pace = Pace(
            config.batch_size, program.max_wait, time.monotonic, self._stop.wait, served=False
        )
        source = SpoolSource(
            program.reference, wrapped.encoding, self._spool, Cursor(), pace, config.labels.keep
        )
        if self._prepared is None:
            self._prepared = prepare(config, source, lambda done, total: None, wrapped)
        warm = champion_on(self.registry, program.name, self._prepared.base)
        baseline = warm.baseline if warm else None
        champion = warm.champion if warm else wrapped.version
        return ServedRun(config, source, self._prepared, champion, baseline)
