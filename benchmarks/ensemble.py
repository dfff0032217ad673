"""Recipe ensemble against what people would try: the table of docs/healing-figures.md.

    python benchmarks/ensemble.py --data FOLDER              elec.csv and bank-full.csv of FOLDER
    python benchmarks/ensemble.py --seeds 201,202            generated (benchmarks/streams.py)
    python benchmarks/ensemble.py --seeds 201 --only agrawal,rare --skip ARF   no river's forest

The first quarter trains the network; then each batch of 100 is predicted before its labels come.
Settings of the recipe were chosen on generated streams of seed 101, `JUDGED` excepted;
other seeds, `JUDGED`, elec and bank are judged on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from streams import JUDGED, STREAMS

from selfheal_cli.config import HealSettings, NetworkSettings, RunConfig
from selfheal_cli.config_sources import TableSettings
from selfheal_cli.kinds import PEERS
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.baselines import FineTune, Frozen, MakePeer
from selfheal_cli.pipeline.offline.compare import Result, WithPeer, contest
from selfheal_cli.pipeline.offline.peers import peers_named
from selfheal_cli.pipeline.offline.refitted import RefitSchedule
from selfheal_cli.pipeline.prepare.baseline import Trained, survey, train_networks
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.settings.own_data import OF_ENSEMBLE, PUBLISHING
from selfheal_cli.settings.resolve import VALIDATION
from selfheal_cli.sources.base import Source

FIGURES = ("accuracy", "f1", "roc_auc", "pr_auc", "log_loss", "rows_per_second")
UNLIKE = ("adaptive-tree", "isolation-forest", "one-class-svm")  # behind the others everywhere
RECIPES = {
    "anchored": HealSettings(recipe="anchored"),
    "ensemble without trees": HealSettings(recipe="ensemble", **OF_ENSEMBLE),
    "ensemble": HealSettings(recipe="ensemble", trees=True, **OF_ENSEMBLE),
}


def config_for(settings: TableSettings) -> RunConfig:
    """A run on own data by its defaults, in batches of 100."""
    config = RunConfig(
        source=settings, rules=(), plots=False, monitors=(), drift_by="monitors", sensitive="auto",
        network=NetworkSettings(shadow="frozen", validation=VALIDATION),
    )  # fmt: skip
    return config.model_copy(update={"policy": config.policy.model_copy(update=PUBLISHING)})


def contestants(
    config: RunConfig, source: Source, trained: Trained
) -> Mapping[str, Callable[[], Result]]:
    """What sends each of them through the stream, by title."""
    rate = config.network.learning_rate
    peers: dict[str, MakePeer] = {
        "frozen": lambda seed, source: Frozen(trained.network),
        "full fine-tune": lambda seed, source: FineTune(trained.network, rate),
    }
    peers |= peers_named(
        [name for name in PEERS if name not in UNLIKE], config.network, RefitSchedule()
    )

    def peer(title: str, make: MakePeer) -> Result:
        return contest(title, WithPeer(make(config.seed, source), config), config, source)

    def recipe(title: str, heal: HealSettings) -> Result:
        guarded = {"better_by": "paired", "pre_heal": "figures"}
        own = config.model_copy(update={"heal": heal.model_copy(update=guarded)})
        return contest(title, Replay(own, source, survey(own, source, trained)), own, source)

    return {title: partial(peer, title, make) for title, make in peers.items()} | {
        title: partial(recipe, title, heal) for title, heal in RECIPES.items()
    }


def streams(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, TableSettings]]:
    """By name; a generated one once for each seed."""
    generated = STREAMS | JUDGED
    chosen = arguments.only.split(",") if arguments.only else ["elec", "bank", *generated]
    if arguments.data is not None and "elec" in chosen:
        yield "elec", TableSettings(path=arguments.data / "elec.csv", target="class")
    if arguments.data is not None and "bank" in chosen:
        bank = arguments.data / "bank-full.csv"
        yield "bank", TableSettings(path=bank, target="y", drop=("duration",))
    for name in filter(generated.__contains__, chosen if arguments.seeds else ()):
        for seed in arguments.seeds.split(","):
            path = scratch / f"{name}-{seed}.csv"
            generated[name](int(seed)).to_csv(path, index=False)
            yield name, TableSettings(path=path, target="y")


def main() -> None:
    """Print a line of the table for each contestant, as soon as its stream is through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="")
    arguments = parser.parse_args()
    use_one_thread()
    skip = [word for word in arguments.skip.split(",") if word]
    print("| stream | | accuracy | F1 | ROC AUC | PR AUC | log loss | rows/s |")
    print("|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        results: dict[tuple[str, str], list[Result]] = {}
        for name, settings in streams(arguments, Path(scratch)):
            config = config_for(settings)
            source = open_source(config)
            trained = train_networks(config, source, lambda done, total: None)
            for title, enter in contestants(config, source, trained).items():
                if title in skip or (title not in RECIPES and any(w in title for w in skip)):
                    continue
                result = enter()
                known = results.setdefault((name, result.title), [])
                known.append(result)
                print(f"| {name} | {result.title} | {_cells(known)} |", flush=True)


def _cells(results: list[Result]) -> str:
    """Means over the seeds so far."""
    means = [fmean(one.figures[name] for one in results) for name in FIGURES]
    return " | ".join([*(f"{mean:.3f}" for mean in means[:-1]), f"{means[-1]:,.0f}"])


if __name__ == "__main__":
    main()
