"""Before the stream: train on clean rows, freeze, and measure what normal looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.objective import RECENT, threshold_for
from selfheal_cli.heal.anchor import Anchor, AnchorRows
from selfheal_cli.heal.recipe import KINDS, check_place, check_recipe
from selfheal_cli.model.adapters.kinds import AFFINE
from selfheal_cli.model.network import (
    Architecture,
    Classifier,
    PlainNetwork,
    SelfHealingNetwork,
)
from selfheal_cli.model.spool import SpooledRows
from selfheal_cli.model.training import seeded, train
from selfheal_cli.monitor.diagnosis import Reference, ReferenceRows
from selfheal_cli.monitor.fidi import Calibration
from selfheal_cli.monitor.monitors.sample import Reservoir, TrainingSample
from selfheal_cli.monitor.quarantine import LabelWatch
from selfheal_cli.monitor.rule_health import Calibrated, calibrate_rules
from selfheal_cli.monitor.rules import RuleSet, check_features, parse_rule
from selfheal_cli.monitor.shifts import Feature, ShiftRows, Shifts
from selfheal_cli.monitor.suggest import suggest_rule
from selfheal_cli.pipeline.monitoring import check_monitors, sample_of
from selfheal_cli.pipeline.sensitive import AUTO, calibrate_sensitive, most_used
from selfheal_cli.pipeline.wrapped import Wrapped
from selfheal_cli.records import Base
from selfheal_cli.snapshot import PROBE_ROWS, make_base
from selfheal_cli.source.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray

OnEpoch = Callable[[int, int], None]
SURE = 1e-7  # a float32 probability beyond has no finite logit


@dataclass(frozen=True, slots=True)
class Trained:
    """Networks as training left them, frozen, and what is watched; the same for every recipe.

    ``suggested`` when the rule was not the user's; ``used`` holds each numeric feature's share in
    the network's decisions where the sensitive one was chosen by it.
    """

    network: SelfHealingNetwork
    plain: Classifier | None
    rules: RuleSet
    suggested: bool
    calibration: Calibration
    used: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stream needs, for one recipe.

    ``reference`` is None where there are more than two classes: the diagnosis is for two.
    ``thresholds`` are those of network and shadow before any heal; ``probe`` (n, inputs) are the
    rows that every version decides on; ``sample`` is what monitors compare with, if there are any.
    """

    trained: Trained
    network: SelfHealingNetwork
    shadow: Classifier
    anchor: Anchor
    reference: Reference | None
    rule_calibration: tuple[Calibrated, ...]
    label_watch: LabelWatch
    shifts: Shifts
    thresholds: tuple[float, float]
    probe: FloatArray
    base: Base
    sample: TrainingSample | None = None


def prepare(
    config: RunConfig, source: Source, on_epoch: OnEpoch, wrapped: Wrapped | None = None
) -> Prepared:
    """Check names first, since training takes a while; then train, freeze and measure.

    A ``wrapped`` model was trained elsewhere: the training rows then only say what is normal.
    """
    check_recipe(config.heal, config.labels, len(source.labels))
    check_monitors(config, source)
    if wrapped is not None:
        wrapped.require_fit(source.labels)
        check_place(config.heal, wrapped.network)
    return survey(config, source, train_networks(config, source, on_epoch, wrapped))


def train_networks(
    config: RunConfig, source: Source, on_epoch: OnEpoch, wrapped: Wrapped | None = None
) -> Trained:
    """Train what every recipe starts from."""
    rules, suggested = _rules(config, source)
    numeric = source.encoding.numeric
    auto = config.sensitive == AUTO and bool(numeric) and AUTO not in numeric
    named = None if config.sensitive == AUTO and not numeric else config.sensitive
    calibration = None if auto else calibrate_sensitive(named, source, rules)
    plain: Classifier | None = None
    if wrapped is not None:
        network = wrapped.network
    else:
        network, plain = _train(config, source, on_epoch)
    used = {} if calibration else most_used(network, source)
    calibration = calibration or calibrate_sensitive(next(iter(used), None), source, rules)
    return Trained(network, plain, rules, suggested, calibration, used)


