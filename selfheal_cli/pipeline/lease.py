"""One run at a time heals a model: the lease, its signs of life, and what becomes of the dead."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from selfheal_cli.errors import LeaseHeld, RegistryError, RegistryUnreachable
from selfheal_cli.history.archive import ALIVE_LOCK, is_running
from selfheal_cli.history.event_log import Clock
from selfheal_cli.history.writable import written
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import Lease, standing
from selfheal_cli.registry.moves import held_by, release_lease, take_lease

ALIVE_TAG = "selfheal.alive"  # on the run: its last sign of life
EXPIRES_SECONDS = 60.0


class RunLease:
    """A run's lease on its model.

    In one folder the file lock tells at once whether a holder is alive; from elsewhere its signs
    of life in the registry do, and a holder that gave none for a minute counts as dead.
    Raises `LeaseHeld` where another run is alive.
    """

    def __init__(
        self, registry: Registry, model: str, run_id: str, folder: Path, actor: str, clock: Clock,
        *, four_eyes: bool,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._model = model
        self._clock = clock
        self._runs = folder.parent
        self._lock = FileLock(folder / ALIVE_LOCK)
        with written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as exc:
                raise LeaseHeld(f"run {run_id} is running already, in this folder") from exc
        try:
            wanted = Lease(run_id, actor, self._now().isoformat(timespec="milliseconds"))
            self._lease = take_lease(
                registry, model, wanted, four_eyes=four_eyes, alive=self._sign_of_life
            )
        except BaseException:
            self._lock.release()
            raise

    def beat(self) -> None:
        """Give a sign of life; raises `LeaseHeld` where another run has taken over."""
        now = self._now().isoformat(timespec="milliseconds")
        self._registry.set_run_tags(self._lease.run, {ALIVE_TAG: now})
        held = standing(self._registry, self._model).lease
        if held is None or held.sequence != self._lease.sequence:
            by = f"by run {held.run} of {held.holder} at {held.since}" if held else "and let go"
            raise LeaseHeld(
                f"the lease on '{self._model}' was taken over {by}, since this run gave no sign "
                "of life; it writes nothing more"
            )

    def release(self) -> None:
        """Give it back; where the registry is away the lease runs out by itself."""
        try:
            now = self._now().isoformat(timespec="milliseconds")
            release_lease(self._registry, self._model, self._lease, now)
        except RegistryError:
            pass  # the file lock is let go of all the same
        finally:
            self._lock.release()

    def _now(self) -> datetime:
        return self._clock()

    def _sign_of_life(self, held: Lease) -> str:
        return sign_of_life(self._registry, held, self._runs, self._clock)


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
    try:
        if registry.run_status(held.run) != "RUNNING":
            return ""
        last = registry.run_tags(held.run).get(ALIVE_TAG, held.since)
    except RegistryUnreachable:
        raise
    except RegistryError:
        last = held.since  # the run was deleted
    seconds = (clock() - datetime.fromisoformat(last)).total_seconds()
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
