"""Where segments learn: one after the other here, or in actors on the nodes of a Ray cluster.

What a segment learns is a function of what goes with the call, `SegmentRows`, and of nothing that
an actor holds. So an actor or a node may die, come late or join at any time: what it does not
answer is done here, with the same bytes, and nothing that Ray tries again is relied on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.anytime import RunningMean
from selfheal_cli.engine.cluster import connect
from selfheal_cli.heal.experts.segment import SegmentDesign, SegmentExpert
from selfheal_cli.model.threads import use_one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

A_NODE = 2  # actors, at most: each holds some 300 MB of libraries, and many segments
START_SECONDS = 60.0  # that the first heal waits for an actor; later ones do not
GIVEN_UP_SECONDS = 600.0  # until an actor answers for the first time
ANSWER_SECONDS = 20.0  # without an answer of any actor, after which the rest is done here
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """One segment's labelled rows that came since it learned last, in their order: their design
    ``a`` (n, columns), the ``margin`` (n, K - 1) of all rows' mixture, classes ``y`` (n,), log loss
    ``lost`` (n,) of what they were answered, ``arrival`` (n,), and which are ``held_out`` (n,).

    ``state`` (size,) is what the segment had learned before, None where nothing; ``worse`` by how
    much that was worse than what it was answered.
    """

    code: int
    state: Matrix | None
    worse: RunningMean
    a: Matrix
    margin: Matrix
    y: Any
    lost: Matrix
    arrival: Any
    held_out: Any


@dataclass(frozen=True, slots=True)
class SegmentLearned:
    """A segment's adapter, ``share`` and ``theta`` of `SegmentedAdapter`, the ``state`` (size,)
    that it goes on from, and by how much what it says of rows before it learns is ``worse``.
    """

    code: int
    share: NDArray[np.float32]
    theta: NDArray[np.float32]
    state: Matrix
    worse: RunningMean


class Shards(Protocol):
    """Has segments learn."""

    def learn(
        self, design: SegmentDesign, segments: Iterable[SegmentRows]
    ) -> Iterable[SegmentLearned]:
        """What each has learned, in any order."""


class Here:
    """One after the other, so that no more than one state is in memory."""

    def learn(
        self, design: SegmentDesign, segments: Iterable[SegmentRows]
    ) -> Iterator[SegmentLearned]:
        """As `Shards.learn`."""
        return (learn(design, one) for one in segments)


def learn(design: SegmentDesign, rows: SegmentRows) -> SegmentLearned:
    """Go through a segment's rows as they arrived; each is predicted before it is learned from."""
    expert, worse = SegmentExpert(design, rows.state), rows.worse
    places = np.arange(len(rows.y))
    for part in np.split(places, np.flatnonzero(np.diff(rows.arrival)) + 1):
        lost = expert.losses(rows.a[part], rows.margin[part], rows.y[part])
        for value in lost - rows.lost[part]:
            worse = worse.plus(float(value))
        fresh = part[~rows.held_out[part]]
        if len(fresh):
            expert.observe(rows.a[fresh], rows.margin[fresh], rows.y[fresh], len(part))
    share, theta = expert.shares(), design.fold(expert.theta())
    return SegmentLearned(
        rows.code, share.astype(np.float32), theta.astype(np.float32), expert.packed(), worse
    )


class ShardActor:
    """In a process of a node: learns for the segments of a shard."""

    def __init__(self) -> None:
        use_one_thread()  # so that the bytes are the same

    def ready(self) -> bool:
        """Answer, once the process is there."""
        return True

    def learn(self, design: SegmentDesign, segments: list[SegmentRows]) -> list[SegmentLearned]:
        """As `Shards.learn`."""
        return list(Here().learn(design, segments))


@dataclass(slots=True)
class _Placed:
    """An actor, on which node, and what it first answers, None once it has."""

    actor: Any
    node: str
    begins: Any
    since: float = field(default_factory=time.monotonic)


class OnCluster:
    """Segments by ``code % actors``, two actors a node at most.

    They ask for no CPU, so that none waits for one: they work as long as a heal takes. Raises as
    `selfheal_cli.engine.cluster.connect`.
    """

    def __init__(self) -> None:
        connect()
        self._placed: list[_Placed] = []
        self._place()
        self._patient_until = time.monotonic() + START_SECONDS

    def learn(
        self, design: SegmentDesign, segments: Iterable[SegmentRows]
    ) -> Iterator[SegmentLearned]:
        """As `Shards.learn`."""
        rows = list(segments)
        actors = self._ready()
        asked: dict[Any, tuple[_Placed, list[SegmentRows]]] = {}
        for number, one in enumerate(actors):
            shard = [each for each in rows if each.code % len(actors) == number]
            if shard:
                asked[one.actor.learn.remote(design, shard)] = one, shard
        yield from self._answers(asked)
        left = [shard for _, shard in asked.values()] if actors else [rows]
        for shard in left:
            yield from Here().learn(design, shard)

    def _answers(self, asked: dict[Any, tuple[_Placed, list[SegmentRows]]]) -> Iterator[Any]:
        """What actors answer; what is left in ``asked`` nobody did."""
        import ray
        from ray.exceptions import RayError

        waiting = list(asked)
        while waiting:
            done, waiting = ray.wait(waiting, timeout=ANSWER_SECONDS)
            if not done:
                self._leave(asked[one][0] for one in waiting)
                return
            for one in done:
                try:
                    answer = ray.get(one, timeout=ANSWER_SECONDS)
                except RayError:  # it died, or could not: done here, it says why by itself
                    self._leave([asked[one][0]])
                    continue
                del asked[one]
                yield from answer

    def _place(self) -> None:
        """An actor for each node that has none yet; those of nodes that are gone are left."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = {
            one["NodeID"]: min(A_NODE, int(one["Resources"].get("CPU", 0)))
            for one in ray.nodes()
            if one["Alive"]
        }
        self._leave([one for one in self._placed if one.node not in alive])
        for node, most in sorted(alive.items()):
            there = sum(one.node == node for one in self._placed)
            for _ in range(most - there):
                place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
                made = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(ShardActor)
                actor = made.options(scheduling_strategy=place).remote()
                self._placed.append(_Placed(actor, node, actor.ready.remote()))

    def _ready(self) -> list[_Placed]:
        """The actors that answer."""
        self._place()
        ready = [one for one in list(self._placed) if self._answers_now(one)]
        while self._placed and not ready and time.monotonic() < self._patient_until:
            time.sleep(LOOK_SECONDS)
            ready = [one for one in list(self._placed) if self._answers_now(one)]
        self._patient_until = 0.0
        return ready

    def _answers_now(self, one: _Placed) -> bool:
        import ray
        from ray.exceptions import RayError

        if one.begins is None:
            return True
        if not ray.wait([one.begins], timeout=0)[0]:
            if time.monotonic() - one.since > GIVEN_UP_SECONDS:
                self._leave([one])
            return False
        try:
            ray.get(one.begins, timeout=ANSWER_SECONDS)
        except RayError:
            self._leave([one])
            return False
        one.begins = None
        return True

    def _leave(self, placed: Iterable[_Placed]) -> None:
        """End them, if they are still there; others take their place with the next heal."""
        import ray

        for one in list(placed):
            self._placed = [other for other in self._placed if other is not one]
            ray.kill(one.actor)


@cache
def _cluster() -> OnCluster:
    """One a process: two heals of it share connection and actors."""
    return OnCluster()


def shards_of(engine: str) -> Shards:
    """By the configuration's ``heal.engine``; raises as `OnCluster`."""
    return _cluster() if engine == "ray" else Here()
