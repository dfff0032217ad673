"""Policies as files: which one is meant, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import Policy
from selfheal_cli.errors import PolicyError
from selfheal_cli.settings.policy_file import (
    MAX_BYTES,
    SHIPPED,
    available,
    load,
    read,
    read_thresholds,
    thresholds,
)

POLICIES = st.builds(
    Policy,
    fidi_threshold=st.floats(0, 1e6),
    fidi_window=st.integers(1, 10_000_000),
    fidi_min_batches=st.integers(1, 100),
    conflict_min=st.integers(1, 100),
    conflict_probability=st.floats(0, 1),
    rollback_f1_drop=st.floats(0, 1),
    rollback_acc_drop=st.floats(0, 1),
    health_window=st.integers(1, 100),
    health_min_heals=st.integers(1, 100),
    rollback_candidates=st.sampled_from(["run", "model"]),
)


def written(folder: Path, text: str, name: str = "p.yaml") -> Path:
    """A policy file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_values_of_a_file_stand_over_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "fidi_threshold: 0.5\nrollback_candidates: model\n")
    assert read(path) == Policy(fidi_threshold=0.5, rollback_candidates="model")


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = written(tmp_path, "fidi_treshold: 0.5\n")
    with pytest.raises(PolicyError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: unknown key 'fidi_treshold'; known: {', '.join(Policy.model_fields)}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conflict_min: many", "conflict_min = 'many': input should be a valid integer"),
        ("conflict_min: 2.5", "conflict_min = 2.5: input should be a valid integer"),
        ("conflict_min: [5]", r"conflict_min = \[5\]: input should be a valid integer"),
        ("conflict_min:", "conflict_min = None: input should be a valid integer"),
        ("fidi_threshold: high", "fidi_threshold = 'high': input should be a valid number"),
        ("fidi_threshold: 2026-01-31", "fidi_threshold = .*: input should be a valid number"),
        ("description: 3", "description = 3: input should be a valid string"),
        ("rollback_candidates: all", "rollback_candidates = 'all': input should be 'run' or 'mod"),
    ],
)
def test_a_wrong_type_names_file_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=rf"p\.yaml: {message}"):
        read(written(tmp_path, text))


@pytest.mark.parametrize("text", ["conflict_min: true", "fidi_threshold: yes"])
def test_yes_and_true_are_no_numbers(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyError, match="a number is expected, not true"):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fidi_threshold: -0.1", "fidi_threshold = -0.1: .*greater than or equal to 0"),
        ("fidi_threshold: .inf", "fidi_threshold = inf: .*finite"),
        ("fidi_threshold: .nan", "fidi_threshold = nan: .*finite"),
        ("rollback_f1_drop: -0.01", "rollback_f1_drop = -0.01: .*greater than or equal to 0"),
        ("rollback_f1_drop: 8", "rollback_f1_drop = 8: .*less than or equal to 1"),
        ("rollback_acc_drop: .nan", "rollback_acc_drop = nan"),
        ("conflict_probability: 1.5", "conflict_probability = 1.5: .*less than or equal to 1"),
        ("conflict_min: 0", "conflict_min = 0: .*greater than or equal to 1"),
        ("health_window: -5", "health_window = -5: .*greater than or equal to 1"),
    ],
)
def test_a_threshold_out_of_range_names_file_key_and_value(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(PolicyError, match=rf"p\.yaml: {message}"):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: b: c", "a:\n\t- b", "{[1]: 2}", "a: 1\n---\nb: 2", "a: !!python/name:os.system"],
)
def test_a_file_that_is_not_yaml_does_not_parse(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyError, match=r"p\.yaml: does not parse \(") as caught:
        read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_json_that_is_no_json_does_not_parse(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"p\.json: does not parse \("):
        read(written(tmp_path, "conflict_min: 3", "p.json"))


@pytest.mark.parametrize("text", ["[" * 5_000, '{"a":' * 5_000])
def test_a_file_nested_too_deep_does_not_parse(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyError, match="does not parse"):
        read(written(tmp_path, text, "p.json"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fidi_threshold: 2026-13-45", "p.yaml"),
        ("fidi_threshold: 0b_", "p.yaml"),
        ("fidi_threshold: " + "1" * 5_000, "p.yaml"),
        ('{"fidi_threshold": ' + "1" * 5_000 + "}", "p.json"),
    ],
)
def test_a_value_that_cannot_be_built_is_a_policy_error(
    tmp_path: Path, text: str, name: str
) -> None:
    with pytest.raises(PolicyError):
        read(written(tmp_path, text, name))


