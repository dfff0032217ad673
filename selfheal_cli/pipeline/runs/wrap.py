"""A model that somebody else trained becomes a version: registered in a run of its own."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import HealSettings, RunConfig, checked
from selfheal_cli.decide import threshold_for
from selfheal_cli.errors import ConfigurationError, VersionNotFound
from selfheal_cli.events.types import ModelWrapped
from selfheal_cli.heal.recipe import check_place
from selfheal_cli.installed import handed_over
from selfheal_cli.model.allowed import remember
from selfheal_cli.model.brought import known_as
from selfheal_cli.model.description import modules_of
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.continuing import latest_config
from selfheal_cli.pipeline.prepare.lease import RunLease, require_free
from selfheal_cli.pipeline.prepare.objective import by_the_model
from selfheal_cli.pipeline.prepare.wrapped import WRAPPED
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.runs.one_version import OneVersion, begin_log, register
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.records import AliasMove, Base, Evaluation, Phase, VersionRecord
from selfheal_cli.registry.aliases import Move, move_alias, require_allowed
from selfheal_cli.registry.base import BASELINE, CHAMPION, Lineage, Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.registry.journal import standing
from selfheal_cli.rollback.plan import By
from selfheal_cli.rollback.tried import require_tries, tries, try_out
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.settings import own_data

if TYPE_CHECKING:
    from selfheal_cli.pipeline.runs.run import RunContext


@dataclass(frozen=True, slots=True)
class Placed:
    """A wrapped network became a version; ``moved`` are the moves by which it serves, none where
    the model had versions before. ``healing`` says how it is healed where it is served, if not as
    a new one is. One that is ``tried`` answers a share of a server's requests first, and its
    figures decide.
    """

    version: int
    moved: tuple[AliasMove, ...]
    healing: str = ""
    tried: bool = False

    def told(self, model: str) -> str:
        """What comes of one that is tried."""
        return (
            f"A server heals '{model}', and its policy tries what is new: v{self.version} answers "
            "its share from the next batch on, and becomes champion, baseline and what is wrapped "
            "once its figures say so. See 'selfheal status'; 'selfheal canary promote' and "
            "'selfheal canary withdraw' decide earlier."
        )


def require_name(model: str) -> None:
    """Raise `ConfigurationError` for what cannot be the name of a registered model."""
    checked(RunConfig, {"model_name": model}, where=f"the name '{model}'")


def wrapped_on(registry: Registry, model: str, base: Base) -> int | None:
    """The version that was wrapped on this very base, and that runs of the model start from."""
    number = registry.alias(model, WRAPPED)
    if number is None:
        return None
    version = registry.any_version(model, number)
    same = isinstance(version, VersionRecord) and registry.base(version.base).sha256 == base.sha256
    return number if same else None


def is_known(registry: Registry, model: str) -> bool:
    """Whether there is a registered model of that name, whoever made it."""
    try:
        registry.versions(model, limit=1)
    except VersionNotFound:
        return False
    return True


def add_wrapped(
    network: SelfHealingNetwork,
    base: Base,
    model: str,
    origin: str,
    around: RunContext,
    *,
    promote: bool,
) -> Placed:
    """Register a wrapped network; it becomes baseline and champion of a new model, and of one that
    is known only where that is to be ``promoted``: at once, or as a canary where a server heals the
    model by a policy that tries versions.

    ``around`` are a run's `RunContext`. Raises `LeaseHeld` where another run heals the model, and
    before anything is registered what forbids the promotion.
    """
    registry = around.registry
    require_name(model)
    at = around.clock().isoformat(timespec="milliseconds")
    promotes = not is_known(registry, model) or promote
    now = standing(registry, model)
    last = now.moves.get(CHAMPION)
    wanted = Move(
        model, CHAMPION, 0, around.actor, at, f"wrapped {origin}",
        after=last.sequence if last else 0, promotes=True,
    )  # fmt: skip
    tried = promotes and tries(registry, model)
    if tried:
        require_tries(registry, model)
    elif promotes:
        require_allowed(now, wanted)
    config, healing = _as_before(network, model, base, around)
    number = _register(network, base, config, origin, around)
    if not promotes:
        return Placed(number, (), healing)
    load_verified(registry, registry.version(model, number))
    if tried:
        move = try_out(registry, model, number, By(around.actor, at, wanted.reason))
        return Placed(number, (move,), healing, tried=True)
    # the champion first: where that is refused, nothing else was moved
    moves = [replace(wanted, alias=alias, target=number) for alias in (CHAMPION, WRAPPED, BASELINE)]
    moves[1:] = [replace(move, after=None) for move in moves[1:]]
    return Placed(number, tuple(move_alias(registry, move) for move in moves), healing)


def usual_recipe(network: SelfHealingNetwork) -> str:
    """That of own data, unless the adapter is where it cannot heal."""
    try:
        check_place(HealSettings(recipe=own_data.RECIPE), network)
    except ConfigurationError:
        return "gradient"
    return own_data.RECIPE


def wrapped_config(network: SelfHealingNetwork, model: str, base: Base) -> RunConfig:
    """How it is healed where it is served as it is: as on own data, by the recipe that fits."""
    values: dict[str, Any] = {
        "model_name": model, "drift_by": own_data.DRIFT_BY, "monitors": own_data.monitors(),
        "policy": own_data.PUBLISHING, "objective": by_the_model(encoding_of(base).model),
    }  # fmt: skip
    recipe = usual_recipe(network)
    heal = HealSettings(recipe=recipe, **own_data.healing(recipe))
    return checked(RunConfig, {**values, "heal": heal}, where=f"wrapping '{model}'")


def _as_before(
    network: SelfHealingNetwork, model: str, base: Base, around: RunContext
) -> tuple[RunConfig, str]:
    """How a model that comes back retrained is healed: by the settings of its latest run, but for
    rows and network; and that in words, empty where nobody healed it by settings of its own yet.
    """
    usual = wrapped_config(network, model, base)
    try:
        before = latest_config(around.registry, model, around.workspace)
        if before is None or before.heal == HealSettings() or _healing(before) == _healing(usual):
            return usual, ""
        check_place(before.heal, network)
    except ConfigurationError as exc:
        return usual, f"healed by {usual.heal.recipe}, as new: {exc}"
    anew = {name: getattr(usual, name) for name in ("source", "network", "model", "row_contract")}
    config = before.model_copy(update={**anew, "model_name": model, "batches": None})
    return config, f"healed by the settings of its latest run: recipe {config.heal.recipe}"


def _healing(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(include={"heal", "monitors", "policy", "rules", "labels", "segments",
                                      "objective", "sensitive", "batch_size"})  # fmt: skip


def _register(
    network: SelfHealingNetwork, base: Base, config: RunConfig, origin: str, around: RunContext
) -> int:
    """A run of its own with one version, under the model's lease, unless a server has it: that one
    goes on healing what it serves. Returns the version's number.
    """
    registry, model = around.registry, config.model_name
    served = _is_served(registry, model)
    if not served:
        require_free(registry, model, around.workspace, around.clock)
    tags = {"selfheal.model": model, "selfheal.actor": around.actor, "selfheal.kind": "wrap"}
    run_id = registry.begin_run(config.experiment, {"origin": origin}, tags)

    def take(recorder: RunRecorder) -> str:
        return Snapshots(recorder, run_id).take(
            network.adapter.state_dict(), phase=Phase.BASELINE, batch=0, scores=None,
            evaluation=Evaluation.AWAITING, reason=f"wrapped {origin}",
            threshold=threshold_for(config.objective, np.zeros(0, dtype=np.float32)),
        )  # fmt: skip

    with ExitStack() as stack:
        log = stack.enter_context(closing(begin_log(run_id, around)))
        lease: RunLease | None = None
        if not served:
            lease = RunLease(
                registry, model, run_id, log.path.parent, around.actor, around.clock,
                four_eyes=False, on_settled=around.on_settled,
            )  # fmt: skip
            stack.callback(lease.release)
        base_id = registry.store_base(run_id, base)
        wrapped = ModelWrapped(base=base_id, base_sha256=base.sha256, origin=origin)
        lineage = Lineage(model, run_id, base_id, WRAPPED, "full", "1")
        made = OneVersion(config, network.architecture.adapter, wrapped, take)
        number = register(made, lineage, log, around, lease)
    if network.architecture.other is not None:
        other = network.architecture.other
        remember({*modules_of(other.module), *([known_as(other.code)] if other.code else [])})
    if handed_over("adapter", network.architecture.adapter):
        remember([network.architecture.adapter.rpartition(".")[0]])
    return number


def _is_served(registry: Registry, model: str) -> bool:
    """Whether it is a server that holds the model's lease."""
    held = standing(registry, model).lease
    return held is not None and registry.run_tags(held.run).get("selfheal.kind") == "serve"
