"""Segments' own adapters against the global recipe with the segment column as an input.

    python benchmarks/segment_adapters.py quality --seeds 20     log loss by how segments move
    python benchmarks/segment_adapters.py size --segments 1000   ms a heal, memory, bytes a version
    python benchmarks/segment_adapters.py nodes --nodes 3        by Ray's actors: us a row, memory

20 segments, 6 inputs; after a quarter, which trains, the relation between inputs and label moves in
all segments alike, by a strength of each one's own, in opposite directions, in base rates alone, or
not at all. Each batch has so many rows of each segment and is predicted before its labels come; the
first tenth of the stream is left out of the figures.
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from selfheal_cli.config import HealSettings, NetworkSettings, RunConfig, SegmentSettings
from selfheal_cli.config_sources import TableSettings
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.experts.segment import choose_directions
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.shards import OnCluster, shards_of
from selfheal_cli.heal.task import AdapterState, HealRows, HealTask
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.model.composite import split
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.model.training import seeded
from selfheal_cli.pipeline.prepare.baseline import survey, train_networks
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.segment_keys import codes_of
from selfheal_cli.settings.own_data import OF_ENSEMBLE, PUBLISHING
from selfheal_cli.settings.resolve import VALIDATION

INPUTS, SEGMENTS = 6, 20
INPUTS_OF_SIZE = 30
MOVES = ("none", "same", "strength", "opposite", "base")
RECIPES = {
    "anchored": HealSettings(recipe="anchored", better_by="paired", pre_heal="figures"),
    "ensemble": HealSettings(
        recipe="ensemble", better_by="paired", pre_heal="figures", **OF_ENSEMBLE
    ),
}


def table(seed: int, moves: str, segments: int, each: int, batches: int) -> pd.DataFrame:
    """Rows in batches of ``each`` a segment; the first quarter is as the rest was before."""
    draw = np.random.default_rng(seed)
    weight, turn = 0.8 * draw.normal(size=(2, INPUTS))
    strength = {
        "none": np.zeros(segments), "same": np.ones(segments),
        "strength": draw.uniform(0, 2, segments), "opposite": draw.choice([-1.0, 1.0], segments),
        "base": np.zeros(segments),
    }[moves]  # fmt: skip
    shift = 1.2 * draw.normal(size=segments) if moves == "base" else 0.5 * strength
    count = segments * each * batches * 4 // 3
    x = draw.normal(size=(count, INPUTS))
    code = np.tile(np.repeat(np.arange(segments), each), count // (segments * each) + 1)[:count]
    moved = np.arange(count) >= count // 4
    logit = x @ weight - 1.0 + moved * (1.5 * strength[code] * (x @ turn) + shift[code])
    y = draw.random(count) < 1 / (1 + np.exp(-logit))
    names = np.array([f"s{place}" for place in range(segments)], dtype=object)
    columns = {f"c{place}": x[:, place] for place in range(INPUTS)}
    return pd.DataFrame({**columns, "segment": names[code], "y": y.astype(int)})


def config_for(path: Path, size: int, heal: HealSettings, *, by_segment: bool) -> RunConfig:
    """A run on own data by its defaults; the segment column is an input either way."""
    config = RunConfig(
        source=TableSettings(path=path, target="y", train_fraction=0.25), rules=(), plots=False,
        monitors=(), drift_by="monitors", sensitive="auto", batch_size=size, heal=heal,
        network=NetworkSettings(shadow="frozen", validation=VALIDATION),
        segments=SegmentSettings(by="segment", heal=True) if by_segment else SegmentSettings(),
    )  # fmt: skip
    return config.model_copy(update={"policy": config.policy.model_copy(update=PUBLISHING)})


class Contest:
    """One stream through one recipe: log losses of its rows as they came."""

    def __init__(self, config: RunConfig) -> None:
        source = open_source(config)
        trained = train_networks(config, source, lambda done, total: None)
        self._replay = Replay(config, source, survey(config, source, trained))
        self.losses: list[np.ndarray] = []
        for batch in source.batches():
            p = np.clip(self._replay.predict(batch.rows.x).astype(float), 1e-6, 1 - 1e-6)
            self.losses.append(-np.where(batch.rows.y == 1, np.log(p), np.log(1 - p)))
            self._replay.step(batch)

    @property
    def log_loss(self) -> float:
        """Behind the first tenth of the stream."""
        return float(np.concatenate(self.losses[len(self.losses) // 10 :]).mean())


def quality(arguments: argparse.Namespace) -> None:
    """A line for each way to move and number of rows: both, and how far they are apart."""
    print("moves      rows  recipe     global + column  by segment  difference, 95 % interval")
    for moves in arguments.moves.split(","):
        for each in map(int, arguments.rows.split(",")):
            for recipe in arguments.recipes.split(","):
                pairs = []
                for seed in range(arguments.first, arguments.first + arguments.seeds):
                    with TemporaryDirectory() as folder:
                        path = Path(folder, "rows.csv")
                        batches = max(16, min(60, 600 // each))
                        table(seed, moves, SEGMENTS, each, batches).to_csv(path, index=False)
                        pairs.append([
                            Contest(
                                config_for(path, SEGMENTS * each, RECIPES[recipe], by_segment=own)
                            ).log_loss
                            for own in (False, True)
                        ])  # fmt: skip
                apart = [own - whole for whole, own in pairs]
                spread = 1.96 * stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else np.nan
                print(
                    f"{moves:9s} {each:5d}  {recipe:10s} {fmean(w for w, _ in pairs):15.4f}"
                    f"  {fmean(o for _, o in pairs):10.4f}  {fmean(apart):+.4f} +- {spread:.4f},"
                    f" worst {max(apart):+.4f}",
                    flush=True,
                )


def heals(
    segments: int, engine: Literal["local", "ray"], spent: Callable[[], np.ndarray]
) -> tuple[AdapterState, int, np.ndarray]:
    """Six of them, of 5 rows a segment with 30 inputs: what the last gave, of how many rows, and
    the median of what was ``spent`` on one.
    """
    with seeded(0):
        plain = SelfHealingNetwork.build(Architecture(INPUTS_OF_SIZE, 64))
    plain.freeze()
    whole = plain.anchored(beside=True)
    draw = np.random.default_rng(0)
    seen = AnchorRows(whole, 2)
    x = draw.normal(size=(2_000, INPUTS_OF_SIZE)).astype(np.float32)
    seen.add(x, whole.features(x), (x[:, 0] > 0).astype(np.int8))
    read = slice(64, 64 + INPUTS_OF_SIZE)
    network = whole.keyed().segmented(choose_directions(seen.anchor(), read, 1))
    settings = HealSettings(recipe="anchored", window=1, engine=engine)
    recipes = Recipes(network, seen.anchor(), settings)
    state = AdapterState(network.adapter.state_dict(), {})
    names = np.repeat(np.array([f"s{one}" for one in range(segments)], dtype=object), 5)
    took = []
    for arrival in range(6):
        x = draw.normal(size=(len(names), INPUTS_OF_SIZE)).astype(np.float32)
        features = network.features(np.concatenate([x, codes_of(names)], axis=1))
        y = (x[:, 0] + 0.5 * draw.normal(size=len(x)) > 0).astype(np.int8)
        steps, none = np.full(len(y), arrival, np.int32), np.zeros(len(y), np.bool_)
        rows = HealRows(features, y, np.full_like(y, -1), steps, none)
        before = spent()
        state = recipes.heal(state, HealTask("h", 1, "", "anchored", rows)).after
        took.append(spent() - before)
    return state, len(names), np.median(took[1:], axis=0)


def size(arguments: argparse.Namespace) -> None:
    """Time, memory, bytes of a version."""
    for segments in (10, arguments.segments):
        state, count, took = heals(segments, "local", lambda: np.array(process_time()))
        parts = split(Packed.of(state.weights).data)
        held = 0 if parts is None else sum(map(len, parts.segments.values()))
        print(
            f"{segments:5d} segments, {count} rows: {1_000 * took:.0f} ms of processor "
            f"a heal, at most {resident()} MB resident, {held / 1024:.0f} kB of segments' adapters",
            flush=True,
        )


def nodes(arguments: argparse.Namespace) -> None:
    """The same heals here (0) or by actors on so many nodes of loopback: processor time of who
    heals and of the actors, memory of an actor, and what came of it, by hash.
    """
    actors: list[Any] = []
    if arguments.nodes:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # nodes on loopback
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        for _ in range(arguments.nodes):
            cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=2e8)
        os.environ["RAY_ADDRESS"] = cluster.address
        actors = [one.actor for one in cast("OnCluster", shards_of("ray"))._placed]

    def spent() -> np.ndarray:
        theirs = sum(asked(actor, lambda _: process_time()) for actor in actors)
        return np.array([process_time(), theirs])

    engine: Literal["local", "ray"] = "ray" if actors else "local"
    spent()  # once all of them are there
    state, count, took = heals(arguments.segments, engine, spent)
    here, there = 1e6 * took / count
    memory = [asked(actor, resident) for actor in actors]
    print(
        f"{arguments.nodes} nodes, {len(actors)} actors, {arguments.segments} segments: "
        f"{here + there:.0f} us of processor a row ({here:.0f} by who heals), an actor at most "
        f"{max(memory, default=0)} MB, came to {Packed.of(state.weights).sha256[:12]}"
    )


def resident(_: object = None) -> int:
    """Of this process, MB at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def asked(actor: Any, what: Callable[[Any], Any]) -> Any:
    """What an actor's process says."""
    import ray

    return ray.get(actor.__ray_call__.remote(what))


def main() -> None:
    """Runs one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("quality", "size", "nodes"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--moves", default=",".join(MOVES))
    parser.add_argument("--rows", default="5,20")
    parser.add_argument("--recipes", default="anchored")
    parser.add_argument("--segments", type=int, default=1_000)
    parser.add_argument("--nodes", type=int, default=1, help="of Ray on loopback; 0 for none")
    arguments = parser.parse_args()
    use_one_thread()
    {"quality": quality, "size": size, "nodes": nodes}[arguments.what](arguments)


if __name__ == "__main__":
    main()
