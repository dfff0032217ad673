"""Settings: the article's figures, what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    NetworkSettings,
    Objective,
    Policy,
    RunConfig,
    Settings,
    SyntheticSettings,
    TableSettings,
    checked,
)
from selfheal_cli.config_policy import Retention
from selfheal_cli.errors import ConfigurationError


def test_the_defaults_are_the_article_s() -> None:
    config = RunConfig()
    assert config.source == SyntheticSettings(
        drift_strength=2.2, train_rows=5_000, test_rows=1_000, positive_share=0.15
    )
    assert (config.seed, config.batch_size) == (42, 100)
    assert (config.objective.kind, config.labels.regime) == ("accuracy", "full")
    assert (config.heal.recipe, config.heal.mode, config.heal.assume) == ("article", "sync", None)
    assert not config.source.fresh
    assert config.source.phases == ()
    network, heal, policy = config.network, config.heal, config.policy
    assert (network.hidden, network.epochs, network.train_batch_size) == (64, 20, 100)
    assert (network.learning_rate, heal.learning_rate, heal.steps) == (0.001, 0.003, 5)
    assert (heal.label_weight, heal.rule_weight, heal.entropy_weight) == (0.70, 0.24, 0.03)
    assert (policy.fidi_threshold, policy.fidi_window, policy.fidi_min_batches) == (1.0, 10, 3)
    assert (policy.conflict_min, policy.conflict_probability) == (5, 0.30)
    assert (policy.rollback_f1_drop, policy.rollback_acc_drop) == (0.08, 0.10)
    assert (policy.health_window, policy.health_min_heals) == (5, 3)


@pytest.mark.parametrize(
    "model",
    [
        Policy,
        NetworkSettings,
        HealSettings,
        LabelSettings,
        Objective,
        SyntheticSettings,
        TableSettings,
        RunConfig,
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones(model: type[Settings]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(model, {"path": "t.csv", "target": "y", "typo": 1}, where="options")
    known = ", ".join(model.model_fields)
    unknown = "typo" if model is TableSettings else "path"
    assert str(caught.value) == f"options: unknown key '{unknown}'; known: {known}"


def test_an_unknown_key_of_a_group_is_refused_without_keys_of_another() -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(RunConfig, {"policy": {"fidi_treshold": 1}}, where="options")
    assert "unknown key 'policy.fidi_treshold'" in str(caught.value)
    assert "model_name" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        (RunConfig, "batch_size", 1, "greater than or equal to 2"),
        (RunConfig, "batch_size", 2_000_000, "less than or equal to 1000000"),
        (RunConfig, "batches", 0, "greater than or equal to 1"),
        (RunConfig, "seed", -1, "greater than or equal to 0"),
        (RunConfig, "seed", 2**32, "less than or equal to 4294967295"),
        (LabelSettings, "regime", "some", "'full', 'delayed', 'timed', 'arriving' or 'none'"),
        (LabelSettings, "delay", -1, "greater than or equal to 0"),
        (LabelSettings, "delay", 1_000_001, "less than or equal to 1000000"),
        (Objective, "kind", "recall", "'accuracy', 'f1' or 'cost'"),
        (Objective, "fn", 0.0, "greater than 0"),
        (Objective, "fp", float("nan"), "finite"),
        (Objective, "fn", float("inf"), "finite"),
        (RunConfig, "model_name", "a/b", "should match pattern"),
        (RunConfig, "model_name", "", "should match pattern"),
        (RunConfig, "model_name", "fraud\n", "should match pattern"),
        (RunConfig, "experiment", "../up", "should match pattern"),
        (NetworkSettings, "hidden", 0, "greater than or equal to 1"),
        (NetworkSettings, "learning_rate", 0.0, "greater than 0"),
        (NetworkSettings, "learning_rate", float("inf"), "finite"),
        (NetworkSettings, "shadow", "none", "'plain' or 'frozen'"),
        (HealSettings, "steps", 0, "greater than or equal to 1"),
        (HealSettings, "steps", 2.5, "valid integer"),
        (HealSettings, "mode", "later", "'sync' or 'async'"),
        (HealSettings, "recipe", "guess", "built in: article, gradient, anchored, ensemble;"),
        (HealSettings, "window", 0, "greater than or equal to 1"),
        (HealSettings, "held_out", 0.91, "less than or equal to 0.9"),
        (HealSettings, "held_out", float("nan"), "than or equal to 0"),
        (HealSettings, "ridge", 0.0, "greater than 0"),
        (HealSettings, "assume", "nothing", "'positives-stable', 'negatives-stable'"),
        (HealSettings, "rule_weight", -0.1, "greater than or equal to 0"),
        (SyntheticSettings, "drift_strength", float("nan"), "less than or equal to 100"),
        (SyntheticSettings, "drift_strength", -101, "greater than or equal to -100"),
        (SyntheticSettings, "positive_share", 0, "greater than 0"),
        (SyntheticSettings, "positive_share", 1, "less than 1"),
        (SyntheticSettings, "train_rows", 10_000_001, "less than or equal to 10000000"),
        (Policy, "fidi_threshold", -1.0, "greater than or equal to 0"),
        (Policy, "rollback_f1_drop", -0.01, "greater than or equal to 0"),
        (Policy, "rollback_candidates", "all", "'run' or 'model'"),
        (Policy, "gate_tolerance", -0.1, "greater than or equal to 0"),
        (Policy, "gate_tolerance", float("inf"), "finite"),
        (Policy, "label_rate_z", 0.0, "greater than 0"),
        (Policy, "rule_rate_z", -1.0, "greater than 0"),
        (Policy, "quarantine_limit", 0, "greater than or equal to 1"),
        (Policy, "stale_rules", "move", "'drop', 'reanchor' or 'keep'"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(
    model: type[Settings], key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked(model, {key: value}, where="options")
    text = str(caught.value)
    assert text.startswith(f"options: {key} = {value!r}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_a_table_needs_both_parts(fraction: float) -> None:
    values = {"path": "t.csv", "target": "y", "train_fraction": fraction}
    with pytest.raises(ConfigurationError, match="train_fraction = "):
        checked(TableSettings, values, where="options")


def test_a_table_needs_a_path_and_a_target() -> None:
    with pytest.raises(ConfigurationError, match=r"options: target = .*: field required"):
        checked(TableSettings, {"path": "t.csv"}, where="options")


@given(
    key=st.sampled_from(list(Policy.model_fields)),
    value=st.none() | st.text() | st.floats() | st.integers() | st.lists(st.integers(), max_size=2),
)
def test_any_value_is_taken_or_refused_by_name(key: str, value: object) -> None:
    try:
        policy = checked(Policy, {key: value}, where="p.yaml")
    except ConfigurationError as error:
        assert str(error).startswith(f"p.yaml: {key} = ")
    else:
        default = getattr(Policy(), key)  # None where the place decides, as behind a server
        assert default is None or type(getattr(policy, key)) is type(default)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 3


def test_a_source_is_what_its_settings_say() -> None:
    table = RunConfig(source=TableSettings(path=Path("t.csv"), target="y"))
    again = RunConfig.model_validate(table.model_dump())
    assert isinstance(again.source, TableSettings)
    synthetic = RunConfig.model_validate(RunConfig().model_dump())
    assert isinstance(synthetic.source, SyntheticSettings)


def test_parameters_are_flat_texts_of_every_setting() -> None:
    parameters = RunConfig(rules=("x > 1 => 1",), plots=False).parameters()
    assert all(isinstance(value, str) for value in parameters.values())
    assert parameters["source.drift_strength"] == "2.2"
    assert parameters["network.hidden"] == "64"
    assert parameters["policy.rollback_f1_drop"] == "0.08"
    assert parameters["sensitive"] == ""
    assert parameters["rules"] == "['x > 1 => 1']"
    assert parameters["export_dir"] == "monitoring_export"
    groups = {"source": SyntheticSettings, "network": NetworkSettings}
    groups |= {"heal": HealSettings, "policy": Policy}
    groups |= {"labels": LabelSettings, "objective": Objective}
    expected = {f"{group}.{name}" for group, model in groups.items() for name in model.model_fields}
    expected |= {f"policy.retention.{name}" for name in Retention.model_fields}
    expected -= {"policy.retention", "policy.segments"}
    expected -= {
        f"labels.{one}" for one in ("negative_after", "horizon", "only_when", "ask")
    }  # as they were before there were any
    expected |= set(RunConfig.model_fields) - set(groups) - {"monitors", "drift_by", "segments"}
    assert set(parameters) == expected
