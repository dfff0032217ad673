"""Before the stream: train on clean rows, freeze, calibrate the monitors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import DataError
from selfheal_cli.model.network import Classifier, PlainNetwork, SelfHealingNetwork
from selfheal_cli.model.spool import SpooledRows
from selfheal_cli.model.training import seeded, train
from selfheal_cli.moments import Moments
from selfheal_cli.monitor.fidi import Calibration, calibrate
from selfheal_cli.monitor.rules import RuleSet, check_features, parse_rule
from selfheal_cli.monitor.suggest import suggest_rule
from selfheal_cli.snapshot import Base, make_base
from selfheal_cli.source.base import Source
from selfheal_cli.source.profile import nearest

OnEpoch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stream needs; ``suggested`` when the rule was not the user's."""

    network: SelfHealingNetwork
    shadow: Classifier
    rules: RuleSet
    suggested: bool
    calibration: Calibration
    base: Base


def prepare(config: RunConfig, source: Source, on_epoch: OnEpoch) -> Prepared:
    """Check names first, since training takes a while; then train, freeze and calibrate."""
    rules, suggested = _rules(config, source)
    calibration = _calibrate(config, source, rules)
    network, shadow = _train(config, source, on_epoch)
    document = {
        "encoding": source.encoding.model_dump(mode="json"),
        "labels": list(source.labels),
        "threshold": config.threshold,
    }
    return Prepared(network, shadow, rules, suggested, calibration, make_base(network, document))


def _train(
    config: RunConfig, source: Source, on_epoch: OnEpoch
) -> tuple[SelfHealingNetwork, Classifier]:
    settings, inputs = config.network, source.encoding.width
    total = settings.epochs * (2 if settings.shadow == "plain" else 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        on_epoch(done, total)

    rows = SpooledRows(source.training())
    with seeded(config.seed):
        network = SelfHealingNetwork.build(inputs, settings.hidden)
        if settings.shadow == "frozen":
            train(network, rows, settings, tick)
            rows.close()
            return network, network.with_adapter(network.adapter.state_dict())
        plain = PlainNetwork(inputs, settings.hidden)
        train(network, rows, settings, tick)
        train(plain, rows, settings, tick)
    rows.close()
    return network, plain


def _rules(config: RunConfig, source: Source) -> tuple[RuleSet, bool]:
    encoding = source.encoding
    if not config.rules:
        rule = suggest_rule(next(source.training()), encoding.numeric)
        return RuleSet([rule]), True
    rules = [parse_rule(text) for text in config.rules]
    text = [name for name in encoding.names if name not in encoding.numeric]
    check_features(rules, encoding.numeric, text)
    return RuleSet(rules), False


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
