"""Topics on librdkafka's mock cluster: order, offsets, labels, what is gone, what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config_sources import KafkaSettings
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.sources import kafka
from selfheal_cli.sources.feed import Past
from selfheal_cli.sources.kafka import KafkaFeed, read_properties
from selfheal_cli.sources.ndjson import NdjsonTable
from selfheal_cli.sources.stream import UnboundedSource
from tests.conftest import PATIENCE, until
from tests.sources.kinds import plain, records
from tests.sources.test_table import same


@dataclass
class Cluster:
    """A cluster of one broker, and a producer for it."""

    producer: Any
    address: str

    def send(self, topic: str, rows: list[Any], partition: int = 0) -> None:
        for row in rows:
            text = row if isinstance(row, str | bytes) else json.dumps(row)
            self.producer.produce(topic, text, partition=partition)
        assert self.producer.flush(PATIENCE) == 0

    def settings(self, topic: str, **values: Any) -> KafkaSettings:
        fixed = {"bootstrap": self.address, "topic": topic, "target": "y", "train_rows": 30}
        return KafkaSettings.model_validate(fixed | values)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = producer.list_topics(timeout=PATIENCE).brokers.values()
    yield Cluster(producer, f"{broker.host}:{broker.port}")
    producer.flush(PATIENCE)


def rows_of(first: int, count: int) -> list[dict[str, Any]]:
    return records(plain(first + count))[first:]


def source(
    settings: KafkaSettings, *, past: Past | None = None, live: bool = True, train: Any = None
) -> UnboundedSource:
    past = past or Past()
    return UnboundedSource(
        settings, KafkaFeed(settings, past.begin), train,
        batch_size=10, batches=None, past=past, live=live,
    )  # fmt: skip


def begin(settings: KafkaSettings) -> int:
    """Where a new run would begin in the first partition."""
    feed = KafkaFeed(settings, {})
    feed.close()
    return feed.positions()[f"{settings.topic}/0"]


def some(stream: UnboundedSource, batches: int) -> list[Any]:
    """The first batches, each settled as the stream does."""
    came = []
    for _, batch in zip(range(batches), stream.batches(), strict=False):
        came.append(batch)
        stream.settle(lambda: None, lambda: True)
    return came


def test_rows_come_in_the_order_of_their_partition(cluster: Cluster) -> None:
    cluster.send("order", rows_of(0, 60))
    stream = source(cluster.settings("order"))
    values = [batch.rows.columns["number"].tolist() for batch in some(stream, 3)]
    assert values == [list(range(start, start + 10)) for start in (30, 40, 50)]
    stream.close()


def test_the_same_batches_come_again_by_what_the_log_says(cluster: Cluster) -> None:
    for partition in (0, 1, 2):
        cluster.send("again", rows_of(30 * partition, 30), partition)
    first = source(cluster.settings("again"))
    assert sum(first.positions()["stream"].values()) == 30
    batches = some(first, 5)
    first.close()
    assert sum(batches[-1].offsets.values()) == 80
    past = Past(
        first.positions()["begin"],
        first.positions()["stream"],
        tuple((10, batch.offsets) for batch in batches[:4]),
    )
    replayed = source(cluster.settings("again"), past=past, live=False)
    assert replayed.contract == first.contract
    assert same(list(replayed.batches()), batches[:4])
    replayed.close()
    resumed = source(cluster.settings("again"), past=past)
    again = some(resumed, 6)
    resumed.close()
    assert same(again[:4], batches[:4])
    # every row once: what was committed beyond the log's end is read again
    numbers = [value for batch in again for value in batch.rows.columns["number"]]
    trained = [value for rows in resumed.training() for value in rows.columns["number"]]
    assert sorted(trained + numbers) == list(range(90))


def test_a_new_run_begins_where_the_groups_last_one_committed(cluster: Cluster) -> None:
    cluster.send("next", rows_of(0, 90))
    first = source(cluster.settings("next", group="one"))
    some(first, 2)
    first.close()
    assert begin(cluster.settings("next", group="one")) == 50
    assert begin(cluster.settings("next", group="two")) == 0


def test_nothing_is_committed_of_a_batch_that_was_not_settled(cluster: Cluster) -> None:
    cluster.send("unsettled", rows_of(0, 60))
    first = source(cluster.settings("unsettled", group="u"))
    batches = first.batches()
    next(batches)
    first.settle(lambda: None, lambda: True)
    next(batches)
    first.close()
    assert begin(cluster.settings("unsettled", group="u")) == 40


def test_a_run_whose_model_is_anothers_by_now_commits_nothing_more(cluster: Cluster) -> None:
    cluster.send("lost", rows_of(0, 60))
    first = source(cluster.settings("lost", group="l"))
    batches = first.batches()
    held = [True, False, False]
    for _ in range(2):
        next(batches)
        first.settle(lambda: None, lambda: held.pop(0))
    first.close()
    assert not held
    assert begin(cluster.settings("lost", group="l")) == 40


def test_labels_of_their_own_topic_are_joined_by_key(cluster: Cluster, tmp_path: Path) -> None:
    rows = [row | {"id": f"r{n}"} for n, row in enumerate(rows_of(0, 50))]
    path = tmp_path / "train.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(0, 30)))
    cluster.send("rows", [{k: v for k, v in row.items() if k != "y"} for row in rows])
    cluster.send("labels", [{"id": row["id"], "y": row["y"]} for row in rows[:7]])
    cluster.send("labels", [{"id": "nobody", "y": "no"}, {"id": "r0", "y": "no"}])
    settings = cluster.settings("rows", label_topic="labels", key="id", train=path, unlabelled=True)
    stream = source(settings, train=NdjsonTable(path))
    joined: list[tuple[int, int, int]] = []
    end = time.monotonic() + PATIENCE
    for tick, batch in enumerate(stream.batches()):
        assert batch.rows.y.tolist() == [-1] * 10
        if batch.late is not None:
            parts = (batch.late.batch, batch.late.place, batch.late.y)
            joined += zip(*(part.tolist() for part in parts), strict=True)
        if stream.notes().get("labels given again") and len(joined) >= 7:
            break
        assert time.monotonic() < end, "the labels did not come"
        # the two topics come in no order: more rows come until the labels have
        cluster.send("rows", [{"id": f"t{tick}-{n}", "number": 1.0} for n in range(10)])
    stream.close()
    assert sorted(joined) == [(1, place, place % 2) for place in range(7)]
    assert stream.notes()["labels of unknown rows"] == 1
    assert stream.notes()["labels given again"] == 1
    assert "id" not in stream.encoding.names


def test_labels_are_left_where_they_are_while_too_many_wait(cluster: Cluster) -> None:
    cluster.send("quiet-rows", ["{}"])
    cluster.send("quiet-labels", ["{}"] * 5)
    feed = KafkaFeed(
        cluster.settings("quiet-rows", label_topic="quiet-labels", key="id", train="t.csv"), {}
    )
    held = until(lambda: feed.read(0.2, labels=False))
    assert [line.label for line in held] == [False]
    freed: list[Any] = []
    until(lambda: freed.extend(feed.read(0.2) or []) or len(freed) == 5)
    assert [line.label for line in freed] == [True] * 5
    feed.close()


def test_a_broken_message_and_a_deleted_one_do_not_stop_the_stream(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.send("broken", [*rows_of(0, 30), "{", b"", *rows_of(30, 10)])
    stream = source(cluster.settings("broken"))
    stream.attend(tmp_path, lambda: False)
    (batch,) = some(stream, 1)
    stream.close()
    assert np.array_equal(batch.rows.columns["number"], np.arange(30.0, 40.0))
    (told,) = (tmp_path / "rejects.ndjson").read_text().splitlines()
    assert json.loads(told)["place"] == "broken/0: offset 30"


def test_rows_that_the_topic_does_not_hold_any_more_are_missed(cluster: Cluster) -> None:
    cluster.send("short", rows_of(0, 30))
    with pytest.raises(DataError, match=r"short/0: offset 99 is gone, the topic holds 0 to 30"):
        KafkaFeed(cluster.settings("short"), {"short/0": 99})


def test_a_topic_that_is_not_there_and_a_broker_that_is_away_are_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"Kafka at 127.0.0.1:\d+: no topic 'nothing'"):
        KafkaFeed(cluster.settings("nothing"), {})
    monkeypatch.setattr(kafka, "ANSWER_SECONDS", 0.2)
    with pytest.raises(DataError, match=r"topic rows at 127.0.0.1:1: "):
        KafkaFeed(cluster.settings("rows", bootstrap="127.0.0.1:1"), {})


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'selfheal-cli\[kafka\]'"):
        KafkaFeed(KafkaSettings(bootstrap="b", topic="t", target="y"), {})


def test_a_file_of_settings_is_read_and_its_mistakes_never_show_values(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# ours\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b\n")
    assert read_properties(path) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}
    path.write_text("sasl.username=ann\ns3cret\n")
    with pytest.raises(DataError, match="line 2: key=value is expected") as raised:
        read_properties(path)
    assert "s3cret" not in str(raised.value)


def test_labels_need_a_key_and_a_table_to_train_on() -> None:
    fixed = {"bootstrap": "b", "topic": "t", "target": "y"}
    with pytest.raises(ValueError, match="label_topic and key"):
        KafkaSettings.model_validate(fixed | {"key": "id"})
    with pytest.raises(ValueError, match="name a labelled table in train"):
        KafkaSettings.model_validate(fixed | {"key": "id", "label_topic": "l"})
