"""Before the stream: train on clean rows, freeze, and measure what normal looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.decide import RECENT, threshold_for
from selfheal_cli.drift.diagnosis import ReferenceRows, TrainingReference
from selfheal_cli.drift.features import Feature, ShiftRows, Shifts
from selfheal_cli.drift.fidi import Calibration, calibrate, is_category
from selfheal_cli.drift.kinds import targets_of
from selfheal_cli.drift.monitor import Reservoir, TrainingSample
from selfheal_cli.drift.segments import SegmentReference
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.events.types import FeatureShare
from selfheal_cli.heal.anchor import Anchor, AnchorRows
from selfheal_cli.heal.experts.random_features import draw_features, no_features
from selfheal_cli.heal.experts.segment import choose_directions
from selfheal_cli.heal.recipe import check_place, check_recipe, kind_of
from selfheal_cli.labels.quarantine import LabelWatch
from selfheal_cli.metrics import classify
from selfheal_cli.model.adapters import AFFINE, MIXTURE, REFLEXIVE
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.attribution import gradient_times_input, input_gradients
from selfheal_cli.model.checkpoint import PROBE_ROWS, estimator_tensors, make_base
from selfheal_cli.model.network import Classifier, PlainNetwork, SelfHealingNetwork, Weights
from selfheal_cli.model.segmented import apart
from selfheal_cli.model.selection import Selected, train_selected
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.moments import Moments
from selfheal_cli.pipeline.prepare.segments import check_segments, segment_reference
from selfheal_cli.pipeline.prepare.wrapped import Wrapped
from selfheal_cli.records import Base, Rows
from selfheal_cli.rules.health import Calibrated, calibrate_rules
from selfheal_cli.rules.ruleset import RuleSet, check_features, parse_rule
from selfheal_cli.rules.search import suggest_rule
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.encoding import CLIP, Encoding
from selfheal_cli.sources.table_file import nearest

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray


AUTO = "auto"
SHUFFLED = 2_000  # rows that a model without gradients is asked again on
TOLD = 5  # features whose shares are written down


def calibrate_sensitive(named: str | None, source: Source, rules: RuleSet) -> Calibration:
    """Mean and spread of the named feature, or of the first rule's numeric one.

    Raises `DataError` where there is none, or it never varies.
    """
    numeric = source.encoding.numeric
    features = [part.feature for rule in rules.rules for part in rule.leaves]
    if not numeric and source.encoding.columns:
        return _calibrate_text(named or (features or source.encoding.names)[0], source)
    feature = named or next((name for name in features if name in numeric), "")
    if not features and numeric:  # rules of other packages alone name none
        feature = named or numeric[0]
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
    clip = CLIP if source.encoding.contract == 2 else inf
    return calibrate(feature, moments, clip=clip)


def _calibrate_text(feature: str, source: Source) -> Calibration:
    """Of a table without numbers: the share of a text's commonest category."""
    if feature not in source.encoding.names:
        near = nearest(feature, source.encoding.names)
        names = ", ".join(source.encoding.names)
        raise DataError(f"'{feature}' is not a feature{near}; give --sensitive one of: {names}")
    counts: Counter[str] = Counter()
    for rows in source.training():
        counts.update(text for text in rows.columns[feature] if isinstance(text, str))
    category = min(counts, key=lambda name: (-counts[name], name), default="")
    moments = Moments()
    for rows in source.training():
        moments.add(is_category(rows.columns[feature], category))
    return calibrate(feature, moments, category)


def most_used(network: SelfHealingNetwork, source: Source) -> dict[str, float]:
    """Numeric features by their share of ``|gradient * input|``, largest first; they sum to 1."""
    if not _has_gradient(network, source.encoding):
        used = permuted(source.encoding, network, next(iter(source.training())))
    else:
        attributions = gradient_times_input(network, (rows.x for rows in source.training()))
        used = {n: float(attributions[place]) for n, place in numeric_inputs(source.encoding)}
    total = sum(used.values()) or 1.0
    ranked = sorted(used, key=lambda name: -used[name])
    return {name: used[name] / total for name in ranked}


def _has_gradient(network: SelfHealingNetwork, encoding: Encoding) -> bool:
    """Whether it is a network, and of numbers that are no places in a table."""
    other = network.architecture.other
    return encoding.model is None and (other is None or other.dtype != "int64")


