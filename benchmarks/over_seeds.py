"""Recipe ensemble over data seeds: by how much it is ahead of whom, with the interval of that.

    python benchmarks/over_seeds.py FIGURES --seeds 301-305 --skip ARF    measures what is not there
    python benchmarks/over_seeds.py FIGURES --write docs/healing-figures.md  the table, from what is

FIGURES has a line of JSON for each contestant, stream and seed; a run that was stopped goes on
where it was. Streams are those of benchmarks/streams.py, each seed another draw of the rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory

import streams
from ensemble import RECIPES, config_for, contestants
from scipy.stats import t

from selfheal_cli.config_sources import TableSettings
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.compare import Result
from selfheal_cli.pipeline.prepare.baseline import train_networks
from selfheal_cli.pipeline.prepare.rows import open_source

ROWS = 8_000  # of a stream, a quarter of them for training
ROWS_OF = {"rare": 20_000}  # of fewer, few positives are left
LEVEL = 0.05  # of an interval that misses the mean
MARKS = "<!-- over_seeds.py -->", "<!-- /over_seeds.py -->"
OURS, TREES, BEFORE = "ensemble without trees", "ensemble", "anchored"


@dataclass(frozen=True, slots=True)
class Line:
    """A contestant's figures on one stream and seed."""

    stream: str
    seed: int
    title: str
    figures: dict[str, float]


Known = dict[tuple[str, int, str], Line]


def read(file: Path) -> Known:
    """The figures of a file; none where there is no file."""
    text = file.read_text() if file.exists() else ""
    lines = [Line(**json.loads(line)) for line in text.splitlines()]
    return {(line.stream, line.seed, line.title): line for line in lines}


def measure(
    stream: str, seed: int, known: Known, scratch: Path, skip: list[str]
) -> Iterator[Result]:
    """Whoever is not known yet on a stream and seed."""
    streams.ROWS = ROWS_OF.get(stream, ROWS)
    path = scratch / f"{stream}-{seed}.csv"
    (streams.STREAMS | streams.JUDGED)[stream](seed).to_csv(path, index=False)
    config = config_for(TableSettings(path=path, target="y"))
    source = open_source(config)
    trained = train_networks(config, source, lambda done, total: None)
    for title, enter in contestants(config, source, trained).items():
        words = title not in RECIPES and any(word in title for word in skip)
        skipped = title in skip or words
        if (stream, seed, title) not in known and not skipped:
            yield enter()


def paired(known: Known, stream: str, title: str, other: str, figure: str) -> list[float]:
    """Differences of a figure by seed, over the seeds that both went through."""
    seeds = [seed for name, seed, own in known if (name, own) == (stream, title)]
    both = sorted(seed for seed in seeds if (stream, seed, other) in known)
    return [
        known[stream, seed, title].figures[figure] - known[stream, seed, other].figures[figure]
        for seed in both
    ]


def interval(differences: list[float]) -> str:
    """Mean and half the width of Student's interval; in bold where it leaves out zero."""
    mean = fmean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f}"
    many = len(differences)
    half = float(t.ppf(1 - LEVEL / 2, many - 1)) * stdev(differences) / sqrt(many)
    told = f"{mean:+.4f} ±{half:.4f}"
    return f"**{told}**" if abs(mean) > half else told


def best_peer(known: Known, stream: str) -> str:
    """The peer that is least behind in ROC AUC, chosen on these very seeds: which favours it."""
    peers = {title: None for name, _, title in known if name == stream and title not in RECIPES}
    return min(peers, key=lambda title: fmean(paired(known, stream, OURS, title, "roc_auc") or [1]))


def table(known: Known) -> Iterator[str]:
    """The lines of the table, a stream each; of our titles those that went through all of them."""
    names = list(dict.fromkeys(name for name, _, _ in known))
    every = {title for title in (OURS, TREES)
             if all(paired(known, name, title, BEFORE, "roc_auc") for name in names)}  # fmt: skip
    ours = [title for title in (OURS, TREES) if title in every]
    both = [f"{title}, difference" for title in ours]
    heads = ["stream", "seeds", f"{BEFORE}: log loss", *both, f"{BEFORE}: ROC AUC", *both]
    heads += ["best peer by ROC AUC, seeds", *both]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for stream in names:
        own = [known[stream, seed, BEFORE].figures for name, seed, title in known
               if (name, title) == (stream, OURS)]  # fmt: skip
        peer = best_peer(known, stream)
        cells = [stream, str(len(paired(known, stream, OURS, BEFORE, "roc_auc")))]
        for figure in ("log_loss", "roc_auc"):
            cells.append(f"{fmean(one[figure] for one in own):.3f}")
            cells += [interval(paired(known, stream, title, BEFORE, figure)) for title in ours]
        cells.append(f"{peer}, {len(paired(known, stream, OURS, peer, 'roc_auc'))}")
        cells += [interval(paired(known, stream, title, peer, "roc_auc")) for title in ours]
        yield "| " + " | ".join(cells) + " |"


def write(lines: list[str], page: Path) -> None:
    """Put the table between its marks."""
    text = page.read_text()
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    page.write_text("\n".join([before + MARKS[0], *lines, MARKS[1] + after]))


def seeds_of(text: str) -> range:
    """``301-305``, or one."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Measure what is asked for, then print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--seeds", type=seeds_of, default=range(0))
    parser.add_argument("--only", default=",".join(streams.STREAMS | streams.JUDGED))
    parser.add_argument("--skip", default="")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    use_one_thread()
    skip = [word for word in given.skip.split(",") if word]
    known = read(given.figures)
    with TemporaryDirectory() as scratch, given.figures.open("a") as kept:
        for seed, stream in product(given.seeds, given.only.split(",")):
            for result in measure(stream, seed, known, Path(scratch), skip):
                line = Line(stream, seed, result.title, result.figures)
                known[stream, seed, result.title] = line
                print(json.dumps(asdict(line)), file=kept, flush=True)
    lines = list(table(known))
    if given.write is None:
        print("\n".join(lines))
    else:
        write(lines, given.write)


if __name__ == "__main__":
    main()
