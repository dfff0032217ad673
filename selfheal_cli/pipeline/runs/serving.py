"""A model behind a server: its champion goes on healing on the rows that are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load

from selfheal_cli.config import (
    HealSettings,
    RunConfig,
    ServedSettings,
    SyntheticSettings,
    TableSettings,
    checked,
)
from selfheal_cli.config_labels import HORIZON
from selfheal_cli.config_sources import (
    FolderSettings,
    NdjsonSettings,
    OwnSettings,
    Reference,
    SqlSettings,
    UnboundedSettings,
)
from selfheal_cli.errors import ConfigurationError, NoCandidateError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import EventLog
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.model.checkpoint import ANCHOR, ESTIMATOR, assemble, probe_rows
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.pipeline.prepare.continuing import (
    baseline_of,
    continued,
    recorded_config,
    spent,
)
from selfheal_cli.pipeline.prepare.lease import RunLease
from selfheal_cli.pipeline.prepare.rows import open_source, training_table
from selfheal_cli.pipeline.prepare.wrapped import WRAPPED, Wrapped
from selfheal_cli.pipeline.runs.canary_left import tried_before
from selfheal_cli.pipeline.runs.handed_over import handed_over
from selfheal_cli.pipeline.runs.run import Finished, RunContext, RunSpec, go, leased
from selfheal_cli.pipeline.runs.wrap import wrapped_config
from selfheal_cli.pipeline.stream.canary import CanaryLimits, TriedBefore
from selfheal_cli.records import Base, VersionRecord
from selfheal_cli.registry.base import CANARY, TRIES_TAG, Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.orders import set_mode
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.settings import own_data
from selfheal_cli.spool.entries import Cursor
from selfheal_cli.spool.source import Pace, SpoolSource
from selfheal_cli.spool.store import Spool

# what heals of a served model may do by themselves, where its policy says nothing
BUDGET = {"budget_moves": 6, "budget_change": 0.10, "budget_change_in_all": 0.25}


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What a served model is to do: ``overrides`` of its champion's configuration, and a table
    that says what is normal where the champion's own is gone. ``elsewhere`` has configuration and
    parts of a run whose event log is on another machine, by its id; nothing where it is not known.
    """

    model: str
    overrides: Mapping[str, Any]
    reference: TableSettings | None
    workspace: Path
    elsewhere: Callable[[str], Mapping[str, Any]] = lambda run: {}


@dataclass(frozen=True, slots=True)
class ServedRun:
    """A model that is ready to be healed behind its server.

    ``baseline`` is None where the champion's base is not of the kind that the recipe heals: then
    the run begins with a baseline of its own, which decides as the champion does.
    """

    config: RunConfig
    source: SpoolSource
    prepared: Prepared
    champion: VersionRecord
    baseline: VersionRecord | None


def open_served(registry: Registry, wanted: ServingOptions, spool: Spool, pace: Pace) -> ServedRun:
    """Read the champion and what is normal.

    Raises `ConfigurationError` kinds where that cannot be had: then the model can be served, and
    not healed.
    """
    use_one_thread()
    champion = _champion(registry, wanted.model)
    base = registry.base(champion.base)
    config = _config(registry, champion, wanted)
    pace = replace(pace, batch_size=config.batch_size)
    document = base.describe()
    encoding = encoding_of(base)
    assert isinstance(config.source, ServedSettings)  # noqa: S101 - as _config made it
    reference = open_source(config.model_copy(update={"source": config.source.reference}))
    source = SpoolSource(
        reference, encoding, spool, Cursor(), pace, config.labels.keep,
        draws=config.policy.explore > 0,
    )  # fmt: skip
    baseline = baseline_of(registry, champion)
    network, fits = _network(registry, champion, base, baseline, config)
    labels = tuple(document["labels"])
    wrapped = Wrapped(network, tuple(encoding.names), labels, champion, encoding)
    prepared = prepare(config, source, lambda done, total: None, wrapped)
    if not fits:
        return ServedRun(config, source, prepared, champion, None)
    return ServedRun(config, source, _as_stored(prepared, base), champion, baseline)


def heal_served(
    served: ServedRun,
    registry: Registry,
    around: RunContext,
    where: Callable[[RunLease], Cursor],
) -> Finished:
    """Heal until the source ends, under the model's lease; raises `LeaseHeld` without it.

    ``where`` to read from is asked once the lease is held.
    """
    config, model = served.config, served.config.model_name
    tags = {"selfheal.model": model, "selfheal.actor": around.actor, "selfheal.kind": "serve"}
    if config.policy.canary_share is not None:
        tags[TRIES_TAG] = f"{config.policy.canary_share:g}"
    run_id = registry.begin_run(config.experiment, config.parameters(), tags)
    with leased(config, run_id, around) as lease:
        served.source.begin(where(lease))
        _take_mode(registry, config, around)
        champion, tried = None, None
        if served.baseline is not None:
            champion = continued(registry, _champion(registry, model), served.baseline)
            before = spent(registry, champion.champion, around.clock())
            champion = replace(champion, spent=before)
            tried = tried_before(
                registry, config, champion, served.prepared.network, around.workspace
            )
        elif registry.alias(model, CANARY) is not None:
            tried = TriedBefore(over="the champion is on another base by now")
        log = EventLog(run_folder(run_id, around.workspace) / LOG_NAME, around.clock)
        course = RunSpec(
            config, served.source, served.prepared, run_id, log, around.actor, lease.known,
            continued=champion, tried=tried,
        )  # fmt: skip
        with closing(log):
            return go(course, around, lease)


