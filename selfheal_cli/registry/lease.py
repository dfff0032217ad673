"""The lease of a model in its journal: which run may heal it and write for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from selfheal_cli.errors import LeaseHeld, VersionNotFound
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Lease, standing, write


def take_lease(
    registry: Registry,
    model: str,
    lease: Lease,
    *,
    four_eyes: bool,
    alive: Callable[[Lease], str],
) -> Lease:
    """Become the one run that heals a model.

    ``alive`` says how it is known that a holder still runs, or nothing where it does not; then
    the lease is taken over. Raises `LeaseHeld`.
    """

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        held = before.lease
        sign = alive(held) if held is not None and held.run != lease.run else ""
        if held is not None and sign:
            raise held_by(held, model, sign)
        # a policy makes the model's rule stricter, never looser
        both = before.four_eyes or four_eyes
        data = {**asdict(lease), "sequence": sequence, "four_eyes": both}
        # whoever is taken for dead may only be frozen: what it registers later will be known by it
        return data if held is None else data | {"versions": _last_version(registry, model)}

    entry = write(registry, model, EntryKind.LEASED, draft, actor=lease.holder, at=lease.since)
    return replace(lease, sequence=entry.sequence)


def _last_version(registry: Registry, model: str) -> int:
    try:
        latest = registry.versions(model, limit=1)
    except VersionNotFound:
        return 0
    return latest[0].version if latest else 0


def held_by(held: Lease, model: str, sign: str) -> LeaseHeld:
    """The refusal: who holds it, since when, and how that is known."""
    return LeaseHeld(
        f"run {held.run} of {held.holder} heals '{model}' since {held.since} ({sign}); "
        "wait for its end, or give another --model"
    )


def require_held(held: Lease | None, model: str, run: str, sequence: int) -> None:
    """Raises `LeaseHeld` where the lease of a run was taken over, saying by whom."""
    if held is not None and (held.run, held.sequence) == (run, sequence):
        return
    by = f"by run {held.run} of {held.holder} at {held.since}" if held else "and let go"
    raise LeaseHeld(
        f"the lease on '{model}' was taken over {by}, since run {run} gave no sign of life; it "
        "writes nothing more"
    )


def release_lease(
    registry: Registry, model: str, lease: Lease, at: str, log_head: str = ""
) -> None:
    """Give the lease back, if it is still held; ``log_head`` is what the run's log has come to."""
    now = standing(registry, model)
    if now.lease != lease:  # or a registry that was put back gave its number to another run
        return

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        return {"run": lease.run, "lease": lease.sequence, "log_head": log_head}

    write(registry, model, EntryKind.RELEASED, draft, actor=lease.holder, at=at)
