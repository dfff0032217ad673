"""One run at a time heals a model: the lease, its signs of life, and what becomes of the dead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from selfheal_cli.errors import LeaseHeld, RegistryError, RegistryRestored, RegistryUnreachable
from selfheal_cli.events.archive import ALIVE_LOCK, LOG_NAME, is_running
from selfheal_cli.events.log import Clock, last_digest, written
from selfheal_cli.registry.aliases import OnSettled, settle, untold
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import Entry, Lease, standing
from selfheal_cli.registry.lease import held_by, release_lease, require_held, take_lease
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.workspace import OWNERS_FOLDER

ALIVE_TAG = "selfheal.alive"  # on the run: its last sign of life
EXPIRES_SECONDS = 60.0
BEAT_SECONDS = 5.0
Wrote = Mapping[int, Mapping[str, Any]]  # data of entries by number


class RunLease:
    """A run's lease on its model, and its folder to itself.

    In one folder the file lock tells at once whether a holder is alive; from elsewhere its signs
    of life in the registry do, and a holder that gave none for a minute counts as dead. ``wrote``
    reads, once the folder is held, what the run wrote into the journal before it was interrupted.
    Raises `LeaseHeld` where another run is alive, `RegistryRestored` where the registry does not
    know what the run wrote; then nothing was changed. What an interrupted writer left of the
    model's aliases is settled, and ``on_settled`` is told.
    """

    def __init__(
        self, registry: Registry, model: str, run_id: str, folder: Path, actor: str, clock: Clock,
        *, four_eyes: bool, wrote: Callable[[], Wrote] = dict, on_settled: OnSettled = untold,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._model = model
        self._clock = clock
        self._runs = folder.parent
        self._log = folder / LOG_NAME
        self._lock = FileLock(folder / ALIVE_LOCK)
        with written(folder):
            folder.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as exc:
                raise LeaseHeld(f"run {run_id} is running already, in this folder") from exc
        try:
            _require_known(registry, model, run_id, wrote())
            wanted = Lease(run_id, actor, self._now().isoformat(timespec="milliseconds"))
            self.lease = take_lease(
                registry, model, wanted, four_eyes=four_eyes, alive=self._sign_of_life
            )
            self._seen = self.lease.sequence  # the highest number that the journal had
            for left in settle(registry, model):
                on_settled(left)
        except BaseException:
            self._lock.release()
            raise

    @property
    def sequence(self) -> int:
        """Its number in the journal, which each write of the run carries."""
        return self.lease.sequence

    @property
    def entry(self) -> Mapping[str, Any]:
        """Data of its entry in the journal."""
        return asdict(self.lease)

    @property
    def known(self) -> int:
        """The last move of any alias before it, 0 where there is none."""
        moves = standing(self._registry, self._model).moves.values()
        return max((move.sequence for move in moves), default=0)

    def require(self) -> None:
        """Raises `LeaseHeld` where another run has taken over, `RegistryRestored` where the
        registry knows less than it did.
        """
        last = self._registry.last_entry(self._model)
        reached = last.sequence if last else 0
        if last is None or reached < self._seen:
            raise _restored(self._model, self.lease.run, self._seen, reached)
        self._seen = reached
        if last.standing.lease != self.lease:
            _require_known(self._registry, self._model, self.lease.run, {self.sequence: self.entry})
            require_held(last.standing.lease, self._model, self.lease.run, self.sequence)

    def saw(self, sequence: int) -> bool:
        """See `HeldLease`."""
        later = sequence > self._seen
        self._seen = max(self._seen, sequence)
        return later

    def beat(self) -> None:
        """Give a sign of life."""
        now = self._now().isoformat(timespec="milliseconds")
        self._registry.set_run_tags(self.lease.run, {ALIVE_TAG: now})

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Signs of life from a thread, as long as no writer gives them."""
        done = threading.Event()

        def keep() -> None:
            while not done.wait(BEAT_SECONDS):
                with suppress(RegistryError):  # whether it is still held is asked before a write
                    self.beat()

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; where the registry is away the lease runs out by itself."""
        try:
            now = self._now().isoformat(timespec="milliseconds")
            release_lease(self._registry, self._model, self.lease, now, last_digest(self._log))
        except RegistryError:
            pass  # the file lock is let go of all the same
        finally:
            self._lock.release()

    def _now(self) -> datetime:
        return self._clock()

    def _sign_of_life(self, held: Lease) -> str:
        return sign_of_life(self._registry, held, self._runs, self._clock)


def wrote(folder: Path) -> Wrote:
    """Data of the journal's entries that the run of a folder wrote, by number."""
    path = folder / OUTBOX_NAME
    if not path.exists():
        return {}
    with closing(Outbox(path)) as outbox:
        entries = [data for kind, data in outbox.results() if kind in ("lease", "move")]
    return {data["sequence"]: data for data in entries if data.get("sequence")}


