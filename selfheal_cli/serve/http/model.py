"""What serves now: one immutable reference, replaced whole when something else is to serve."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfheal_cli.errors import (
    LeaseHeld,
    SelfhealError,
    StorageError,
    VersionCorrupt,
    VersionNotFound,
)
from selfheal_cli.lookout import Lookout
from selfheal_cli.model.checkpoint import Packed, assemble, unpack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.registry.scoring import ScoringContract
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.encoding import QuickEncoding
from selfheal_cli.spool.answer_log import Bulletin
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.tried import TriedVersion, tried_now

if TYPE_CHECKING:
    from selfheal_cli.records import Base, Columns, FloatArray


LOT = 2**64
PENDING = "pending"  # a version that the registry has not numbered yet


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A network with all that its answers hang on. ``version`` is None until the registry has one.

    ``labels`` names the classes in their order. ``scoring`` gives the network's answers.
    """

    network: SelfHealingNetwork
    quick: QuickEncoding
    contract: ScoringContract
    labels: tuple[str, ...]
    base: str
    snapshot: str
    threshold: float
    version: int | None
    scoring: SelfHealingNetwork = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scoring", self.network.for_scoring())

    @property
    def shown_version(self) -> str:
        """The version for a person or a header."""
        return PENDING if self.version is None else str(self.version)

    def score(self, columns: Columns, matrix: FloatArray | None = None) -> FloatArray:
        """Raw columns (n,) each to probabilities (n,) or (n, K); see `QuickEncoding`."""
        return self.scoring.predict(self.quick.encode(columns, matrix))

    def headers(self) -> dict[str, str]:
        """What an answer says of what gave it."""
        return {
            "x-selfheal-version": self.shown_version,
            "x-selfheal-snapshot": self.snapshot,
            "x-selfheal-threshold": repr(float(self.threshold)),
        }


@dataclass(frozen=True, slots=True)
class CanaryModel:
    """A version that answers a share of the requests: those whose value of column ``by``, or whose
    id where it is empty, has a hash below the share; each version draws anew.
    """

    served: ServedModel
    told: TriedVersion

    @property
    def is_over(self) -> bool:
        """Whether its time is over, though nobody said so: then it answers no more."""
        return time.time() >= self.told.until

    def takes(self, value: object) -> bool:
        """Whether it answers what has this value."""
        text = f"{self.served.snapshot}\n{value}".encode()
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / LOT
        return drawn < self.told.share

    def takes_rows(self, columns: Columns, request: str) -> bool:
        """Whether it answers the rows of a request: where all of them would be its own, so that
        nobody's row goes to it that does not when it comes alone.
        """
        if not self.told.by:
            return self.takes(request)
        values = columns[self.told.by].tolist()
        return bool(values) and all(map(self.takes, set(values)))


@dataclass(frozen=True, slots=True)
class Turn:
    """A canary and a ``request`` that it may answer. ``apart``: it has another base than what
    serves, so that its own columns are to be read from the body, and kept.
    """

    canary: CanaryModel
    request: str
    apart: bool

    @property
    def served(self) -> ServedModel:
        """What the canary answers by."""
        return self.canary.served

    def takes(self, columns: Columns) -> bool:
        """Whether it answers these rows, by the columns that the champion reads."""
        return self.canary.takes_rows(columns, self.request)


class Scorer:
    """Takes no lock: reading and replacing one attribute are each atomic in CPython.

    ``canary`` is tried beside what is ``served``, where something is.
    """

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.canary: CanaryModel | None = None
        self.canary_rows = 0  # that canaries answered

    def choose(self, request: str) -> tuple[ServedModel, Turn | None]:
        """Who answers a request; and what is tried, where only its rows say whether it does
        instead: by a column of theirs, or because they may lack columns that it needs.
        """
        served, canary = self.served, self.canary
        if canary is None or canary.is_over:
            return served, None
        if canary.told.by and canary.told.by not in served.quick.encoding.names:
            return served, None
        apart = canary.served.base != served.base
        if canary.told.by or apart:
            return served, Turn(canary, request, apart)
        return (canary.served if canary.takes(request) else served), None

    def try_out(self, told: TriedVersion | None, registry: Registry) -> None:
        """Have it answer its share; raises as `take`."""
        known = self.canary
        if told is None:
            self.canary = None
        elif known is not None and known.told.mark == told.mark:
            if known.told.wanted.version != told.wanted.version:
                served = replace(known.served, version=told.wanted.version)
                self.canary = CanaryModel(served, told)
        else:
            self.canary = CanaryModel(self._loaded(told.wanted, registry), told)

    def number(self, version: int) -> None:
        """The registry gave what serves its number."""
        self.served = replace(self.served, version=version)

    def take(self, wanted: Published, registry: Registry) -> None:
        """Serve it from the next request on; raises `VersionCorrupt` where it does not hold.

        Another base is fetched from the registry, which may raise `RegistryError`.
        """
        self.served = self._loaded(wanted, registry)

    def _loaded(self, wanted: Published, registry: Registry) -> ServedModel:
        where = f"snapshot {wanted.snapshot}"
        adapter = unpack(wanted.adapter, sha256=wanted.sha256, where=where)
        now = self.served
        if wanted.base == now.base:
            try:
                network = now.network.with_adapter(adapter)
            except RuntimeError as exc:
                raise VersionCorrupt(f"{where}: does not fit its base ({exc})") from exc
            fresh = replace(now, network=network)
        else:
            base = registry.base(wanted.base)
            fresh = _on_base(base, wanted.base, assemble(base, adapter, where=where))
        broken = [name for name, value in adapter.items() if not torch.isfinite(value).all()]
        if broken or not np.isfinite(wanted.threshold):
            raise VersionCorrupt(f"{where}: {broken[0] if broken else 'threshold'} is not finite")
        return replace(
            fresh,
            snapshot=wanted.snapshot,
            threshold=wanted.threshold,
            version=wanted.version,
        )


