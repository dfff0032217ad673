"""How good is the network that a run trains, on rows from the time that it was trained in?

    python benchmarks/baseline.py --data FOLDER --seeds 3

Of the training part (the first quarter) every fourth stretch of 50 rows is kept apart; the network
as it is trained by default, as it was trained before (20 epochs on all rows), scikit-learn's
logistic regression and its boosted trees learn from the rest and are judged on these. Without
FOLDER, where elec.csv and bank-full.csv lie, on the generated tables alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from selfheal_cli.config import NetworkSettings, TableSettings
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.selection import train_selected
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.pipeline.prepare.rows import open_rows
from selfheal_cli.records import Rows
from selfheal_cli.settings.resolve import VALIDATION
from selfheal_cli.sources.table import TableSource

STRETCH = 50
Judged = tuple[float, float, float]  # ROC AUC, log loss, seconds


def linear(rows: int = 8_000) -> pd.DataFrame:
    """30 columns of which a line is all there is to know."""
    draw = np.random.default_rng(7)
    x = draw.normal(size=(rows, 30))
    logit = x @ (0.3 * draw.normal(size=30)) - 0.5
    return _frame(x, draw.random(rows) < 1 / (1 + np.exp(-logit)))


def curved(rows: int = 24_000) -> pd.DataFrame:
    """20 columns, 8 of which tell, in six clusters; a line sees little of it."""
    x, y = make_classification(
        rows, 20, n_informative=8, n_redundant=4, n_clusters_per_class=3, weights=[0.8],
        flip_y=0.05, class_sep=0.8, random_state=7,
    )  # fmt: skip
    return _frame(x, y)


def payments(rows: int = 40_000) -> pd.DataFrame:
    """Payments of which 1 % are fraud: money, hours, a category, and a product of two columns."""
    draw = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "amount": draw.lognormal(3.5, 1.0, rows),
            "hour": draw.integers(0, 24, rows),
            "distance": draw.exponential(20, rows),
            "last_hour": draw.poisson(1.5, rows),
            "kind": draw.choice(list("abcdefgh"), rows),
            "secure": draw.integers(0, 2, rows),
        }
    )
    risk = dict(zip("abcdefgh", (0.0, 0.2, 0.8, -0.5, 1.2, 0.0, 0.3, -0.3), strict=True))
    logit = (
        -6.3 + 0.6 * (np.log(frame["amount"]) - 3.5) + 0.5 * (frame["hour"] < 6)
        + 0.02 * frame["distance"] + 0.35 * frame["last_hour"] - frame["secure"]
        + frame["kind"].map(risk) + 1.5 * ((frame["distance"] > 40) & (frame["last_hour"] > 2))
    )  # fmt: skip
    frame["y"] = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    return frame


def _frame(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(x, columns=[f"f{place}" for place in range(x.shape[1])])
    frame["y"] = np.asarray(y).astype(int)
    return frame


def tables(folder: Path | None, scratch: Path) -> Iterator[tuple[str, TableSettings]]:
    """By name, with what their target is."""
    if folder is not None:
        yield "elec", TableSettings(path=folder / "elec.csv", target="class")
        yield "bank", TableSettings(path=folder / "bank-full.csv", target="y")
    for make in (payments, linear, curved):
        path = scratch / f"{make.__name__}.csv"
        make().to_csv(path, index=False)
        yield make.__name__, TableSettings(path=path, target="y")


def parts(settings: TableSettings) -> tuple[Rows, Rows]:
    """The rows to learn from and those to be judged on, both of the training part."""
    source = TableSource(settings, open_rows(settings), batch_size=100, batches=None)
    blocks = list(source.training())
    x, y = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("x", "y"))
    apart = (np.arange(len(y)) // STRETCH) % 4 == 3
    return Rows(x[~apart], y[~apart], {}), Rows(x[apart], y[apart], {})


def network(settings: NetworkSettings, seed: int, learned: Rows, judged: Rows) -> Judged:
    """Trained as a run does it."""
    start = process_time()
    with seeded(seed):
        built = SelfHealingNetwork.build(Architecture(learned.x.shape[1], settings.hidden))
        rows = SpooledRows(iter([learned]))
        how = train_selected if settings.validation else train
        how(built, rows, settings, lambda: None)
    return _judge(built.predict(judged.x), judged, start)


def sklearn_model(make: Callable[[], object], learned: Rows, judged: Rows) -> Judged:
    """As it comes, on standardised inputs."""
    start = process_time()
    scale = StandardScaler().fit(learned.x)
    model = make().fit(scale.transform(learned.x), learned.y)  # type: ignore[attr-defined]
    return _judge(model.predict_proba(scale.transform(judged.x))[:, 1], judged, start)


def _judge(p: np.ndarray, judged: Rows, start: float) -> Judged:
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(roc_auc_score(judged.y, p)), float(log_loss(judged.y, p)), process_time() - start


def main() -> None:
    """Print a line a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="where elec.csv and bank-full.csv lie")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    use_one_thread()
    print("| table | rows | positives | logistic regression | boosted trees | network before "
          "| network now | seconds before, now |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    with TemporaryDirectory() as scratch, threadpool_limits(1):
        for name, settings in tables(given.data, Path(scratch)):
            learned, judged = parts(settings)
            line = sklearn_model(lambda: LogisticRegression(max_iter=1_000), learned, judged)
            trees = sklearn_model(
                lambda: HistGradientBoostingClassifier(random_state=0), learned, judged
            )
            before, now = (
                [network(kind, seed, learned, judged) for seed in range(given.seeds)]
                for kind in (NetworkSettings(), NetworkSettings(validation=VALIDATION))
            )
            cells = [_cell([line]), _cell([trees]), _cell(before), _cell(now)]
            seconds = [f"{fmean(one[2] for one in runs):.1f}" for runs in (before, now)]
            print(f"| {name} | {len(learned):,}, {len(judged):,} | {100 * judged.y.mean():.1f} % | "
                  f"{' | '.join(cells)} | {', '.join(seconds)} |", flush=True)  # fmt: skip


def _cell(runs: list[Judged]) -> str:
    """ROC AUC, the least of several, and log loss."""
    areas = [area for area, _, _ in runs]
    least = f" (least {min(areas):.4f})" if len(runs) > 1 else ""
    return f"{fmean(areas):.4f}{least}, {fmean(loss for _, loss, _ in runs):.4f}"


if __name__ == "__main__":
    main()
