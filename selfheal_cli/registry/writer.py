"""One thread writes to the registry, so that the stream never waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfheal_cli.errors import SelfhealError
from selfheal_cli.records import AliasMove, Snapshot
from selfheal_cli.registry.base import Lineage, Registry, StepMetrics

STEPS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Registered:
    """A snapshot became a version."""

    snapshot: str
    version: int


Result = Registered | AliasMove
Job = Callable[[], Result | None]


class RegistryWriter:
    """Writes in the order of the calls. Snapshots wait on disk in ``outbox``, not in memory.

    After a failed write the later ones are left undone and `flush` raises what went wrong; the
    outbox keeps the files.
    """

    def __init__(self, registry: Registry, lineage: Lineage, outbox: Path) -> None:
        self._registry = registry
        self._lineage = lineage
        self._outbox = outbox
        outbox.mkdir(parents=True, exist_ok=True)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._versions: dict[str, int] = {}
        self._steps: list[StepMetrics] = []
        self._thread = threading.Thread(target=self._work, name="registry-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Writes that are still to be done."""
        return self._jobs.unfinished_tasks

    def add(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Register a snapshot as a version."""
        path = self._outbox / f"{snapshot.id}.safetensors"
        path.write_bytes(adapter)

        def register() -> Registered:
            parent = self._versions.get(snapshot.parent) if snapshot.parent else None
            number = self._registry.add_version(self._lineage, snapshot, path.read_bytes(), parent)
            self._versions[snapshot.id] = number
            path.unlink()
            return Registered(snapshot.id, number)

        self._jobs.put(register)

    def point(self, alias: str, snapshot: str, *, actor: str, at: str, reason: str) -> None:
        """Point an alias to the version of a snapshot that was added before."""
        self._jobs.put(
            lambda: self._registry.move_alias(
                self._lineage.model,
                alias,
                self._versions[snapshot],
                actor=actor,
                at=at,
                reason=reason,
            )
        )

    def score(self, snapshot: str, batch: int, metrics: dict[str, float], rows: int) -> None:
        """Figures of a snapshot that was added before its labels came."""
        self._jobs.put(
            lambda: self._registry.score_version(
                self._lineage, self._versions[snapshot], batch, metrics, rows
            )
        )

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Figures of a batch."""
        self._steps.append((step, metrics))
        if len(self._steps) >= STEPS_AT_ONCE:
            self._send_steps()

    def results(self) -> list[Result]:
        """What was done since the last call, in order."""
        done = []
        while not self._results.empty():
            done.append(self._results.get())
        return done

    def flush(self) -> None:
        """Wait until everything is written; raises what stopped it."""
        self._send_steps()
        self._jobs.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._send_steps()
        self._jobs.put(None)
        self._thread.join()

    def knows(self, snapshot: str, version: int) -> None:
        """A snapshot of an earlier run that was restored."""
        self._versions[snapshot] = version

    def _send_steps(self) -> None:
        steps, self._steps = self._steps, []
        if steps:
            self._jobs.put(lambda: self._registry.log_metrics(self._lineage.run_id, steps))

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                if self._failure is None:
                    result = job()
                    if result is not None:
                        self._results.put(result)
            except (SelfhealError, OSError) as exc:
                self._failure = exc
            finally:
                self._jobs.task_done()
