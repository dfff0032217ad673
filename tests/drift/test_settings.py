"""Monitors as people ask for them."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import MonitorSettings, RunConfig
from selfheal_cli.drift.kinds import KINDS, limits_of, parse_monitor, targets_of
from selfheal_cli.errors import ConfigurationError

NAMES = st.text("abcXYZ_019 .", min_size=1, max_size=6).filter(lambda name: name.strip() == name)
SETTINGS = st.builds(
    MonitorSettings,
    name=st.sampled_from(sorted(KINDS)),
    on=st.lists(NAMES, max_size=3, unique=True).map(tuple),
    threshold=st.none() | st.floats(1.0, 9.0),
    warning=st.none() | st.floats(0.1, 1.0),
    alpha=st.floats(1e-9, 0.5),
    window=st.integers(1, 100),
    triggers=st.sampled_from(["nothing", "diagnosis", "heal"]),
    weights=st.sampled_from(["gradient", "equal"]),
)


@given(SETTINGS)
def test_what_is_written_is_read_back(settings: MonitorSettings) -> None:
    assert parse_monitor(str(settings)) == settings


@given(SETTINGS)
def test_a_warning_never_comes_after_the_alarm(settings: MonitorSettings) -> None:
    limits = limits_of(settings)
    assert 0 < limits.warning <= limits.threshold


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psy", "unknown monitor 'psy'; did you mean 'psi'?; built in: fidi, adwin"),
        ("psi:threshold", "'threshold' is not KEY=VALUE"),
        ("psi:on=", "'on=' is not KEY=VALUE"),
        ("psi:threshold=0", "threshold = '0': input should be greater than 0"),
        ("psi:threshold=1,threshold=2", "'threshold' is given twice"),
        ("psi:name=fidi", "'name' is given twice"),
        ("psi:treshold=1", "unknown key 'treshold'; known: name, on, threshold"),
        ("psi:warning=3,threshold=1", "warning 3 is above threshold 1"),
        ("psi:triggers=rollback", "triggers = 'rollback': input should be 'nothing'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_monitor(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psi:on=V13", "'V13' is not among what it looks at; did you mean 'V14'?; allowed: all"),
        ("psi:on=errors", "'errors' is not among"),
        ("category:on=V14", "allowed: all, kind"),
        ("conflicts:on=V14", "leave 'on' out"),
    ],
)
def test_what_it_cannot_look_at_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        targets_of(parse_monitor(text), ["V14", "V9"], ["kind"])
    assert said in str(raised.value)


def test_no_text_feature_is_nothing_to_look_at() -> None:
    with pytest.raises(ConfigurationError, match="looks at text features; there are none"):
        targets_of(parse_monitor("category:on=all"), ["V14"], [])
    assert targets_of(parse_monitor("category"), ["V14"], []) == ()


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("fidi", ("V14", "V9")),
        ("psi", ("V14", "V9", "kind")),
        ("kswin", ("scores",)),
        ("adwin:on=errors", ("errors",)),
        ("adwin:on=V9+scores", ("V9", "scores")),
        ("prediction-rate", ()),
    ],
)
def test_what_it_looks_at(text: str, targets: tuple[str, ...]) -> None:
    assert targets_of(parse_monitor(text), ["V14", "V9"], ["kind"]) == targets


def test_without_river_its_monitors_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "river":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install 'selfheal-cli\[monitors\]'"):
        targets_of(parse_monitor("adwin"), ["V14"], [])
    assert targets_of(parse_monitor("psi"), ["V14"], []) == ("V14",)


def test_two_of_a_kind_need_features_of_their_own() -> None:
    both = parse_monitor("psi:on=V14"), parse_monitor("psi:on=V9")
    assert [one.key for one in RunConfig(monitors=both).monitors] == ["psi:V14", "psi:V9"]
    with pytest.raises(ValueError, match="'psi' is there twice"):
        RunConfig(monitors=(parse_monitor("psi"), parse_monitor("psi:threshold=0.4")))


def test_without_monitors_a_configuration_is_written_as_it_always_was() -> None:
    assert "monitors" not in RunConfig().model_dump(mode="json")
    assert "monitors" not in RunConfig().parameters()


def test_with_monitors_they_are_written_and_read_back() -> None:
    config = RunConfig(monitors=(parse_monitor("psi:threshold=0.3"), parse_monitor("fidi")))
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert config.parameters()["monitors"] == "psi:threshold=0.3; fidi"
