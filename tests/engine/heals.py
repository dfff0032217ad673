"""Heals of segments by this process, or by actors on so many nodes of loopback, of which something
is lost, or comes, in the middle of the third: prints for each heal what came out, by hash, and how
many of its segments actors answered for.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from safetensors.torch import save

from selfheal_cli.config import HealSettings
from selfheal_cli.engine.cluster import require_ray
from selfheal_cli.heal import shards
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import HealTask
from selfheal_cli.model.threads import use_one_thread
from tests.conftest import until
from tests.heal.test_segmented import RECIPES, begun, rows_of

SHOPS = tuple(f"shop {number}" for number in range(24))
OBJECTS = 100_000_000  # bytes of a node's object store


class Watched:
    """The cluster's shards; between question and answer of a heal ``between`` may do harm."""

    def __init__(self) -> None:
        self.on_cluster = shards.OnCluster()
        self.between: Callable[[list[Any]], None] = lambda placed: None
        self.answered = 0
        answers = self.on_cluster._answers

        def between(asked: Any) -> Iterator[Any]:
            self.between([placed for placed, _ in asked.values()])
            for one in answers(asked):
                self.answered += 1
                yield one

        self.on_cluster._answers = between  # type: ignore[method-assign]

    def await_actors(self, count: int) -> None:
        """On a slow machine they come late, and heals would not wait."""
        until(lambda: len(self.on_cluster._ready()) == count, seconds=300, every=0.2)


def begun_node(cluster: Any) -> Any:
    """Ray gives one that is slow to begin up after half a minute."""
    for tries_left in (2, 1, 0):
        try:
            return cluster.add_node(
                num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=OBJECTS,
                include_dashboard=False,
            )  # fmt: skip
        except Exception:  # of no kind of its own
            if not tries_left:
                raise
    return None


def process_of(placed: Any) -> int:
    import ray

    return int(ray.get(placed.actor.__ray_call__.remote(lambda actor: os.getpid())))


def heals(engine: str, at_third: Callable[[], None], answered: Callable[[], int]) -> None:
    """Five of them, each on what the last gave."""
    recipes = Recipes(
        RECIPES.network, RECIPES.anchor, HealSettings(recipe="anchored", engine=engine)
    )
    state, before = begun(), 0
    for number in range(5):
        if number == 2:
            at_third()
        rows = rows_of(number, SHOPS, 10)[1]
        state = recipes.heal(state, HealTask("h", 1, "", "anchored", rows)).after
        whole = [save(dict(one)) for one in (state.weights, state.memory)]
        now = answered()
        said = {"sha256": hashlib.sha256(b"".join(whole)).hexdigest(), "answered": now - before}
        print(json.dumps(said), flush=True)
        before = now


def main(count: int, event: str) -> None:
    """``event``: nothing, or what happens to an actor or a node."""
    use_one_thread()
    if not count:
        heals("local", lambda: None, lambda: 0)
        return
    require_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes = [begun_node(cluster) for _ in range(count)]
    os.environ["RAY_ADDRESS"] = cluster.address
    watched = Watched()
    watched.await_actors(count)
    shards._cluster = lambda: watched.on_cluster  # type: ignore[assignment]

    def lose(placed: list[Any]) -> None:
        watched.between = lambda placed: None
        if event == "node dies":
            cluster.remove_node(nodes[-1], allow_graceful=False)
        elif event == "actor dies":
            os.kill(stopped[0], signal.SIGKILL)

    stopped: list[int] = []

    def at_third() -> None:
        if event == "node comes":
            begun_node(cluster)
            watched.await_actors(count + 1)
            return
        if event != "nothing":
            last = [one for one in watched.on_cluster._placed if one.node == nodes[-1].node_id]
            stopped.append(process_of(last[0]))
            os.kill(stopped[0], signal.SIGSTOP)  # it is asked, and cannot have answered
        watched.between = lose

    heals("ray", at_third, lambda: watched.answered)
    import ray

    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
