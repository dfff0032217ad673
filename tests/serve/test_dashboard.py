"""The dashboard and the alert rules in deploy/ ask for what the server really gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from selfheal_cli.serve.notify.metrics import NoticeMetrics
from selfheal_cli.serve.notify.store import PATIENCE, NoticeStore
from selfheal_cli.serve.operator.status import HEALER
from tests.serve.conftest import serving
from tests.serve.operating import WORSE

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "alert-rules.yml").read_text())["groups"][0]["rules"]
BOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
SELECTOR = re.compile(r"\b(up|selfheal_\w+)(?:\{([^}]*)\})?(\[)?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
PROMETHEUS = {"job", "instance"}  # labels that it adds itself
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: it is optional")


@dataclass
class Given:
    """A metric as it is scraped: its type, and the values of its labels."""

    type: str
    labels: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def given(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Given]]:
    """What a server gives that has scored, refused, taken labels, and has a healer's word."""
    with serving(short_run, tmp_path_factory.mktemp("figures")) as server:
        scored = server.post("/invocations", json={"dataframe_split": server.rows()})
        assert scored.status_code == 200
        assert server.post("/invocations", json={}).status_code == 400
        label = {
            "request_id": scored.headers["x-request-id"],
            "label": server.front.scorer.served.labels[1],
        }
        assert server.post("/feedback", json={"labels": [label]}).status_code == 200
        server.front.channel.set_status(HEALER, WORSE.as_status())
        text = server.get("/metrics").text
    by_name: dict[str, Given] = {"up": Given("gauge")}
    families = (*text_string_to_metric_families(text), *told_of_notices(tmp_path_factory))
    for family in families:
        for sample in family.samples:
            one = by_name.setdefault(sample.name, Given(family.type))
            for name, value in sample.labels.items():
                one.labels.setdefault(name, set()).add(value)
    yield by_name


