"""What is written is what holds; what is wrong is named with file, line and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    MonitorSettings,
    NetworkSettings,
    Objective,
    Policy,
    RunConfig,
    SyntheticSettings,
    TableSettings,
)
from selfheal_cli.errors import ConfigurationError, OptionError
from selfheal_cli.settings.layers import Key, Layer, Origin, dotted, merge, single
from selfheal_cli.settings.resolve import ResolvedSettings, resolve
from selfheal_cli.settings.schema import KINDS, every_key
from selfheal_cli.settings.sources import parse_document, read_environment, read_settings

TABLE = "source:\n  kind: table\n  path: t.csv\n  target: y\n"
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
TIMED = f"{TABLE}  time: at\n"
SHARES = st.floats(0.01, 0.99)
SYNTHETIC = st.builds(
    SyntheticSettings,
    drift_strength=st.floats(-100, 100),
    positive_share=SHARES,
    fresh=st.booleans(),
    phases=st.lists(st.tuples(st.integers(1, 9), st.floats(-9, 9)), max_size=2).map(tuple),
)
TABLES = st.builds(
    TableSettings,
    path=st.just(Path("rows/t.csv")),
    target=NAMES,
    positive=st.none() | NAMES,
    drop=st.lists(NAMES, max_size=3).map(tuple),
    train_fraction=SHARES,
    unlabelled=st.booleans(),
)
CONFIGS = st.builds(
    RunConfig,
    source=SYNTHETIC | TABLES,
    network=st.builds(NetworkSettings, hidden=st.integers(1, 99)),
    heal=st.builds(HealSettings, recipe=st.just("gradient"), steps=st.integers(1, 99)),
    labels=st.builds(LabelSettings, regime=st.just("delayed"), delay=st.integers(1, 9)),
    objective=st.builds(Objective, kind=st.just("cost"), fn=SHARES, fp=SHARES),
    policy=st.builds(Policy, fidi_threshold=SHARES, four_eyes=st.booleans()),
    rules=st.just(("a > 1 => 1", "b in {'x', 'y'} => 0")),
    monitors=st.just((MonitorSettings(name="psi", on=("no", "3")), MonitorSettings(name="fidi"))),
    sensitive=st.none() | NAMES,
    seed=st.integers(0, 2**32 - 1),
    model_name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}", fullmatch=True),
    plots=st.booleans(),
)


def of_text(text: str, *above: Layer) -> ResolvedSettings:
    """Settle a file's text, with layers over it."""
    return resolve([parse_document(text, "f.yaml"), *above])


@given(config=CONFIGS)
def test_a_configuration_that_is_dumped_comes_back_equal(config: RunConfig) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True)
    settled = of_text(text)
    assert settled.config == config
    assert settled.origin(("seed",)).kind == "file"
    assert settled.origin(("policy", "cooldown")).kind == "file"


@given(value=NAMES | st.sampled_from(["yes", "no", "on", "1", "1.0", "007", "1e3", "2020-01-01"]))
def test_a_text_may_be_written_without_quotes_where_yaml_would_make_something_else_of_it(
    value: str,
) -> None:
    try:
        plain = yaml.safe_load(f"[{value}]")
    except yaml.YAMLError:
        return
    if plain == [None] or len(plain or []) != 1 or isinstance(plain[0], list | dict):
        return
    text = f"{TABLE}  positive: {value}\n"
    try:
        written = parse_document(text, "f.yaml").origins["source", "positive"].text
    except ConfigurationError:
        return  # a comma, a colon or a quote: YAML's own syntax
    if written:
        assert of_text(text).config.source.model_dump()["positive"] == written


def test_an_empty_file_is_the_article_s_run() -> None:
    settled = of_text("")
    assert settled.config == RunConfig(
        network=NetworkSettings(shadow="plain"),
        rules=("V14 < -1.5 => 1",),
        policy=Policy(description="The article's thresholds."),
    )
    assert settled.origin(("seed",)).kind == "default"
    assert settled.origin(("policy", "cooldown")).name.endswith("default.yaml")