def _take_mode(registry: Registry, config: RunConfig, around: RunContext) -> None:
    """What the policy says of the mode counts where it says something new; orders of people stay
    over a restart.
    """
    said, now = config.policy.mode, standing(registry, config.model_name).mode
    if said is None or said == (now.policy if now else ""):
        return
    at = around.clock().isoformat(timespec="milliseconds")
    set_mode(
        registry, config.model_name, said, actor=around.actor, at=at, reason="by the policy",
        by_policy=True,
    )  # fmt: skip


def _champion(registry: Registry, model: str) -> VersionRecord:
    champion = serving_version(registry, model)
    if champion is None:
        raise NoCandidateError(
            f"model '{model}' has no champion; run 'selfheal run' or 'selfheal wrap' first, or "
            "'selfheal rollback --to VERSION'"
        )
    return champion


def _config(registry: Registry, champion: VersionRecord, wanted: ServingOptions) -> RunConfig:
    """The champion's run's configuration, with what is wanted otherwise."""
    known = recorded_config(registry, champion, wanted.workspace, wanted.elsewhere)
    if champion.tags["selfheal.recipe"] == WRAPPED and known.heal == HealSettings():
        # as selfheal 0.1.0 wrote it down, where nobody had chosen how it is healed
        base, weights = registry.base(champion.base), load_verified(registry, champion)
        network = assemble(base, weights, where="what was wrapped")
        known = wrapped_config(network, champion.model, base)
    reference: Reference | None = wanted.reference
    if reference is None and champion.tags["selfheal.recipe"] == WRAPPED:
        reference = handed_over(registry.base(champion.base), champion.model, wanted.workspace)
    reference = reference or _reference(known, champion)
    recipe = (wanted.overrides.get("heal") or {}).get("recipe", known.heal.recipe)
    if recipe != known.heal.recipe:
        trees = own_data.healing(recipe)["trees"]
        heal = own_data.with_recipe(known.heal, recipe).model_copy(update={"trees": trees})
        known = known.model_copy(update={"heal": heal})
    values = known.model_dump()
    for key, value in wanted.overrides.items():
        group = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        values[key] = {**values[key], **value} if group else value
    values["source"] = ServedSettings(reference=reference)
    if "policy" not in wanted.overrides:  # only who starts the server has rows let through by it
        values["policy"] = {**values["policy"], "explore": 0.0}
    values["labels"] = {"horizon": HORIZON, **values["labels"], "regime": "arriving"}
    values["heal"] = {**values["heal"], "mode": "sync", "assume": None}
    said = {name: value for name, value in values["policy"].items() if value is not None}
    values["policy"] = {**BUDGET, **said}
    values |= {"model_name": wanted.model, "model": None, "batches": None}
    config = checked(RunConfig, values, where=f"serving '{wanted.model}'")
    CanaryLimits.of(config)
    return config


def _reference(recorded: RunConfig, champion: VersionRecord) -> Reference:
    source = recorded.source
    if isinstance(source, ServedSettings):
        source = source.reference
    if isinstance(source, SyntheticSettings) and champion.tags["selfheal.recipe"] != "wrapped":
        return source
    if isinstance(source, UnboundedSettings) and source.train is not None:
        source = training_table(source)
    if isinstance(source, SqlSettings | OwnSettings):
        return source
    if isinstance(source, TableSettings | FolderSettings | NdjsonSettings) and source.path.exists():
        return source
    raise ConfigurationError(
        f"{champion.model} v{champion.version}: the rows that say what is normal are not here; "
        "give a table of labelled rows with --reference FILE --target COLUMN"
    )


def _network(
    registry: Registry,
    champion: VersionRecord,
    base: Base,
    baseline: VersionRecord | None,
    config: RunConfig,
) -> tuple[SelfHealingNetwork, bool]:
    """The network as trained; and whether the recipe heals it as it is.

    Where it does not, an adapter of the recipe's is put behind the champion as it decides now.
    """
    kind, size = kind_of(config.heal.recipe), base.describe()["network"]
    stored = size["adapter"]
    if stored not in (kind.adapter, *kind.takes):
        raise ConfigurationError(
            f"{champion.model} v{champion.version} heals by adapter {stored}, which recipe "
            f"{config.heal.recipe} cannot heal; leave --recipe out"
        )
    statistics = {name for name in load(base.weights) if name.startswith(ANCHOR)}
    measured = bool(statistics - {f"{ANCHOR}{ESTIMATOR}"})  # which is a model's bytes
    fits = measured and not kind.goes_behind(stored, foreign="foreign" in size)
    if fits and baseline is None:
        raise ConfigurationError(
            f"{champion.model} v{champion.version}: its baseline was removed, so that nothing says "
            "what the trained network decided; register one with 'selfheal run'"
        )
    start = baseline if fits and baseline is not None else champion
    weights = load_verified(registry, start)
    return assemble(base, weights, where=f"{start.model} v{start.version}"), fits


def _as_stored(prepared: Prepared, base: Base) -> Prepared:
    """Held by the statistics that lie in the base, whatever the reference rows are."""
    tensors = load(base.weights)
    anchor = {
        name.removeprefix(ANCHOR): value
        for name, value in tensors.items()
        if name.startswith(ANCHOR)
    }
    probe = probe_rows(base)
    return replace(
        prepared,
        base=base,
        anchor=Anchor.from_tensors(anchor),
        probe=prepared.probe if probe is None else probe,
    )
