"""The rooms of one stream, laid out in order: the same for a run and for a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.live import LiveModel, Serving
from selfheal_cli.heal.task import AdapterState
from selfheal_cli.pipeline.appraisal import Appraisal
from selfheal_cli.pipeline.healing import Healing
from selfheal_cli.pipeline.labels import LabelFlow
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.outside import Outside
from selfheal_cli.pipeline.prepare import Prepared
from selfheal_cli.pipeline.restore import Restore
from selfheal_cli.pipeline.snapshots import Snapshots
from selfheal_cli.pipeline.stream import Stream
from selfheal_cli.pipeline.watch import Diagnosing
from selfheal_cli.registry.base import Lineage
from selfheal_cli.source.base import Source


@dataclass(frozen=True, slots=True)
class Corridor:
    """A stream with the healing and the labels that belong to it."""

    stream: Stream
    healing: Healing
    flow: LabelFlow
    restore: Restore


def serve(
    prepared: Prepared, on_publish: Callable[[Serving], None] = lambda serving: None
) -> LiveModel:
    """The network as trained, serving."""
    weights = prepared.network.adapter.state_dict()
    frozen = prepared.network.with_adapter(weights)
    serving = Serving(frozen, AdapterState(weights, {}), "", prepared.thresholds[0])
    return LiveModel(serving, on_publish)


def lay(
    config: RunConfig,
    source: Source,
    prepared: Prepared,
    live: LiveModel,
    ledger: Ledger,
    lineage: Lineage,
    outside: Outside,
    *,
    verdicts: bool = True,
) -> Corridor:
    """Join the rooms; without ``verdicts`` nobody diagnoses, which changes no heal."""
    flow = LabelFlow(config, prepared.label_watch, len(source.labels), ledger)
    snapshots = Snapshots(ledger, lineage.run_id)
    restore = Restore(config, live, ledger, outside)
    appraisal = Appraisal(config, live, snapshots, flow.desk)
    healing = Healing(config, live, outside, appraisal, snapshots, restore, ledger, lineage.run_id)
    diagnosing = Diagnosing(config, prepared if verdicts else None, source.labels, ledger)
    stream = Stream(
        config,
        prepared,
        live,
        healing,
        appraisal,
        restore,
        snapshots,
        flow,
        diagnosing,
        ledger,
        outside,
        source.labels,
    )
    return Corridor(stream, healing, flow, restore)