def told_of_notices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metric]:
    """What a server with a webhook gives beside, that answered nothing for three days."""
    days = iter((0.0, PATIENCE, PATIENCE))
    store = NoticeStore("fraud", tmp_path_factory.mktemp("notices"), clock=lambda: next(days))
    store.failed("ops", 1, "answered 500")
    assert store.failed("ops", 1, "answered 500")
    yield from NoticeMetrics(store).collect()
    store.close()


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where it stands, the expression, and what is said of its result."""
    for rule in RULES:
        yield rule["alert"], rule["expr"], ""
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for one in BOARD["annotations"]["list"]:
        yield one["name"], one["expr"], ""


ALL = list(expressions())


@pytest.mark.parametrize(("where", "expr", "legend"), ALL, ids=[f"{w}-{i}" for i, (w, *_) in
                                                               enumerate(ALL)])  # fmt: skip
def test_every_expression_asks_for_metrics_labels_and_values_that_there_are(
    given: dict[str, Given], where: str, expr: str, legend: str
) -> None:
    asked = SELECTOR.findall(re.sub(r"\(rate", "( rate", expr))
    assert asked, "no metric"
    labels = set(PROMETHEUS)
    for name, matchers, spread in asked:
        assert name in given, f"{where}: the server gives no {name}"
        metric = given[name]
        labels |= set(metric.labels)
        counted = name.endswith(("_total", "_bucket", "_count", "_sum"))
        assert counted == (metric.type in ("counter", "histogram")), name
        if spread:
            assert counted, f"{where}: rate of {name}, which is a {metric.type}"
        for label, operator, value in MATCHER.findall(matchers):
            assert label in {*metric.labels, *PROMETHEUS}, f"{where}: {name} has no {label}"
            if operator == "=" and label not in PROMETHEUS:
                assert value in metric.labels[label], f"{where}: {label} is never {value!r}"
    for group in GROUPING.findall(expr):
        assert {one.strip() for one in group.split(",")} <= labels, f"{where}: by ({group})"
    assert set(re.findall(r"{{(\w+)}}", legend)) <= labels


def test_every_alert_says_what_to_do(given: dict[str, Given]) -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        told = rule["annotations"]
        assert len(told["runbook"]) > 80, rule["alert"]
        kept = {one.strip() for by in GROUPING.findall(rule["expr"]) for one in by.split(",")}
        assert set(re.findall(r"\$labels\.(\w+)", told["summary"])) <= PROMETHEUS | kept
        for name in re.findall(r"selfheal_\w+", told["runbook"]):
            assert name in given, f"{rule['alert']}: the server gives no {name}"
    wanted = {"HealerDown", "DriftWithoutHeals", "LabelsMissing", "RegistryAway", "LiftNegative",
              "RowsUnrecorded", "Slow"}  # fmt: skip
    assert {f"Selfheal{name}" for name in wanted} <= {rule["alert"] for rule in RULES}


def test_the_document_names_metrics_that_there_are(given: dict[str, Given], tmp_path: Path) -> None:
    (of_targets,) = NoticeMetrics(NoticeStore("fraud", tmp_path)).collect()
    named = set(re.findall(r"selfheal_\w+", (DEPLOY.parent / "docs" / "operating.md").read_text()))
    assert len(named) > 30
    assert named <= {*given, of_targets.name}


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def run(*arguments: str | Path) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    run("check", "rules", DEPLOY / "alert-rules.yml")
    rules = [
        {"record": f"one:{number}", "expr": expr.replace("$__rate_interval", "5m")
         .replace("$__interval", "1m")}
        for number, (_, expr, _) in enumerate(ALL)
    ]  # fmt: skip
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    run("check", "rules", path)


AT = 'instance="a:5001", job="selfheal"'
STORIES: list[tuple[str, dict[str, str], str]] = [
    ("SelfhealServerDown", {"up": "0x120"}, "5m"),
    ("SelfhealHealerDown", {"selfheal_healer_up": "0x120"}, "5m"),
    ("SelfhealDriftWithoutHeals",
     {'selfheal_drifting{feature="V14"}': "1x200",
      'selfheal_heals_total{outcome="healed"}': "3x200"}, "2h"),
    ("SelfhealLabelsMissing", {"selfheal_last_label_age_seconds": "90000+60x60"}, "30m"),
    ("SelfhealLabelsMissing", {'selfheal_healer_labels_total{outcome="joined"}': "0x60",
                               "selfheal_rows_seen_total": "20000x60"}, "30m"),
    ("SelfhealRegistryAway", {"selfheal_registry_away": "1x60"}, "30m"),
    ("SelfhealLiftNegative",
     {'selfheal_lift{figure="f1"}': "-0.1x60",
      'selfheal_lift_high{figure="f1"}': "-0.04x60"}, "30m"),
    ("SelfhealRowsUnrecorded", {"selfheal_rows_unrecorded_total": "0+5x60"}, "30m"),
    ("SelfhealSlow",
     {'selfheal_all_request_seconds_bucket{route="/invocations",le="0.1"}': "0+1x60",
      'selfheal_all_request_seconds_bucket{route="/invocations",le="0.5"}': "0+60x60",
      'selfheal_all_request_seconds_bucket{route="/invocations",le="+Inf"}': "0+60x60"}, "30m"),
    ("", {'selfheal_drifting{feature="V14"}': "1x200",
          'selfheal_heals_total{outcome="healed"}': "0+1x200", "up": "1x200",
          'selfheal_lift{figure="f1"}': "-0.1x200",
          'selfheal_lift_high{figure="f1"}': "0.02x200",
          "selfheal_last_label_age_seconds": "30x200", "selfheal_healer_up": "1x200",
          "selfheal_registry_away": "0x200", "selfheal_rows_unrecorded_total": "7x200"}, "2h"),
]  # fmt: skip


@needs_promtool
def test_an_alert_fires_when_its_story_happens_and_none_when_all_is_well(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "alert-rules.yml", tmp_path)
    tests: list[dict[str, Any]] = []
    for alert, series, moment in STORIES:
        rows = [
            {"series": _labelled(name), "values": f"{values}"} for name, values in series.items()
        ]
        names = [alert] if alert else [rule["alert"] for rule in RULES]
        firing = [
            {"eval_time": moment, "alertname": name, **({} if alert else {"exp_alerts": []})}
            for name in names
        ]
        tests.append({"interval": "1m", "input_series": rows, "alert_rule_test": firing})
    quiet = {"rule_files": ["alert-rules.yml"], "tests": tests[-1:]}
    path = tmp_path / "quiet.yml"
    path.write_text(yaml.safe_dump(quiet))
    run("test", "rules", path)
    for number, test in enumerate(tests[:-1]):
        path = tmp_path / f"{number}.yml"
        path.write_text(yaml.safe_dump({"rule_files": ["alert-rules.yml"], "tests": [test]}))
        done = subprocess.run([str(PROMTOOL), "test", "rules", str(path)], capture_output=True,
                              text=True, check=False)  # fmt: skip
        # none was expected, so that the answer names what fires
        name = test["alert_rule_test"][0]["alertname"]
        assert f'alertname="{name}"' in done.stdout + done.stderr, (name, done.stdout, done.stderr)


def _labelled(name: str) -> str:
    metric, brace, rest = name.partition("{")
    return f"{metric}{{{AT}, {rest}" if brace else f"{metric}{{{AT}}}"