def load_champion(registry: Registry, model: str) -> ServedModel:
    """The champion, verified; raises `RegistryError`."""
    version = serving_version(registry, model)
    if version is None:
        raise VersionNotFound(
            f"model '{model}' has no champion; choose one with 'selfheal rollback --to VERSION'"
        )
    adapter = load_verified(registry, version)
    base = registry.base(version.base)
    network = assemble(base, adapter, where=f"{model} v{version.version}")
    return replace(
        _on_base(base, version.base, network),
        snapshot=version.tags.get("selfheal.snapshot", ""),
        threshold=version.threshold,
        version=version.version,
    )


def _on_base(base: Base, base_id: str, network: SelfHealingNetwork) -> ServedModel:
    document = base.describe()
    return ServedModel(
        network=network,
        quick=QuickEncoding(encoding_of(base)),
        contract=ScoringContract(document),
        labels=tuple(document["labels"]),
        base=base_id,
        snapshot="",
        threshold=0.5,
        version=None,
    )


def served_up_to(
    channel: ControlChannel, served: ServedModel, fence: int, *, beside_healer: bool
) -> int:
    """Up to which publication is served. The channel may be from before a restart: then it says
    again what serves, unless the ``fence`` was raised since before it was loaded. Where a healer is
    at work here, what it published last is taken instead.
    """
    now = channel.published()
    if now is not None and (now.snapshot, now.base) == (served.snapshot, served.base):
        return now.sequence
    if now is not None and beside_healer:
        return now.sequence - 1
    packed = Packed.of(dict(served.network.adapter.named_parameters()))
    wanted = Published(
        snapshot=served.snapshot,
        threshold=served.threshold,
        base=served.base,
        sha256=packed.sha256,
        adapter=packed.data,
        reason="the champion at the start",
        version=served.version,
    )
    try:
        return channel.publish(wanted, fence)
    except LeaseHeld:  # somebody heals, and publishes
        return 0


AGAIN_SECONDS = 1.0  # before a publication that could not be taken is tried again


class ModelReloader(Lookout):
    """Serves what is published after ``since``; ``problem`` says why something is not served.

    ``on_refused`` is told of each publication that cannot be.
    """

    def __init__(
        self,
        scorer: Scorer,
        bulletin: Bulletin,
        registry: Callable[[], Registry],
        on_refused: Callable[[], object],
        since: int,
    ) -> None:
        super().__init__("following")
        self.problem = ""
        self._scorer = scorer
        self._bulletin = bulletin
        self._registry = registry
        self._on_refused = on_refused
        self._taken = since
        self._bulletin_read = bulletin.identity()
        self._refused = 0
        self._not_tried = ""  # why a canary is not

    def look(self) -> bool:
        """Take what is new; False where it could not be taken and may be later."""
        with self._looking:  # else who looked first, and took longer, would serve what is older
            return self._look_at_champion() and self._look_at_canary()

    def _look_at_canary(self) -> bool:
        known = self._scorer.canary
        try:
            told = tried_now(self._bulletin, known.told if known else None)
            if told is not None or known is not None:
                self._scorer.try_out(told, self._registry())
        except SelfhealError as exc:
            self.problem = self._not_tried = str(exc)
            self._scorer.canary = None
            return False
        if self._not_tried and self.problem == self._not_tried:
            self.problem = self._not_tried = ""
        return True

    def _look_at_champion(self) -> bool:
        try:
            identity = self._bulletin.identity()
            if identity != self._bulletin_read:  # another one counts from 1 again
                self._bulletin_read, self._taken = identity, 0
            sequence, version = self._bulletin.current()
            wanted = self._bulletin.after(self._taken) if sequence > self._taken else None
            if wanted is None:
                if sequence and version is not None and self._unnumbered(sequence):
                    self._scorer.number(version)
                if self.problem != self._not_tried:
                    self.problem = ""  # it could not be looked at, and can again
                return True
            self._scorer.take(wanted, self._registry())
        except StorageError as exc:
            self.problem = str(exc)
            return False
        except SelfhealError as exc:
            self.problem = str(exc)
            if sequence != self._refused:
                self._refused = sequence
                self._on_refused()
            return False
        self._taken, self.problem = wanted.sequence, ""
        return True

    def _unnumbered(self, sequence: int) -> bool:
        return sequence == self._taken and self._scorer.served.version is None

    def _pause(self) -> None:
        if self.problem:
            self._stop.wait(AGAIN_SECONDS)
        else:
            self._bulletin.wait(self.seconds, self._stop)