def _require_known(registry: Registry, model: str, run_id: str, wrote: Wrote) -> None:
    """Raises `RegistryRestored` where the journal does not have what a run wrote into it."""
    if not wrote:
        return
    last, latest = registry.last_entry(model), max(wrote)
    if last is None or last.sequence < latest:
        raise _restored(model, run_id, latest, last.sequence if last else 0)
    if not _has(registry.entries(model), latest, wrote[latest]):
        raise _restored(model, run_id, latest, last.sequence)


def _has(entries: Iterable[Entry], sequence: int, data: Mapping[str, Any]) -> bool:
    entry = next(one for one in entries if one.sequence == sequence)
    return all(entry.data.get(name) == value for name, value in data.items())


def _restored(model: str, run_id: str, wrote: int, reached: int) -> RegistryRestored:
    return RegistryRestored(
        f"run {run_id} wrote entry {wrote} of the journal of '{model}', and the registry, whose "
        f"journal has {reached} entries, does not have it: it was restored from an earlier state, "
        "or the model was deleted; begin a new run"
    )


def sign_of_life(registry: Registry, held: Lease, runs: Path, clock: Clock) -> str:
    """How it is known that the holder of a lease is alive; empty where it is not."""
    folder = runs / held.run
    if folder.exists():
        return "it is running in this folder" if is_running(folder) else ""
    return last_sign(registry, held, clock)


def is_alive(registry: Registry, held: Lease, runs: Path, clock: Clock) -> bool:
    """Whether a holder is alive by the registry, and by its folder where that is here: anybody can
    hold a file, and a process that was killed lets go of it at once.
    """
    folder = runs / held.run
    return bool(last_sign(registry, held, clock)) and (not folder.exists() or is_running(folder))


def last_sign(registry: Registry, held: Lease, clock: Clock) -> str:
    """How the registry knows that a holder is alive; empty where it gave no sign for a minute."""
    signs = [held.since]  # whatever became of the run before: it may have been resumed
    try:
        signs += [registry.run_tags(held.run).get(ALIVE_TAG, held.since)]
    except RegistryUnreachable:
        raise
    except RegistryError:
        pass  # the run was deleted
    last = max(map(datetime.fromisoformat, signs))
    seconds = (clock() - last).total_seconds()
    # a clock that was set back may make it negative: then nothing is known of its age
    return f"last sign of life {max(seconds, 0):.0f} s ago" if seconds < EXPIRES_SECONDS else ""


def healed_here(registry: Registry, model: str, workspace: Path) -> bool:
    """Whether a live process heals the model in this folder."""
    held = standing(registry, model).lease
    if held is None:
        return False
    folder = workspace / "runs" / held.run
    return folder.exists() and is_running(folder)


def require_free(registry: Registry, model: str, workspace: Path, clock: Clock) -> None:
    """Refuse early, before a network is trained; raises `LeaseHeld`."""
    held = standing(registry, model).lease
    if held is None:
        return
    sign = sign_of_life(registry, held, workspace / "runs", clock)
    if sign:
        raise held_by(held, model, sign)
