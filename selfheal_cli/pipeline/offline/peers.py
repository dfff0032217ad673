"""What a stream may be compared with, by name; `kinds.PEERS` lists the names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from selfheal_cli.config import NetworkSettings
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.model.tree_library import why_no_trees
from selfheal_cli.pipeline.offline import online, unlabelled
from selfheal_cli.pipeline.offline.baselines import MakePeer, Peer
from selfheal_cli.pipeline.offline.refitted import (
    RefitSchedule,
    Refitted,
    fit_logistic,
    fit_network,
    fit_trees,
)
from selfheal_cli.sources.base import Source


@dataclass(frozen=True, slots=True)
class PeerKind:
    """A peer's ``title``, to which a refitted one's rhythm is added, and who makes it.

    ``lacks`` says what must be installed before, or nothing. ``binary``: for two classes alone.
    """

    title: str
    make: Callable[[RefitSchedule, NetworkSettings, int, Source], Peer]
    refitted: bool = False
    lacks: Callable[[], str] = str
    binary: bool = False


def _frozen_trees(
    refit: RefitSchedule, network: NetworkSettings, seed: int, source: Source
) -> Peer:
    return Refitted(source, partial(fit_trees, seed))


def _refitted_trees(
    refit: RefitSchedule, network: NetworkSettings, seed: int, source: Source
) -> Peer:
    return Refitted(source, partial(fit_trees, seed), refit)


def _refitted_logistic(
    refit: RefitSchedule, network: NetworkSettings, seed: int, source: Source
) -> Peer:
    return Refitted(source, fit_logistic, refit)


def _retrained(refit: RefitSchedule, network: NetworkSettings, seed: int, source: Source) -> Peer:
    return Refitted(source, partial(fit_network, network, seed), refit)


def _by_seed(
    make: MakePeer, refit: RefitSchedule, network: NetworkSettings, seed: int, source: Source
) -> Peer:
    return make(seed, source)


def _no_trees() -> str:
    reason = why_no_trees()
    return f"LightGBM cannot be loaded ({reason}): pip install lightgbm" if reason else ""


def _no_river() -> str:
    known = find_spec("river") is not None
    return "" if known else "river is not installed: pip install 'selfheal-cli[compare]'"


KINDS = {
    "frozen-trees": PeerKind("boosted trees, frozen", _frozen_trees, lacks=_no_trees),
    "refitted-trees": PeerKind("boosted trees, refitted", _refitted_trees, True, _no_trees),
    "refitted-logistic": PeerKind("logistic regression, refitted", _refitted_logistic, True),
    "retrained-network": PeerKind("network, retrained", _retrained, True),
    "river-logistic": PeerKind(
        "river LogisticRegression", partial(_by_seed, online.logistic), lacks=_no_river
    ),
    "adaptive-tree": PeerKind(
        "river HoeffdingAdaptiveTree", partial(_by_seed, online.adaptive_tree), lacks=_no_river
    ),
    "adaptive-forest": PeerKind(
        f"river ARF, {online.TREES} trees",
        partial(_by_seed, online.adaptive_forest),
        lacks=_no_river,
    ),
    "isolation-forest": PeerKind(
        "isolation forest, no labels", partial(_by_seed, unlabelled.isolation_forest), binary=True
    ),
    "one-class-svm": PeerKind(
        "one-class SVM, no labels", partial(_by_seed, unlabelled.one_class_svm), binary=True
    ),
}


def require_peers(names: Collection[str], classes: int) -> None:
    """Raise `ConfigurationError` for the first whose library is not here, or that cannot tell as
    many classes apart.
    """
    for name, lacks in missing_peers(names).items():
        raise ConfigurationError(
            f"peer '{name}': {lacks}; or compare without it (--peers, --river)"
        )
    binary = [name for name in names if KINDS[name].binary and classes > 2]
    if binary:
        raise ConfigurationError(
            f"peer '{binary[0]}' is for two classes and the target has {classes} values; compare "
            "without it (--peers)"
        )


def missing_peers(names: Iterable[str]) -> dict[str, str]:
    """What those whose library is not here lack, by name."""
    lacking = {name: KINDS[name].lacks() for name in names}
    return {name: lacks for name, lacks in lacking.items() if lacks}


def peers_named(
    names: Iterable[str], network: NetworkSettings, refit: RefitSchedule
) -> dict[str, MakePeer]:
    """Makers by title; a ``network`` that is trained again is trained like this."""
    kinds = [KINDS[name] for name in names]
    return {
        f"{kind.title} {refit}" if kind.refitted else kind.title: partial(kind.make, refit, network)
        for kind in kinds
    }
