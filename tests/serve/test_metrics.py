"""What Prometheus gets: counts by version that stay few, and the healer's words as they stand."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from selfheal_cli.serve.http.metrics import LastVersions, ServerMetrics, Summed
from selfheal_cli.serve.operator.status import HEALER, Judged, ModelStatus, look
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import PATIENCE
from tests.serve.operating import FACTS, WORSE, channel_with, operator_app, serving

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(url: str, token: str = "") -> Samples:
    answer = requests.get(
        f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def at(samples: Samples, name: str, **labels: str) -> float:
    return samples[(f"selfheal_{name}", tuple(sorted(labels.items())))]


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    new_board = channel_with(tmp_path, WORSE)
    yield new_board
    new_board.close()


def test_what_the_healer_says_is_there_when_prometheus_asks(channel: ControlChannel) -> None:
    with serving(operator_app(channel)) as url:
        samples = scraped(url)
        channel.set_status(
            HEALER, WORSE.model_copy(update={"batch": 213, "state": "HEALING"}).as_status()
        )
        later = scraped(url)
    assert at(samples, "healer_up") == 1
    assert 0 <= at(samples, "healer_word_age_seconds") < 15
    assert at(samples, "drift_z", feature="V14") == 2.31
    assert at(samples, "drift_threshold", feature="V14") == 1.0
    assert at(samples, "drifting", feature="V14") == 1
    assert at(samples, "monitor_reading", monitor="psi") == 0.31
    assert at(samples, "conflicts") == 418
    assert at(samples, "heals_total", outcome="rejected") == 2
    assert at(samples, "heals_total", outcome="coalesced") == 0
    assert at(samples, "rollbacks_total") == 1
    assert at(samples, "waiting_rows") == 37
    assert at(samples, "pending_writes") == 1
    assert at(samples, "recorder_queue_rows") == 2
    assert at(samples, "f1", who="shadow") == 0.517
    assert at(samples, "judged_rows", who="live") == 18_040
    assert at(samples, "lift", figure="f1") == pytest.approx(-0.115)
    assert at(samples, "lift_high", figure="f1") == -0.08
    assert at(samples, "champion_version") == 12
    assert at(samples, "champion_foreign") == 0
    assert at(samples, "served_version") == 12
    assert at(samples, "server_info", model="fraud") == 1
    assert at(samples, "state", state="ROLLED_BACK") == 1
    assert sum(value for (name, _), value in samples.items() if name == "selfheal_state") == 1
    assert (at(samples, "batches_total"), at(later, "batches_total")) == (212, 213)
    assert at(later, "state", state="HEALING") == 1
    assert at(later, "state", state="ROLLED_BACK") == 0


def test_a_healer_that_never_spoke_is_down_and_nothing_is_made_up(tmp_path: Path) -> None:
    with serving(operator_app(channel_with(tmp_path, None))) as url:
        samples = scraped(url)
    names = {name for name, _ in samples}
    assert at(samples, "healer_up") == 0
    unknown = {"healer_word_age_seconds", "last_label_age_seconds", "f1", "lift", "drift_z",
               "lift_high", "champion_version", "champion_foreign", "judged_rows"}  # fmt: skip
    assert not {f"selfheal_{name}" for name in unknown} & names


def test_ages_are_of_the_moment_of_looking(channel: ControlChannel) -> None:
    _, said = channel.status(HEALER)
    seen = look(channel, lambda: FACTS, clock=lambda: said + 100)
    assert seen.age == 100
    assert not seen.healer_up
    assert (
        look(channel, lambda: FACTS, clock=lambda: said - 5).age == 0
    )  # a clock that was set back
    standing = ModelStatus(labels_at="2026-01-01T00:00:10+00:00")
    channel.set_status(HEALER, standing.as_status())
    assert look(channel, lambda: FACTS, clock=lambda: 1_767_225_640.0).label_age == 30


def test_a_file_that_cannot_be_read_takes_only_its_own_figures_away(
    channel: ControlChannel,
) -> None:
    with sqlite3.connect(channel._file.path) as database:
        database.execute("DROP TABLE told")
    database.close()
    with serving(operator_app(channel)) as url:
        samples = scraped(url)
        status = requests.get(f"{url}/status", timeout=PATIENCE)
    assert at(samples, "board_up") == 0
    assert ("selfheal_rows_unrecorded_total", ()) in samples
    assert not any(name == "selfheal_healer_up" for name, _ in samples)
    assert status.status_code == 503
    assert "cannot be used" in status.json()["message"]


def test_figures_are_for_who_has_a_token_where_one_is_asked_for(channel: ControlChannel) -> None:
    app = operator_app(channel, Tokens.of(scoring="s3cret", operating="0perate"))
    with serving(app) as url:
        assert requests.get(f"{url}/metrics", timeout=PATIENCE).status_code == 401
        wrong = requests.get(
            f"{url}/metrics", headers={"Authorization": "Bearer s3cre\u00e9"}, timeout=PATIENCE
        )
        assert wrong.status_code == 401
        assert "www-authenticate" in wrong.headers
        assert at(scraped(url, "s3cret"), "healer_up") == 1
        assert at(scraped(url, "0perate"), "healer_up") == 1


def test_counts_of_old_versions_stay_in_the_sums_and_their_series_go() -> None:
    meters = ServerMetrics()
    for version in range(1, 301):
        meters.requests.labels("/invocations", "200", str(version)).inc(2)
        meters.rows.labels(str(version)).inc(10)
        meters.seconds.labels("/invocations", str(version)).observe(0.004)
        if version % 7 == 0:
            list(meters.registry.collect())
    families = {family.name: family.samples for family in meters.registry.collect()}
    versions = {sample.labels["version"] for sample in families["selfheal_requests"]}
    assert versions == {"296", "297", "298", "299", "300"}
    assert [s.value for s in families["selfheal_all_requests"]] == [600]
    assert [s.value for s in families["selfheal_all_rows"]] == [3000]
    buckets = {s.labels.get("le"): s.value for s in families["selfheal_all_request_seconds"]}
    assert buckets["0.003"] == 0
    assert buckets["0.005"] == buckets["+Inf"] == 300
    assert {s.name.rpartition("_")[2] for s in families["selfheal_all_request_seconds"]} == {
        "bucket", "count", "sum",
    }  # fmt: skip


def test_a_version_that_serves_again_is_among_the_last() -> None:
    counter = Counter("n", "n", ["version"], registry=None)
    last = LastVersions([Summed(counter, ("version",), "all_n", "n")], kept=2)
    for version in ("1", "2", "", "3", "4"):
        counter.labels(version).inc()
        list(last.collect())
    counter.labels("1").inc()
    by_version, total = last.collect()
    assert {s.labels["version"] for s in by_version.samples} == {"", "1", "4"}
    assert [s.value for s in total.samples] == [6]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5), st.booleans()), max_size=60))
def test_the_sum_is_what_was_counted_whatever_served_when(
    counts: list[tuple[int, int, bool]],
) -> None:
    counter = Counter("n", "n", ["version"], registry=None)
    last = LastVersions([Summed(counter, ("version",), "all_n", "n")], kept=3)
    for version, count, looked in counts:
        counter.labels(str(version)).inc(count)
        if looked:
            by_version, _ = last.collect()
            assert len(by_version.samples) <= 3
    _, total = last.collect()
    assert math.fsum(s.value for s in total.samples) == sum(count for _, count, _ in counts)


def test_live_without_shadow_gives_no_lift(tmp_path: Path) -> None:
    standing = ModelStatus(live=Judged(rows=5, figures={"f1": 0.5}))
    with serving(operator_app(channel_with(tmp_path, standing))) as url:
        samples = scraped(url)
    assert at(samples, "f1", who="live") == 0.5
    assert not any(name == "selfheal_lift" for name, _ in samples)
