"""Kafka topics of rows and of labels, a JSON object a message.

Partitions are assigned, not balanced: one run reads them all. A new run begins where the group's
committed offsets are, a resumed one where its event log says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfheal_cli.config_sources import KafkaSettings
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.sources.feed import FeedLine, Positions

ANSWER_SECONDS = 10.0  # that a broker has for an answer
MESSAGES = 1_000  # read at once


class KafkaFeed:
    """Messages of all partitions as lines; a partition is called ``TOPIC/NUMBER``.

    Raises `DataError` for a broker that does not answer, a topic that is not there, and for
    messages after ``begin`` that the topic does not hold any more.
    """

    def __init__(self, settings: KafkaSettings, begin: Positions) -> None:
        if find_spec("confluent_kafka") is None:
            raise ConfigurationError(
                "--kafka needs confluent-kafka: pip install 'selfheal-cli[kafka]'"
            )
        from confluent_kafka import Consumer

        self.where = f"topic {settings.topic} at {settings.bootstrap}"
        self._label_topic = settings.label_topic
        self._labels_wait = False
        self._committed: Positions = {}
        self._held: Callable[[], bool] = lambda: True
        with self._translated():
            self._consumer = Consumer(_configuration(settings))
            # one that is forgotten without having been closed would wait for ever
            self._closing = weakref.finalize(self, _close, self._consumer)
            partitions = self._partitions(settings)
            self._positions = {
                name: self._start(name, at, begin) for name, at in partitions.items()
            }
            for name, at in partitions.items():
                at.offset = self._positions[name]
            self._consumer.assign(list(partitions.values()))
        self._assigned = partitions

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        """As `Feed.read`; a topic has no end."""
        with self._translated():
            if labels == self._labels_wait:
                self._hold_labels(hold=not labels)
            messages = self._consumer.consume(MESSAGES, max(0.0, seconds))
            return [line for message in messages for line in self._lines(message)]

    def positions(self) -> Positions:
        """By partition, the offset that is read next."""
        return self._positions

    def place(self, partition: str, offset: int) -> str:
        """Where a line is found, for messages."""
        return f"{partition}: offset {offset}"

    def commit(self, upto: Positions, held: Callable[[], bool]) -> None:
        """As `Feed.commit`; an answer is not waited for, since the event log is what counts."""
        self._committed, self._held = dict(upto), held
        if not held():
            return
        with self._translated():
            self._consumer.commit(offsets=self._at(upto), asynchronous=True)

    def close(self) -> None:
        """Hand in what is committed; a broker that is away does not hold the end up."""
        from confluent_kafka import KafkaException

        if self._committed and self._closing.alive and self._held():
            with suppress(KafkaException):
                self._consumer.commit(offsets=self._at(self._committed), asynchronous=False)
        self._closing()

    def _lines(self, message: Any) -> Iterator[FeedLine]:
        from confluent_kafka import KafkaError, KafkaException

        name = f"{message.topic()}/{message.partition()}"
        fault = message.error()
        if fault is None:
            self._positions[name] = message.offset() + 1
            label = message.topic() == self._label_topic
            yield FeedLine(name, message.offset(), message.value() or b"", label)
        elif fault.code() == KafkaError._PARTITION_EOF:
            # behind the last message there may be offsets that hold none
            self._positions[name] = max(self._positions[name], message.offset())
        elif fault.fatal() or not (fault.retriable() or fault.code() in _passing()):
            raise KafkaException(fault)

    def _partitions(self, settings: KafkaSettings) -> dict[str, Any]:
        from confluent_kafka import TopicPartition

        partitions: dict[str, Any] = {}
        for topic in (settings.topic, settings.label_topic):
            if topic is None:
                continue
            known = self._consumer.list_topics(topic, ANSWER_SECONDS).topics[topic]
            if known.error is not None or not known.partitions:
                raise DataError(f"Kafka at {settings.bootstrap}: no topic '{topic}'")
            for number in sorted(known.partitions):
                partitions[f"{topic}/{number}"] = TopicPartition(topic, number)
        return partitions

    def _start(self, name: str, at: Any, begin: Positions) -> int:
        low, high = self._consumer.get_watermark_offsets(at, ANSWER_SECONDS)
        position = begin.get(name)
        if position is None:
            committed = int(self._consumer.committed([at], ANSWER_SECONDS)[0].offset)
            return committed if low <= committed <= high else int(low)
        if not low <= position <= high:
            raise DataError(
                f"{name}: offset {position} is gone, the topic holds {low} to {high}; the run can "
                "be neither resumed nor replayed (source.record_rows keeps what a run reads)"
            )
        return position

    def _hold_labels(self, *, hold: bool) -> None:
        parts = [at for at in self._assigned.values() if at.topic == self._label_topic]
        if parts:
            (self._consumer.pause if hold else self._consumer.resume)(parts)
        self._labels_wait = hold

    def _at(self, upto: Positions) -> list[Any]:
        from confluent_kafka import TopicPartition

        return [
            TopicPartition(self._assigned[name].topic, self._assigned[name].partition, offset)
            for name, offset in upto.items()
        ]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from confluent_kafka import KafkaException

        try:
            yield
        except KafkaException as exc:
            fault = exc.args[0]
            raise DataError(f"{self.where}: {fault.str()}") from exc


def _close(consumer: Any) -> None:
    from confluent_kafka import KafkaException

    with suppress(KafkaException, RuntimeError):
        consumer.close()


def _passing() -> frozenset[int]:
    """Faults that go by themselves when brokers are back."""
    from confluent_kafka import KafkaError

    return frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})


def _configuration(settings: KafkaSettings) -> dict[str, Any]:
    own = {} if settings.client is None else read_properties(settings.client)
    return {
        **own,
        "bootstrap.servers": settings.bootstrap,
        "group.id": settings.group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",  # rows that retention took are not passed over in silence
        "log_level": 2,  # the client's own lines are not for our stderr
    }


def read_properties(path: Path) -> Mapping[str, str]:
    """Lines ``key=value`` of a librdkafka configuration; raises `DataError` naming file and line.

    Values are never in a message: some are secrets.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path}: it cannot be read ({type(exc).__name__})") from exc
    properties = {}
    for number, line in enumerate(lines, 1):
        key, equals, value = line.strip().partition("=")
        if not key or key.startswith("#"):
            continue
        if not equals:
            raise DataError(f"{path}: line {number}: key=value is expected")
        properties[key.strip()] = value.strip()
    return properties
