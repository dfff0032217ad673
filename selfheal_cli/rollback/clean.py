"""Versions that learned from labels of a time, and the last one that did not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from selfheal_cli.records import AnyVersion, ForeignVersion, Phase, VersionRecord
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind, Proposal, standing
from selfheal_cli.registry.orders import CLEAN, propose
from selfheal_cli.rollback.plan import serving_version

HEALED = (Phase.POST_HEAL, Phase.REJECTED)


@dataclass(frozen=True, slots=True)
class Tainted:
    """``learned`` are the versions that may have learned from labels that came at a time or later;
    ``serving`` is what serves, and ``clean`` the version that served last before, if it is there.
    """

    learned: tuple[int, ...]
    serving: AnyVersion | None
    clean: VersionRecord | None

    @property
    def serves(self) -> bool:
        """Whether one of them serves."""
        return self.serving is not None and self.serving.version in self.learned


def propose_clean(
    registry: Registry, tainted: Tainted, hours: float, *, actor: str, at: str, reason: str
) -> Proposal | None:
    """Have the last clean version wait for approval where one serves that learned from the labels,
    until the healer proposes what it has rebuilt; None where there is none, or nothing to do.
    Raises `ConflictError` where another proposal of a heal is open.
    """
    clean = tainted.clean
    if clean is None or not tainted.serves:
        return None
    moved = standing(registry, clean.model).moves.get(CHAMPION)
    expires = datetime.fromisoformat(at) + timedelta(hours=hours)
    wanted = Proposal(
        clean.version, clean.sha256, actor, at, f"{CLEAN}: {reason}",
        moved.sequence if moved else 0,
        snapshot=clean.tags["selfheal.snapshot"],
        expires=expires.isoformat(timespec="milliseconds"),
    )  # fmt: skip
    return propose(registry, clean.model, wanted)


def tainted_since(registry: Registry, model: str, since: float) -> Tainted:
    """By when versions were registered: a label is in no version that is older; ``since`` is in
    seconds since 1970.
    """
    milliseconds = since * 1000
    known: dict[int, VersionRecord] = {
        one.version: one
        for one in registry.versions(model, limit=1_000_000)
        if not isinstance(one, ForeignVersion)
    }
    learned = {
        number
        for number, one in known.items()
        if one.phase in HEALED and one.created_ms >= milliseconds
    }
    served = [
        int(entry.data["target"])
        for entry in registry.entries(model)
        if entry.kind is EntryKind.MOVED and entry.data["alias"] == CHAMPION
    ]
    clean = next((one for one in reversed(served) if one in known and one not in learned), None)
    return Tainted(tuple(sorted(learned)), serving_version(registry, model), known.get(clean or -1))
