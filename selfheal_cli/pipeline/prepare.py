"""Before the stream: train on clean rows, freeze, and measure what normal looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.objective import RECENT, threshold_for
from selfheal_cli.errors import DataError
from selfheal_cli.heal.anchor import Anchor, AnchorRows
from selfheal_cli.heal.recipe import KINDS, check_recipe
from selfheal_cli.model.network import (
    Architecture,
    Classifier,
    PlainNetwork,
    SelfHealingNetwork,
)
from selfheal_cli.model.spool import SpooledRows
from selfheal_cli.model.training import seeded, train
from selfheal_cli.moments import Moments
from selfheal_cli.monitor.diagnosis import Reference, ReferenceRows
from selfheal_cli.monitor.fidi import Calibration, calibrate
from selfheal_cli.monitor.quarantine import LabelWatch
from selfheal_cli.monitor.rule_health import Calibrated, calibrate_rules
from selfheal_cli.monitor.rules import RuleSet, check_features, parse_rule
from selfheal_cli.monitor.shifts import Feature, ShiftRows, Shifts
from selfheal_cli.monitor.suggest import suggest_rule
from selfheal_cli.snapshot import PROBE_ROWS, Base, make_base
from selfheal_cli.source.base import Source
from selfheal_cli.source.profile import nearest

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray

OnEpoch = Callable[[int, int], None]
SURE = 1e-7  # a float32 probability beyond has no finite logit


@dataclass(frozen=True, slots=True)
class Trained:
    """Networks as training left them, frozen, and what is watched; the same for every recipe.

    ``suggested`` when the rule was not the user's.
    """

    network: SelfHealingNetwork
    plain: Classifier | None
    rules: RuleSet
    suggested: bool
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stream needs, for one recipe.

    ``reference`` is None where there are more than two classes: the diagnosis is for two.
    ``thresholds`` are those of network and shadow before any heal; ``probe`` (n, inputs) are the
    rows that every version decides on.
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


def prepare(config: RunConfig, source: Source, on_epoch: OnEpoch) -> Prepared:
    """Check names first, since training takes a while; then train, freeze and measure."""
    check_recipe(config.heal, config.labels, len(source.labels))
    return survey(config, source, train_networks(config, source, on_epoch))


def train_networks(config: RunConfig, source: Source, on_epoch: OnEpoch) -> Trained:
    """Train what every recipe starts from."""
    rules, suggested = _rules(config, source)
    calibration = _calibrate(config, source, rules)
    network, plain = _train(config, source, on_epoch)
    return Trained(network, plain, rules, suggested, calibration)


def survey(config: RunConfig, source: Source, trained: Trained) -> Prepared:
    """One walk through the training rows with the recipe's network: what is normal?"""
    kind = KINDS[config.heal.recipe]
    network = trained.network
    if kind.adapter == "affine":
        network = network.anchored(beside=True)
    classes = len(source.labels)
    anchors = AnchorRows(network, classes)
    references = ReferenceRows(_input_names(source)) if classes == 2 else None
    shifts = ShiftRows(_features(source), trained.calibration.feature)
    labels: list[LabelArray] = []
    recent: list[FloatArray] = []

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
            yield rows.columns

    calibrated = calibrate_rules(trained.rules.rules, walk(), config.batch_size)
    anchor = anchors.anchor()
    policy = config.policy
    shadow = trained.plain or network.with_adapter(network.adapter.state_dict())
    probe = recent[0][-PROBE_ROWS:]
    document = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
    }
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
        thresholds=(
            threshold_for(config.objective, network.predict(recent[0])),
            threshold_for(config.objective, shadow.predict(recent[0])),
        ),
        probe=probe,
        base=make_base(network, anchor.tensors(), document, probe),
    )


def frozen_logit(probabilities: FloatArray) -> FloatArray:
    """Probabilities (n,) to logits (n,)."""
    bounded = np.clip(probabilities, SURE, 1 - SURE)
    found: FloatArray = np.log(bounded / (1 - bounded))
    return found


def _features(source: Source) -> list[Feature]:
    columns = source.encoding.columns
    return [Feature(column.name, column.kind, column.width) for column in columns]


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
        rule = suggest_rule(next(source.training()), encoding.numeric)
        return RuleSet([rule], classes=len(source.labels)), True
    rules = [parse_rule(text) for text in config.rules]
    text = [name for name in encoding.names if name not in encoding.numeric]
    check_features(rules, encoding.numeric, text)
    return RuleSet(rules, classes=len(source.labels)), False


def _calibrate(config: RunConfig, source: Source, rules: RuleSet) -> Calibration:
    numeric = source.encoding.numeric
    named = [part.feature for rule in rules.rules for part in rule.comparisons]
    feature = config.sensitive or next((name for name in named if name in numeric), "")
    if feature not in numeric:
        what = (
            f"'{feature}' is not a numeric feature{nearest(feature, numeric)}"
            if feature
            else ("no rule names a numeric feature")
        )
        raise DataError(f"{what}; give --sensitive one of: {', '.join(numeric) or 'none'}")
    moments = Moments()
    for rows in source.training():
        moments.add(rows.columns[feature])
    return calibrate(feature, moments)