def permuted(encoding: Encoding, network: SelfHealingNetwork, rows: Rows) -> dict[str, float]:
    """By numeric feature: how far the probabilities move where its values are another row's.

    For a model that has no gradients by its inputs (Breiman 2001, section 10).
    """
    columns = {name: values[:SHUFFLED] for name, values in rows.columns.items()}
    as_it_is = network.predict(encoding.encode(columns))
    moved: dict[str, float] = {}
    for name in encoding.numeric:
        others = {**columns, name: np.roll(columns[name], len(as_it_is) // 2)}
        distance = np.abs(network.predict(encoding.encode(others)) - as_it_is)
        moved[name] = float(np.nanmean(distance)) if np.isfinite(distance).any() else 0.0
    return moved


def most_used_features(used: Mapping[str, float]) -> tuple[FeatureShare, ...]:
    """What is written down of the choice; nothing where there was none."""
    most = (FeatureShare(feature=name, share=share) for name, share in used.items())
    return tuple(islice(most, TOLD))


def numeric_inputs(encoding: Encoding) -> Iterator[tuple[str, int]]:
    """Each numeric feature with the network's input that it is."""
    place = 0
    for column in encoding.columns:
        if column.kind == "numeric":
            yield column.name, place
        place += column.width


def check_monitors(config: RunConfig, source: Source) -> None:
    """Raise `ConfigurationError` for a monitor that cannot be, before training takes its time."""
    numeric = source.encoding.numeric
    text = source.encoding.text
    for settings in config.monitors:
        targets_of(settings, numeric, text)


def sample_of(
    config: RunConfig,
    source: Source,
    rows: Rows,
    network: SelfHealingNetwork,
    shadow: Classifier,
    threshold: float,
    rules: RuleSet,
) -> TrainingSample:
    """What monitors compare with: sampled training rows, seen by the network as it was trained."""
    probabilities = network.predict(rows.x)
    unknown = np.full(len(rows), -1, dtype=np.int8)
    least = config.policy.conflict_probability
    conflicts = rules.judge(rows.columns).conflicts_with(probabilities, unknown, least)
    categories = {
        column.name: column.categories
        for column in source.encoding.columns
        if column.kind == "categorical"
    }
    return TrainingSample(
        rows,
        shadow.predict(rows.x),
        classify(probabilities, threshold),
        conflicts.count,
        tuple(source.labels),
        tuple(source.encoding.numeric),
        categories,
        _gradients(source, network, rows),
    )


def _gradients(source: Source, network: SelfHealingNetwork, rows: Rows) -> dict[str, float]:
    """By numeric feature: mean of |gradient| times the input's standard deviation."""
    if not _has_gradient(network, source.encoding):
        return permuted(source.encoding, network, rows)
    x = rows.x[:, : network.architecture.inputs]
    gradients = np.abs(input_gradients(network, rows.x)).mean(axis=0, dtype=np.float64)
    gradients *= x.std(axis=0, dtype=np.float64)
    return {name: float(gradients[place]) for name, place in numeric_inputs(source.encoding)}


OnEpoch = Callable[[int, int], None]
SURE = 1e-7  # a float32 probability beyond has no finite logit


@dataclass(frozen=True, slots=True)
class Trained:
    """Networks as training left them, frozen, and what is watched; the same for every recipe.

    ``suggested`` when the rule was not the user's; ``used`` holds each numeric feature's share in
    the network's decisions where the sensitive one was chosen by it. ``how`` training went where it
    was chosen by validation rows; ``held_out`` inputs (n, inputs) and classes (n,) are rows of the
    training part that the network learned nothing from, None where there are none.
    """

    network: SelfHealingNetwork
    plain: Classifier | None
    rules: RuleSet
    suggested: bool
    calibration: Calibration
    used: Mapping[str, float] = field(default_factory=dict)
    how: str = ""
    held_out: tuple[FloatArray, LabelArray] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the stream needs, for one recipe.

    ``reference`` is None where nothing is diagnosed: more than two classes in a run of before.
    ``thresholds`` are those of network and shadow before any heal; ``probe`` (n, inputs) are the
    rows that every version decides on; ``sample`` is what monitors compare with, if there are any,
    and ``segments`` what each segment is compared with.
    """

    trained: Trained
    network: SelfHealingNetwork
    shadow: Classifier
    anchor: Anchor
    reference: TrainingReference | None
    rule_calibration: tuple[Calibrated, ...]
    label_watch: LabelWatch
    shifts: Shifts
    thresholds: tuple[float, float]
    probe: FloatArray
    base: Base
    sample: TrainingSample | None = None
    segments: SegmentReference | None = None


def prepare(
    config: RunConfig, source: Source, on_epoch: OnEpoch, wrapped: Wrapped | None = None
) -> Prepared:
    """Check names first, since training takes a while; then train, freeze and measure.

    A ``wrapped`` model was trained elsewhere: the training rows then only say what is normal.
    """
    check_recipe(config.heal, config.labels, len(source.labels))
    check_monitors(config, source)
    check_segments(config, source)
    if wrapped is not None:
        wrapped.require_fit(source.labels)
        check_place(config.heal, wrapped.network)
        first = next(iter(source.training()))
        wrapped.require_better_than_chance(wrapped.network.predict(first.x), first.y)
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
        network = wrapped.network_for(source.encoding)
        keyed = source.encoding.segment is not None
        selected = Selected(network.keyed() if keyed else network, "")
    else:
        selected, plain = _train(config, source, on_epoch)
    network = selected.network
    used = {} if calibration else most_used(network, source)
    calibration = calibration or calibrate_sensitive(next(iter(used), None), source, rules)
    return Trained(
        network, plain, rules, suggested, calibration, used, selected.how, selected.held_out
    )


def survey(config: RunConfig, source: Source, trained: Trained) -> Prepared:
    """One walk through the training rows with the recipe's network: what is normal?"""
    network = _with_recipes_adapter(trained.network.whole, config, source)
    classes = len(source.labels)
    strictly = config.heal.assume is not None and config.heal.assume_strictly
    anchors = AnchorRows(network, classes, margins=strictly and classes == 2)
    names = _input_names(source, by_category=config.drift_by == "monitors")
    diagnosed = classes == 2 or config.heal.verdict == "change"
    references = ReferenceRows(names, classes) if diagnosed else None
    shifts = ShiftRows(_features(source), trained.calibration.feature)
    labels: list[LabelArray] = []
    recent: list[FloatArray] = []
    reservoir = Reservoir() if config.monitors else None

    def walk() -> Iterator[Columns]:
        for rows in source.training():
            features, x = network.features(rows.x), rows.x[:, : network.architecture.inputs]
            anchors.add(x, features, rows.y)
            shifts.add(x)
            if references is not None:
                references.add(x, rows.y, frozen_logit(network.predict_features(features)))
            labels.append(rows.y)
            recent[:] = [rows.x[-RECENT:]]
            if reservoir is not None:
                reservoir.add(rows)
            yield rows.columns

    calibrated = calibrate_rules(trained.rules.rules, walk(), config.batch_size)
    anchor = anchors.anchor()
    network = _by_segment(config, network, trained.network, anchor)
    shadow = trained.plain or network.with_adapter(network.adapter.state_dict())
    probe = recent[0][-PROBE_ROWS:]
    thresholds = (
        threshold_for(config.objective, network.predict(recent[0])),
        threshold_for(config.objective, shadow.predict(recent[0])),
    )
    rest = (trained.network, shadow, thresholds[0], trained.rules)
    sample = sample_of(config, source, reservoir.rows(), *rest) if reservoir is not None else None
    return Prepared(
        trained=trained,
        network=network,
        shadow=shadow,
        anchor=anchor,
        reference=references.reference() if references else None,
        rule_calibration=tuple(calibrated),
        label_watch=_label_watch(config, labels, classes),
        shifts=shifts.shifts(),
        thresholds=thresholds,
        probe=probe,
        base=make_base(
            network,
            {**anchor.tensors(), **estimator_tensors(source.encoding.model_bytes)},
            _document(source) | ({"trees": True} if config.heal.trees else {}),
            probe,
        ),
        sample=sample,
        segments=segment_reference(config, source),
    )


def _label_watch(config: RunConfig, labels: list[LabelArray], classes: int) -> LabelWatch:
    policy = config.policy
    return LabelWatch(
        labels,
        classes,
        config.batch_size,
        policy.label_rate_z,
        policy.quarantine_limit,
        returns=policy.label_rate_of != "recent",
    )


def _with_recipes_adapter(
    network: SelfHealingNetwork, config: RunConfig, source: Source
) -> SelfHealingNetwork:
    """The network, with an adapter for the recipe behind the stored one where it heals another."""
    kind, size = kind_of(config.heal.recipe), network.architecture
    if not kind.goes_behind(size.adapter, foreign=size.foreign is not None):
        return network
    if kind.adapter == MIXTURE:
        return _mixed(network, source)
    beside = kind.adapter == AFFINE and network.may_look_beside
    with seeded(config.seed):
        return network.anchored(beside=beside, adapter=kind.adapter)


def _by_segment(
    config: RunConfig, network: SelfHealingNetwork, trained: SelfHealingNetwork, anchor: Anchor
) -> SelfHealingNetwork:
    """The network with room for segments' own adapters, where they are healed: those that
    ``trained`` has, or none.
    """
    directions = trained.architecture.directions
    if directions:
        same = network.segmented(directions)
        return same.with_adapter({**same.adapter.state_dict(), **_of_segments(trained)})
    if not config.segments.heal:
        return network
    size = network.architecture
    read = slice(size.hidden, size.hidden + size.inputs) if size.beside else slice(0, size.hidden)
    return network.segmented(choose_directions(anchor, read, max(1, size.outputs - 1)))


def _of_segments(network: SelfHealingNetwork) -> Weights:
    return apart(network.adapter.state_dict())[1]


def _changes_nothing(network: SelfHealingNetwork) -> bool:
    """Whether its affine adapter has learned nothing."""
    state = network.adapter.state_dict()
    moved = (state["scale"] != 1).any() or (state["shift"] != 0).any()
    return not (bool(state["weight"].any()) or bool(state["bias"].any()) or bool(moved))


def _mixed(network: SelfHealingNetwork, source: Source) -> SelfHealingNetwork:
    """The network with a mixture for its adapter, and random features of measured inputs."""
    if network.architecture.adapter == REFLEXIVE:
        network = network.anchored(beside=network.measures and network.has_columns)
    elif not _changes_nothing(network):
        raise ConfigurationError(
            "recipe 'ensemble' begins from a trained network, and this one was healed by 'anchored'"
            ": leave --recipe out"
        )
    if not (network.measures and network.has_columns):
        return network.mixed(*no_features(network.architecture.inputs))
    sample = Reservoir()
    for rows in source.training():
        sample.add(rows)
    return network.mixed(*draw_features(sample.rows().x[:, : network.architecture.inputs]))


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
    """Probabilities, (n,) or of K classes (n, K), to logits of the same shape."""
    bounded = np.clip(probabilities, SURE, 1 - SURE)
    if bounded.ndim > 1:
        return np.log(bounded)
    logits: FloatArray = np.log(bounded / (1 - bounded))
    return logits


def _features(source: Source) -> list[Feature]:
    numeric = set(source.encoding.numeric)
    if source.encoding.transforms:
        return [Feature(name, "numeric", 1) for name in source.encoding.transformed]
    return [
        Feature(column.name, "numeric" if column.name in numeric else "categorical", column.width)
        for column in source.encoding.columns
        if column.width
    ]


def _input_names(source: Source, *, by_category: bool) -> list[str]:
    """A name for each input of the network; logs of before number the inputs of a text."""
    if source.encoding.transforms:
        return list(source.encoding.transformed)
    names = []
    for column in source.encoding.columns:
        if column.kind == "segment":
            continue
        if column.width == 1:
            names.append(column.name)
        elif by_category and column.kind == "categorical":
            names += [f"{column.name} = {text}" for text in (*column.categories, "(missing)")]
        else:
            names += [f"{column.name}[{place}]" for place in range(column.width)]
    if source.encoding.model is not None:
        names += [f"the model's answer [{place}]" for place in range(source.encoding.model.outputs)]
    return names


def _train(
    config: RunConfig, source: Source, on_epoch: OnEpoch
) -> tuple[Selected, Classifier | None]:
    settings, classes = config.network, len(source.labels)
    keyed = source.encoding.segment is not None
    architecture = Architecture(
        source.encoding.width, settings.hidden, 1 if classes == 2 else classes, keyed=keyed
    )
    total = settings.epochs * (2 if settings.shadow == "plain" else 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        on_epoch(done, total)

    def trained(network: Any) -> Selected:
        if settings.validation:
            return train_selected(network, rows, settings, tick)
        train(network, rows, settings, tick)
        return Selected(network, "")

    rows = SpooledRows(source.training())
    plain: Classifier | None = None
    with seeded(config.seed):
        network = SelfHealingNetwork.build(architecture)
        if settings.shadow == "plain":
            plain = PlainNetwork(architecture)
        selected = trained(network)
        if plain is not None:
            trained(plain)
    rows.close()
    return selected, plain


def _rules(config: RunConfig, source: Source) -> tuple[RuleSet, bool]:
    encoding = source.encoding
    if not config.rules:
        rule = suggest_rule(next(source.training()), encoding.numeric, encoding.text)
        return RuleSet([rule], classes=len(source.labels)), True
    rules = [parse_rule(text) for text in config.rules]
    check_features(rules, encoding.numeric, encoding.text)
    return RuleSet(rules, classes=len(source.labels)), False
