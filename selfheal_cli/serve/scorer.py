"""What serves now: one immutable reference, replaced whole when something else is to serve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfheal_cli.errors import VersionCorrupt, VersionNotFound
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.scoring import Contract
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.snapshot import assemble, unpack
from selfheal_cli.source.encoding import Encoding
from selfheal_cli.source.quick import QuickEncoding
from selfheal_cli.spool.board import Published

if TYPE_CHECKING:
    from selfheal_cli.records import Base, Columns, FloatArray

PENDING = "pending"  # a version that the registry has not numbered yet


@dataclass(frozen=True, slots=True)
class Served:
    """A network with all that its answers hang on. ``version`` is None until the registry has one.

    ``labels`` names the classes in their order.
    """

    network: SelfHealingNetwork
    quick: QuickEncoding
    contract: Contract
    labels: tuple[str, ...]
    base: str
    snapshot: str
    threshold: float
    version: int | None

    @property
    def shown_version(self) -> str:
        """The version for a person or a header."""
        return PENDING if self.version is None else str(self.version)

    def score(self, columns: Columns, matrix: FloatArray | None = None) -> FloatArray:
        """Raw columns (n,) each to probabilities (n,) or (n, K); see `QuickEncoding`."""
        return self.network.predict(self.quick.encode(columns, matrix))

    def headers(self) -> dict[str, str]:
        """What an answer says of what gave it."""
        return {
            "x-selfheal-version": self.shown_version,
            "x-selfheal-snapshot": self.snapshot,
            "x-selfheal-threshold": repr(float(self.threshold)),
        }


class Scorer:
    """Takes no lock: reading and replacing one attribute are each atomic in CPython."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def number(self, version: int) -> None:
        """The registry gave what serves its number."""
        self.served = replace(self.served, version=version)

    def take(self, wanted: Published, registry: Registry) -> None:
        """Serve it from the next request on; raises `VersionCorrupt` where it does not hold.

        Another base is fetched from the registry, which may raise `RegistryError`.
        """
        where = f"snapshot {wanted.snapshot}"
        adapter = unpack(wanted.adapter, sha256=wanted.sha256, where=where)
        now = self.served
        if wanted.base == now.base:
            try:
                network = now.network.with_adapter(adapter)
            except RuntimeError as exc:
                raise VersionCorrupt(f"{where}: does not fit its base ({exc})") from exc
            found = replace(now, network=network)
        else:
            base = registry.base(wanted.base)
            found = _on_base(base, wanted.base, assemble(base, adapter, where=where))
        broken = [name for name, value in adapter.items() if not torch.isfinite(value).all()]
        if broken or not np.isfinite(wanted.threshold):
            raise VersionCorrupt(f"{where}: {broken[0] if broken else 'threshold'} is not finite")
        self.served = replace(
            found,
            snapshot=wanted.snapshot,
            threshold=wanted.threshold,
            version=wanted.version,
        )


def load_champion(registry: Registry, model: str) -> Served:
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


def _on_base(base: Base, base_id: str, network: SelfHealingNetwork) -> Served:
    document = base.describe()
    encoding = Encoding.model_validate(document["encoding"])
    return Served(
        network=network,
        quick=QuickEncoding(encoding),
        contract=Contract(document),
        labels=tuple(document["labels"]),
        base=base_id,
        snapshot="",
        threshold=0.5,
        version=None,
    )