@pytest.mark.parametrize("text", ["", "just text", "- 1\n- 2\n", "3: 4\n", "# nothing\n"])
def test_a_file_without_keys_and_values_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PolicyError, match="expected keys with values"):
        read(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"description: caf\xe9\n")
    with pytest.raises(PolicyError, match=r"p\.yaml: cannot be read"):
        read(path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=f"larger than {MAX_BYTES} bytes"):
        read(written(tmp_path, "#" * (MAX_BYTES + 1)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.yaml: no such file"):
        load(str(tmp_path / "absent.yaml"))


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load(str(tmp_path))


def test_a_name_that_nobody_knows_lists_the_known_ones(empty_dir: Path) -> None:
    written(empty_dir, "conflict_min: 2", "registry_policies/ours.yaml")
    with pytest.raises(
        PolicyError, match="no policy 'tight'; known: default, drill, lenient, ours, strict; or"
    ):
        load("tight")


@pytest.mark.parametrize("name", ["default", "drill", "lenient", "strict"])
def test_every_shipped_policy_is_valid_and_described(empty_dir: Path, name: str) -> None:
    assert available()[name] == SHIPPED / f"{name}.yaml"
    assert load(name).description
    assert load(name) == read(SHIPPED / f"{name}.yaml")


def test_the_shipped_policies_are_these(empty_dir: Path) -> None:
    assert list(available()) == ["default", "drill", "lenient", "strict"]


def test_the_default_policy_is_the_defaults_and_the_others_are_not(empty_dir: Path) -> None:
    def values(name: str) -> dict[str, object]:
        return load(name).model_dump(exclude={"description"})

    plain = Policy().model_dump(exclude={"description"})
    assert values("default") == plain
    assert values("strict")["rollback_f1_drop"] < plain["rollback_f1_drop"]
    assert values("lenient")["rollback_f1_drop"] > plain["rollback_f1_drop"]
    assert values("drill") == plain | {"rollback_f1_drop": 0.03}


def test_a_policy_of_the_working_folder_wins_over_the_shipped_one(empty_dir: Path) -> None:
    assert load("strict").conflict_min != 77
    written(empty_dir, "conflict_min: 77\n", "registry_policies/strict.yaml")
    assert load("strict") == Policy(conflict_min=77)
    assert load("lenient") == read(SHIPPED / "lenient.yaml")


def test_a_policy_of_the_working_folder_wins_over_a_file_of_the_same_name(empty_dir: Path) -> None:
    written(empty_dir, "conflict_min: 77\n", "registry_policies/ours.yaml")
    written(empty_dir, "conflict_min: 88\n", "ours")
    assert load("ours").conflict_min == 77
    assert load("./ours").conflict_min == 88


@given(policy=POLICIES)
def test_thresholds_written_as_json_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, policy: Policy
) -> None:
    path = tmp_path_factory.getbasetemp() / "thresholds.json"
    path.write_text(json.dumps(thresholds(policy)), encoding="utf-8")
    assert read_thresholds(path, Policy()) == policy
    assert read_thresholds(path, Policy(description="mine", conflict_min=9)) == policy.model_copy(
        update={"description": "mine"}
    )


def test_thresholds_begin_with_the_article_s_keys_and_end_with_a_note() -> None:
    keys = list(thresholds(Policy()))
    assert keys[:3] == ["rollback_f1_drop", "rollback_acc_drop", "health_window"]
    assert keys[-1] == "note"
    assert set(keys) == set(Policy.model_fields) - {"description"} | {"note"}


def test_some_thresholds_stand_over_the_policy_and_leave_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, '{"note": "edited", "conflict_min": 2}', "t.json")
    policy = Policy(conflict_min=9, health_window=7)
    assert read_thresholds(path, policy) == Policy(conflict_min=2, health_window=7)


def test_an_unknown_threshold_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, '{"notes": "edited"}', "t.json")
    with pytest.raises(PolicyError, match=r"t\.json: unknown key 'notes'"):
        read_thresholds(path, Policy())
