"""What the run before was trying when it ended, or was killed: found in its log, checked anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from selfheal_cli.anytime import RunningMean
from selfheal_cli.config import RunConfig
from selfheal_cli.errors import RegistryUnreachable, SelfhealError
from selfheal_cli.events import types as events
from selfheal_cli.events.log import read
from selfheal_cli.heal.engine import Serving
from selfheal_cli.heal.task import AdapterState
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.continuing import WarmStart
from selfheal_cli.pipeline.runs.recovery import served_logs
from selfheal_cli.pipeline.stream.canary import Canary, CanaryLimits, TriedBefore
from selfheal_cli.pipeline.stream.ordered import TriedNetwork, load_tried, ordered
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import CANARY, Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.orders import AUTO, mode_of
from selfheal_cli.spool.entries import Cursor

Left = events.CanaryBegan | events.CanaryOrdered | events.CanaryResumed


def tried_before(
    registry: Registry, config: RunConfig, going_on: WarmStart, network: SelfHealingNetwork,
    workspace: Path,
) -> TriedBefore | None:  # fmt: skip
    """The canary that goes on beside the champion that is gone on from, or why it does not; None
    where none was tried. Raises `RegistryUnreachable`.
    """
    model, serving = config.model_name, going_on.champion
    number = registry.alias(model, CANARY)
    if number is None:
        return None
    left, last = _latest(model, workspace), standing(registry, model).moves.get(CANARY)
    if last is not None and not last.run and not _is_known(left, number):
        return TriedBefore(order=ordered(registry, last, serving.base))
    if left is None:
        return TriedBefore(over="the log of what was compared is not in this folder")
    over = _over(registry, config, serving, left[0])
    if over:
        return TriedBefore(over=over)
    try:
        canary = _canary(
            *left, network, going_on, load_tried(registry, model, number, serving.base)
        )
    except RegistryUnreachable:
        raise
    except (SelfhealError, RuntimeError) as exc:
        return TriedBefore(over=f"v{number} cannot be tried any more: {exc}")
    return TriedBefore(canary, number)


def _is_known(left: tuple[Left, object] | None, number: int) -> bool:
    """Whether what was tried last is what a person wanted tried by its ``number``."""
    return left is not None and _ordered(left[0]) != "" and number == _number(left[0])


def _over(registry: Registry, config: RunConfig, serving: VersionRecord, began: Left) -> str:
    """Why a canary goes on no more that began so; empty where it does."""
    now = standing(registry, config.model_name)
    if serving.tags["selfheal.snapshot"] != began.against:
        return f"v{serving.version} is the champion by now"
    if CanaryLimits.of(config) is None:
        return "the policy wants no canary any more"
    if now.hold is not None:
        return f"healing is held by {now.hold.actor}"
    return "" if _ordered(began) or mode_of(now) == AUTO else f"mode {mode_of(now)}"


def _canary(
    began: Left, compared: events.CanaryCompared | None, network: SelfHealingNetwork,
    going_on: WarmStart, tried: TriedNetwork,
) -> Canary:  # fmt: skip
    """As it stood."""
    serving, weights = going_on.champion, going_on.weights
    champion = Serving(
        network.with_adapter(weights), AdapterState(weights, {}), began.against, serving.threshold
    )
    heal_id = "" if isinstance(began, events.CanaryOrdered) else began.heal_id
    who = _ordered(began)
    canary = Canary(
        tried.served, champion, heal_id, began.share, began.by, began.since, began.until,
        through=Cursor(**began.through), own=tried if who else None, ordered=who,
    )  # fmt: skip
    if isinstance(began, events.CanaryResumed):
        canary = replace(canary, seen=_mean(began.seen), rows=began.rows)
    if compared is not None:
        seen, through = _mean(compared.seen), Cursor(**compared.through)
        canary = replace(canary, seen=seen, rows=compared.rows_in_all, through=through)
    return canary


def _latest(model: str, workspace: Path) -> tuple[Left, events.CanaryCompared | None] | None:
    """How the canary of the run that began last was begun, and how it stood at its end."""
    began: Left | None = None
    compared: events.CanaryCompared | None = None
    logs = {next(read(log)).at: log for log in served_logs(model, workspace)}
    for event in read(logs[max(logs)]) if logs else ():
        match event:
            case events.CanaryBegan() | events.CanaryOrdered() | events.CanaryResumed():
                began, compared = event, None
            case events.CanaryCompared():
                compared = event
            case events.CanaryEnded():
                began = None
    return None if began is None else (began, compared)


def _ordered(began: Left) -> str:
    """Who wanted it tried; empty where a heal made it."""
    match began:
        case events.CanaryOrdered():
            return began.actor
        case events.CanaryResumed():
            return began.ordered
    return ""


def _number(began: Left) -> int:
    return 0 if isinstance(began, events.CanaryBegan) else began.version


def _mean(seen: Mapping[str, float]) -> RunningMean:
    return RunningMean(int(seen["count"]), seen["mean"], seen["squares"])