def test_defaults_hang_on_the_source() -> None:
    config = of_text(TABLE).config
    assert (config.heal.recipe, config.network.shadow) == ("ensemble", "frozen")
    assert (config.model_name, config.rules) == ("t", ())
    source = of_text(f"{TABLE}labels: delayed:3\n").config.source
    assert isinstance(source, TableSettings)
    assert source.unlabelled
    timed = of_text(f"{TABLE}  time: at\n  label_time: known\n").config
    assert timed.labels.regime == "timed"


def said(key: str, value: object) -> Layer:
    """What an option says, for a key with a point."""
    return single(tuple(key.split(".")), value, Origin("option", f"--{key}"))


def test_an_option_of_labels_stands_over_what_the_file_says_of_them() -> None:
    grown = of_text(f"{TABLE}  time: at\nlabels:\n  negative_after: 60d\n").config
    assert (str(grown.labels), grown.labels.horizon) == ("timed, negative after 60d", 100)
    assert grown.source.model_dump()["unlabelled"] is True
    timed = (said("source.time", "at"), said("source.label_time", "known"))
    config = of_text(f"{TABLE}labels: full\n", *timed).config
    assert (config.labels.regime, config.source.model_dump()["label_time"]) == ("timed", "known")
    late = f"{TABLE}  time: at\n  label_time: known\nlabels: timed\n"
    config = of_text(late, said("labels", "delayed:3")).config
    assert (str(config.labels), config.source.model_dump()["label_time"]) == ("delayed:3", None)


def test_two_ways_for_labels_to_come_in_one_place_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"f.yaml:6: labels.regime: .* leave one of them"):
        of_text(f"{TABLE}  label_time: a\nlabels: full\n")


def test_short_forms_are_the_keys_that_they_stand_for() -> None:
    short = "labels: delayed:5\nobjective: cost:5000,15\npolicy: strict\nmonitors: [psi:on=a+b]\n"
    long = (
        "labels: {regime: delayed, delay: 5}\nobjective: {kind: cost, fn: 5000, fp: 15}\n"
        "policy: {base: strict}\nmonitors:\n- name: psi\n  on: [a, b]\n"
    )
    assert of_text(short).config == of_text(long).config