def survey(config: RunConfig, source: Source, trained: Trained) -> Prepared:
    """One walk through the training rows with the recipe's network: what is normal?"""
    kind = KINDS[config.heal.recipe]
    network = trained.network
    if kind.adapter == AFFINE and network.architecture.adapter != AFFINE:
        network = network.anchored(beside=network.may_look_beside)
    classes = len(source.labels)
    anchors = AnchorRows(network, classes)
    references = ReferenceRows(_input_names(source)) if classes == 2 else None
    shifts = ShiftRows(_features(source), trained.calibration.feature)
    labels: list[LabelArray] = []
    recent: list[FloatArray] = []
    reservoir = Reservoir() if config.monitors else None

    def walk() -> Iterator[Columns]:
        for rows in source.training():
            features = network.features(rows.x)
            anchors.add(rows.x, features, rows.y)
            shifts.add(rows.x)
            if references is not None:
                frozen = network.predict_features(features)
                references.add(rows.x, rows.y, frozen_logit(frozen))
            labels.append(rows.y)
            recent[:] = [rows.x[-RECENT:]]
            if reservoir is not None:
                reservoir.add(rows)
            yield rows.columns

    calibrated = calibrate_rules(trained.rules.rules, walk(), config.batch_size)
    anchor = anchors.anchor()
    policy = config.policy
    shadow = trained.plain or network.with_adapter(network.adapter.state_dict())
    probe = recent[0][-PROBE_ROWS:]
    thresholds = (
        threshold_for(config.objective, network.predict(recent[0])),
        threshold_for(config.objective, shadow.predict(recent[0])),
    )
    sample = None
    if reservoir is not None:
        rows = reservoir.rows()
        sample = sample_of(
            config, source, rows, trained.network, shadow, thresholds[0], trained.rules
        )
    return Prepared(
        trained=trained,
        network=network,
        shadow=shadow,
        anchor=anchor,
        reference=references.reference() if references else None,
        rule_calibration=tuple(calibrated),
        label_watch=LabelWatch(
            labels, classes, config.batch_size, policy.label_rate_z, policy.quarantine_limit
        ),
        shifts=shifts.shifts(),
        thresholds=thresholds,
        probe=probe,
        base=make_base(network, anchor.tensors(), _document(source), probe),
        sample=sample,
    )


def _document(source: Source) -> dict[str, Any]:
    """What a base says of its rows: how they become inputs, their classes, what they must be."""
    document: dict[str, Any] = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
    }
    if source.contract is not None:
        document["contract"] = source.contract.model_dump(mode="json")
    return document


def frozen_logit(probabilities: FloatArray) -> FloatArray:
    """Probabilities (n,) to logits (n,)."""
    bounded = np.clip(probabilities, SURE, 1 - SURE)
    found: FloatArray = np.log(bounded / (1 - bounded))
    return found


def _features(source: Source) -> list[Feature]:
    numeric = set(source.encoding.numeric)
    return [
        Feature(column.name, "numeric" if column.name in numeric else "categorical", column.width)
        for column in source.encoding.columns
    ]


def _input_names(source: Source) -> list[str]:
    """A name for each input of the network."""
    return [
        column.name if column.width == 1 else f"{column.name}[{place}]"
        for column in source.encoding.columns
        for place in range(column.width)
    ]


def _train(
    config: RunConfig, source: Source, on_epoch: OnEpoch
) -> tuple[SelfHealingNetwork, Classifier | None]:
    settings, classes = config.network, len(source.labels)
    architecture = Architecture(
        source.encoding.width, settings.hidden, 1 if classes == 2 else classes
    )
    total = settings.epochs * (2 if settings.shadow == "plain" else 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        on_epoch(done, total)

    rows = SpooledRows(source.training())
    with seeded(config.seed):
        network = SelfHealingNetwork.build(architecture)
        if settings.shadow == "frozen":
            train(network, rows, settings, tick)
            rows.close()
            return network, None
        plain = PlainNetwork(architecture)
        train(network, rows, settings, tick)
        train(plain, rows, settings, tick)
    rows.close()
    return network, plain


def _rules(config: RunConfig, source: Source) -> tuple[RuleSet, bool]:
    encoding = source.encoding
    if not config.rules:
        rule = suggest_rule(next(source.training()), encoding.numeric, encoding.text)
        return RuleSet([rule], classes=len(source.labels)), True
    rules = [parse_rule(text) for text in config.rules]
    check_features(rules, encoding.numeric, encoding.text)
    return RuleSet(rules, classes=len(source.labels)), False
