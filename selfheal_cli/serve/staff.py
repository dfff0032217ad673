"""The processes of one server: each tells its counts on the control channel, and whoever is asked
adds them up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample
from pydantic import BaseModel, ConfigDict

from selfheal_cli.errors import StorageError
from selfheal_cli.lookout import Lookout
from selfheal_cli.serve.operator.status import ServerInfo
from selfheal_cli.spool.control import ControlChannel

COUNTED = ("unrecorded", "conflicting", "kept", "unread", "lost", "worker_restarts",
           "canary_rows")  # fmt: skip
Samples = list[tuple[str, dict[str, str], float]]
Family = tuple[str, str, Samples]  # of a metric: type, text and samples


class ProcessWord(BaseModel):
    """What a process said of itself last. One that has ended goes on counting in sums.

    ``scores``: it is a worker, and not the one that began them; that one knows the healer.
    """

    model_config = ConfigDict(frozen=True)

    pid: int
    scores: bool
    info: ServerInfo
    samples: dict[str, Family]
    alive: bool = True
    healer_pid: int | None = None
    healer_restarts: int = 0


class Staff(Lookout):
    """This process among those of its server, which has a name of its own."""

    seconds = 0.5
    at_once = False

    def __init__(
        self, channel: ControlChannel, server: str, own: Callable[[], ProcessWord]
    ) -> None:
        super().__init__("staff")
        self._channel = channel
        self._server = server
        self._own = own
        self._said: ProcessWord | None = None

    def start(self) -> None:
        """Say something, and go on with it."""
        self.look()
        super().start()

    def stop(self) -> None:
        """A last word, where there was a first."""
        if not self._thread.is_alive():
            return
        super().stop()
        with suppress(StorageError):
            self.write(self._own().model_copy(update={"alive": False}))

    def write(self, word: ProcessWord) -> None:
        """Replace the word of a process. Raises `StorageError`."""
        self._channel.set_status(f"{self._server}:{word.pid}", word.model_dump(mode="json"))

    def words(self) -> list[ProcessWord]:
        """Of all others, ended ones too. Raises `StorageError`."""
        told = self._channel.statuses(f"{self._server}:")
        words = (ProcessWord.model_validate(data) for data in told)
        return [word for word in words if word.pid != os.getpid()]

    def look(self) -> None:
        """Say what is new of itself."""
        with suppress(StorageError):  # the recorder says so
            word = self._own()
            if word != self._said:
                self.write(word)
                self._said = word


def somebody_scores(channel: ControlChannel, server: str) -> bool:
    """Whether a process of the server answers already. Raises `StorageError`."""
    words = map(ProcessWord.model_validate, channel.statuses(f"{server}:"))
    return any(word.scores and word.alive for word in words)


def summed(own: ServerInfo, words: Sequence[ProcessWord]) -> ServerInfo:
    """What a server says that has several processes; ``own`` is of the one that is asked."""
    infos = [own, *(word.info for word in words)]
    living = [own, *(word.info for word in words if word.alive)]
    counts = {name: sum(getattr(info, name) for info in infos) for name in COUNTED}
    return own.model_copy(
        update=counts
        | {
            "queue": sum(info.queue for info in living),
            "recording": next((info.recording for info in living if info.recording), ""),
            "following": next((info.following for info in living if info.following), ""),
            "stalled": max(info.stalled for info in living),
            "started": min(info.started for info in infos),
            "workers": max(info.workers for info in infos),
            "workers_up": 1 + sum(word.alive and word.scores for word in words),
        }
    )


def samples_of(registry: CollectorRegistry) -> dict[str, Family]:
    """What a process has counted, by metric."""
    return {
        family.name: (
            family.type,
            family.documentation,
            [(one.name, dict(one.labels), one.value) for one in family.samples],
        )
        for family in registry.collect()
    }


class SummedMetrics(Collector):
    """A process's figures, to which those of the others are added."""

    def __init__(self, own: CollectorRegistry, words: Callable[[], Sequence[ProcessWord]]) -> None:
        self._own = own
        self._words = words

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before somebody asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What was counted until now, by any of them."""
        families, others = samples_of(self._own), [word.samples for word in self._words()]
        for told in others:
            for name, (kind, text, samples) in told.items():
                known = families.setdefault(name, (kind, text, []))
                families[name] = *known[:2], [*known[2], *samples]
        for name, (kind, text, samples) in families.items():
            metric = Metric(name, text, kind)
            metric.samples = _added(samples)
            yield metric


def _added(samples: Samples) -> list[Sample]:
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name, labels, value in samples:
        key = name, tuple(labels.items())
        created = name.endswith("_created")  # when the first of them began to count
        sums[key] = min(sums.get(key, value), value) if created else sums.get(key, 0.0) + value
    return [Sample(name, dict(labels), value) for (name, labels), value in sums.items()]