def test_a_policy_is_the_named_one_with_thresholds_over_it(tmp_path: Path) -> None:
    over = tmp_path / "threshold_config.json"
    over.write_text('{"rollback_f1_drop": 0.5, "note": "x"}')
    text = f"policy:\n  base: strict\n  thresholds: {over}\n  retention: {{keep_last: 7}}\n"
    settled = of_text(text)
    policy = settled.config.policy
    assert (policy.rollback_f1_drop, policy.retention.keep_last) == (0.5, 7)
    assert policy.retention.keep_best == 1
    assert settled.origin(("policy", "rollback_f1_drop")).name == str(over)
    assert settled.origin(("policy", "retention", "keep_last")).line == 4
    assert settled.origin(("policy", "cooldown")).name.endswith("strict.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_szie: 5", "f.yaml:1: batch_szie: unknown key; did you mean 'batch_size'?; known: "),
        ("heal:\n  windw: 5", "f.yaml:2: heal.windw: unknown key; did you mean 'window'?; known: "),
        (f"{TABLE}  tarjet: y", "f.yaml:5: source.tarjet: unknown key; did you mean 'target'?"),
        ("source: {kind: tabel}", "f.yaml:1: source.kind = 'tabel': unknown kind; did you mean"),
        ("source: {kind: pushed}", "f.yaml:1: source.kind = 'pushed': unknown kind"),
        ("source: {kind: table, path: a}", "f.yaml:1: key 'source.target' is missing; a source"),
        ("source:\n  target: y", "f.yaml:1: key 'source.kind' is missing; known: synthetic, table"),
        ("source: t.csv", "f.yaml:1: source = 't.csv': expected keys with values"),
        ("seed: many", "f.yaml:1: seed = 'many': input should be a valid integer"),
        ("\n\nseed: -1", "f.yaml:3: seed = '-1': input should be greater than or equal to 0"),
        ("heal: 3", "f.yaml:1: heal = '3': expected keys with values; known: recipe, mode"),
        ("rules: a > 1 => 1", "f.yaml:1: rules = 'a > 1 => 1': expected a list, such as [a, b]"),
        ("rules:\n- a >< 1 => 1", "f.yaml:2: rules[0], position 4: expected "),
        (
            "heal: {recipe: magic}",
            "f.yaml:1: heal.recipe = 'magic': unknown recipe 'magic'; built in",
        ),
        ("sensitive: [a]", "f.yaml:1: sensitive = \"['a']\": expected text"),
        ("labels: late", "f.yaml:1: labels 'late': full, delayed:K or none is allowed"),
        ("labels: {delay: -1}", "f.yaml:1: labels.delay = '-1': input should be greater than"),
        ("objective: f2", "f.yaml:1: objective 'f2': 'accuracy', 'f1' or 'cost:FN,FP'"),
        (
            "monitors: [x]",
            "f.yaml:1: monitors 'x': name = 'x': unknown monitor 'x'; ",
        ),
        ("monitors:\n- name: psi\n  thresold: 1", "f.yaml:3: monitors[0].thresold: unknown key"),
        ("monitors: [psi, psi]", "f.yaml:1: monitors = "),
        ("policy: strikt", "f.yaml:1: policy: no policy 'strikt'; known: default, "),
        ("policy: {cooldwn: 1}", "f.yaml:1: policy.cooldwn: unknown key; did you mean 'cooldown'?"),
        ("policy: {four_eyes: 7}", "f.yaml:1: policy.four_eyes = '7': input should be a valid"),
        ("policy: {cooldown: yes}", "f.yaml:1: policy.cooldown = 'yes': a number is expected"),
        ("rules_file: no.yaml", "f.yaml:1: rules_file: no.yaml: no such file"),
        ("labels: timed", "f.yaml:1: labels.regime: 'timed' needs source.label_time"),
        (
            f"{TABLE}labels:\n  negative_after: 60d\n",
            "f.yaml:6: labels.negative_after: it needs the column with the rows' times: source",
        ),
        (
            "labels:\n  negative_after: 60d\n",
            "f.yaml:2: labels.negative_after: it is for a table that",
        ),
        (
            f"{TABLE}  time: at\nlabels:\n  regime: none\n  negative_after: 60d\n",
            "f.yaml:7: labels.regime: labels none and negative_after exclude each other",
        ),
        (
            f"{TABLE}  time: at\nlabels:\n  negative_after: soon\n",
            "f.yaml:7: labels.negative_after = 'soon': a time such as 60d, 12h or 30min",
        ),
        (f"{TABLE}heal: {{steps: 3}}", "f.yaml:5: heal.steps: it is for --recipe article or "),
        (f"{TABLE}  label_time: a", "f.yaml:5: source.label_time = 'a': it needs time"),
        ("seed: x\nbatches: y\nplots: z", "f.yaml:1: seed = 'x': input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_key_and_what_is_allowed(
    text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        of_text(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_the_first_complaint_says_how_many_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"f.yaml:2: seed = .*\(and 2 more\)$"):
        of_text("plots: yes\nseed: x\nbatches: y\nheal: {ridge: z}")


def test_no_password_is_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        of_text("seed: postgresql://ann:s3cret@db/x")
    assert "s3cret" not in str(caught.value)
    assert "postgresql://ann:***@db/x" in str(caught.value)


# --- layers above the file


def option(key: Key, value: Any, name: str) -> Layer:
    """As the command line gives it."""
    return single(key, value, Origin("option", name))


def test_data_of_another_kind_replaces_the_file_s_source() -> None:
    data = merge([
        option(("source", "kind"), "table", "DATA"), option(("source", "path"), "d.csv", "DATA"),
        option(("source", "target"), "z", "--target"),
    ])  # fmt: skip
    config = of_text("source: {kind: synthetic, drift_strength: 1.0}\nseed: 5", data).config
    bare = TableSettings(path=Path("d.csv"), target="z", drop_identifiers=True)
    assert config.source == bare
    assert config.seed == 5
    config = of_text(f"{TABLE}  drop: [a]", data).config
    assert config.source == TableSettings(path=Path("d.csv"), target="z", drop=("a",))


def test_an_option_that_does_not_fit_the_file_says_which_line_is_in_the_way() -> None:
    drift = option(("source", "drift_strength"), 1.0, "--drift-strength")
    with pytest.raises(OptionError, match=r"not for a DATA file \(f.yaml:2 says"):
        of_text(TABLE, drift)
    steps = option(("heal", "steps"), 3, "--heal-steps")
    with pytest.raises(OptionError, match="--heal-steps: it is for --recipe article"):
        of_text(TABLE, steps)
    anchored = option(("heal", "recipe"), "anchored", "--recipe")  # stands over the file's steps
    assert of_text("heal: {steps: 3}", anchored).config.heal.recipe == "anchored"


def test_paths_in_a_file_are_relative_to_it_and_others_to_the_working_folder() -> None:
    text = f"{TABLE}export_dir: out\n"
    config = resolve([parse_document(text, "deep/er/f.yaml")]).config
    assert config.source == TableSettings(path=Path("deep/er/t.csv"), target="y")
    assert config.export_dir == Path("deep/er/out")
    path = option(("source", "path"), Path("here.csv"), "DATA")
    config = resolve([parse_document(text, "deep/f.yaml"), path]).config
    assert config.source == TableSettings(path=Path("here.csv"), target="y")
    absolute = TABLE.replace("t.csv", "/data/t.csv")
    config = resolve([parse_document(absolute, "deep/f.yaml")]).config
    assert config.source == TableSettings(path=Path("/data/t.csv"), target="y")
    assert config.export_dir == Path("monitoring_export")


@pytest.mark.parametrize(
    ("name", "value", "key", "found"),
    [
        ("SELFHEAL_HEAL__WINDOW", "7", ("heal", "window"), 7),
        ("SELFHEAL_POLICY__RETENTION__KEEP_BEST", "3", ("policy", "retention", "keep_best"), 3),
        ("SELFHEAL_NETWORK__HIDDEN", "8", ("network", "hidden"), 8),
        ("SELFHEAL_PLOTS", "no", ("plots",), False),
        ("SELFHEAL_MONITORS", "[psi, fidi]", ("monitors",), [{"name": "psi"}, {"name": "fidi"}]),
        ("SELFHEAL_SOURCE__POSITIVE", "a: b: c", ("source", "positive"), "a: b: c"),
    ],
)
def test_a_variable_names_any_key_of_the_file(name: str, value: str, key: Key, found: Any) -> None:
    layer = read_environment({name: value, "HOME": "/", "SELFHEAL_ACTOR": "x"})
    assert layer.get(*map(str, key)) == found
    assert str(layer.origin(key)) == name


# a value for each key that takes no number from 1, as it would stand in a file
VALUES = {
    "sensitive": "auto", "rules": "[a > 1 => 1]", "monitors": "[psi]", "labels.regime": "delayed",
    "objective.kind": "cost", "heal.recipe": "gradient", "heal.mode": "async",
    "heal.assume": "inputs-shifted", "heal.held_out": "0.5", "heal.better_by": "paired",
    "network.shadow": "plain", "network.validation": "0.1",
    "policy.base": "strict", "policy.stale_rules": "keep", "policy.rollback_candidates": "model",
    "policy.description": "words", "policy.four_eyes": "true", "policy.thresholds": "over.json",
    "model": "models:/x/1", "model_name": "m", "experiment": "e", "export_dir": "out",
    "plots": "false", "rules_file": "rules.yaml", "tracking_uri": "sqlite:///other.db",
    "batch_size": "7", "heal.pre_heal": "figures", "drift_by": "monitors",
    "policy.brake_level": "0.1", "labels.only_when": "decision = 0",
    "policy.mode": "shadow", "policy.when_worse": "pause", "policy.brake_to": "best",
    "policy.cooldown_until": "drift", "heal.verdict": "change",
    "policy.label_rate_of": "recent-or-training",
    "policy.segments.false_discovery_rate": "0.1", "policy.segments.level": "0.9",
    "segments.by": "country", "heal.engine": "ray",
    "segments.window": "100", "heal.filter_steps": "9",
    "policy.canary_share": "0.1", "policy.canary_by": "id", "policy.canary_level": "0.9",
}  # fmt: skip


@pytest.mark.parametrize("key", [dotted(key) for key in every_key() if key[0] != "source"])
def test_every_key_of_the_file_is_an_option_and_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text("- {name: one, rule: V14 < -1 => 1}\n")
    Path("over.json").write_text("{}")
    value, name = VALUES.get(key, "1"), "SELFHEAL_" + key.replace(".", "__").upper()
    by_option, by_variable = read_settings([f"{key}={value}"]), read_environment({name: value})
    assert by_option.values == by_variable.values
    at = tuple(key.split("."))
    assert (by_option.origin(at).kind, str(by_option.origin(at))) == ("option", f"--set {key}")
    assert (by_variable.origin(at).kind, str(by_variable.origin(at))) == ("env", name)
    needed = f"heal: {{recipe: gradient}}\n{TIMED if key == 'labels.negative_after' else ''}"
    settled = resolve([parse_document(needed, "f.yaml"), by_variable, by_option])
    assert settled.given.get(*at) == by_option.get(*at)


def test_a_slip_in_a_variable_is_an_error_and_a_cluster_s_own_are_left_alone() -> None:
    with pytest.raises(OptionError, match="SELFHEAL_BATCH_SZIE: no such variable; did you mean"):
        read_environment({"SELFHEAL_BATCH_SZIE": "3"})
    with pytest.raises(OptionError, match="did you mean SELFHEAL_HEAL__WINDOW"):
        read_environment({"SELFHEAL_HEAL_WINDOW": "3"})
    cluster = {"SELFHEAL_PORT": "tcp://1", "SELFHEAL_SERVICE_HOST": "1", "SELFHEAL_X__Y": "2"}
    assert read_environment(cluster).values == {}
    with pytest.raises(ConfigurationError, match=r"^SELFHEAL_HEAL__WINDW \(heal.windw\): unknown"):
        resolve([read_environment({"SELFHEAL_HEAL__WINDW": "3"})])


def test_the_text_of_a_variable_is_kept_where_text_is_wanted() -> None:
    positive = read_environment({"SELFHEAL_SOURCE__POSITIVE": "yes"})
    source = of_text(TABLE, positive).config.source
    assert isinstance(source, TableSettings)
    assert source.positive == "yes"


def test_every_setting_of_a_run_can_be_said_in_a_file() -> None:
    from selfheal_cli.settings.resolve import WHERE
    from selfheal_cli.settings.schema import RunFile

    assert set(RunConfig.model_fields) <= set(RunFile.model_fields)
    kinds = {"synthetic", "table", "folder", "ndjson", "sql", "stdin", "kafka", "own"}
    assert set(KINDS) == kinds == set(WHERE)


def test_own_data_has_monitors_unless_it_says_so_and_the_articles_stream_has_none() -> None:
    own = of_text(TABLE).config
    assert [one.key for one in own.monitors] == [
        "two-sample", "prediction-rate", "missing", "category", "page-hinkley:errors",
    ]  # fmt: skip
    assert own.drift_by == "monitors"
    assert {one.triggers for one in own.monitors} == {"nothing"}
    without_labels = of_text(f"{TABLE}labels: none\n").config
    assert [one.name for one in without_labels.monitors][-1] == "category"
    assert of_text(f"{TABLE}monitors: []\n").config.monitors == ()
    article = of_text("seed: 1").config
    assert (article.monitors, article.drift_by) == ((), "sensitive")
