"""``segments.heal``: an adapter for each segment, in one version that any MLflow client scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from selfheal_cli.events.archive import LOG_NAME, is_running, run_folder
from selfheal_cli.events.log import EventLog, read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.pipeline.offline import segment_versions
from selfheal_cli.pipeline.runs.one_version import register
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.http.invocations import quick_answer
from selfheal_cli.serve.http.model import load_champion
from selfheal_cli.workspace import WORKSPACE
from tests.conftest import Invoke

SHOPS = ("s0", "s1", "s2")
SHARED = (
    "--target", "y", "--drop", "shop", "--segment-by", "shop", "--set", "segments.heal=true",
    "--set", "policy.publish_change=0", "--model", "shops", "--no-plots",
    "--recipe", "anchored", "--set", "network.epochs=1",
)  # fmt: skip


def table(rows: int = 2_400) -> pd.DataFrame:
    """Three shops; where the stream begins s1 goes the other way round. A tenth has no shop."""
    draw = np.random.default_rng(3)
    x = draw.standard_normal((rows, 2))
    shop = draw.choice(np.array(SHOPS, dtype=object), rows)
    turned = (shop == "s1") & (np.arange(rows) >= rows / 4)
    y = np.where(turned, -1, 1) * x[:, 0] + 0.5 * draw.standard_normal(rows) > 0
    shop[::10] = None
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "shop": shop, "y": y.astype(int)})


def config_of(version: VersionRecord) -> dict[str, Any]:
    """What a server that is begun now heals a version by."""
    log = next(read(run_folder(version.run_id, WORKSPACE) / LOG_NAME))
    assert isinstance(log, RunStarted)
    return dict(log.config)


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a run that puts a segment back lives, to a healer that begins meanwhile."""
    told: list[bool] = []

    def registering(made: Any, lineage: Any, log: EventLog, around: Any) -> int:
        told.append(is_running(log.path.parent))
        return register(made, lineage, log, around)

    monkeypatch.setattr(segment_versions, "register", registering)
    return told


@pytest.mark.slow
def test_one_version_holds_all_segments_and_scores_as_the_run_does(
    workdir: Path, invoke: Invoke, lives: list[bool]
) -> None:
    rows = table()
    rows.to_csv("rows.csv", index=False)
    told = json.loads(
        invoke("run", "rows.csv", *SHARED, "--batch-size", "200", "--batches", "8", "--json").stdout
    )
    assert told["results"]
    rows.tail(300).to_csv("new.csv", index=False)
    invoke("score", "new.csv", "out.csv", "--model", "shops", "--keep", "shop")
    scored = pd.read_csv("out.csv")
    model = mlflow.pyfunc.load_model("models:/shops@champion")
    named = model.metadata.get_input_schema().input_names()  # type: ignore[no-untyped-call]
    assert named == ["a", "b", "shop"]
    given = rows.tail(300).drop(columns="y")
    answers = model.predict(given)
    assert (answers == scored["score"].astype("float32")).all()
    nowhere = model.predict(given.assign(shop="nowhere"))
    assert (nowhere == model.predict(given.assign(shop=None))).all()
    unkeyed = given["shop"].isna().to_numpy()
    assert (nowhere[unkeyed] == answers[unkeyed]).all()
    # a server answers the same, and keeps the column though it is no feature
    records = given.astype(object).where(given.notna(), None).to_dict(orient="records")
    body = json.dumps({"dataframe_records": records}).encode()
    asked = quick_answer(
        load_champion(MlflowRegistry(), "shops"), body, "application/json", None, 1_000
    )
    assert asked is not None
    assert asked.scored is not None
    assert (np.float32(json.loads(asked.text)["predictions"]) == answers).all()
    assert asked.scored.columns["shop"].tolist() == [row["shop"] for row in records]
    # s1 goes the other way round, and nobody else
    right = (answers > 0.5) == rows.tail(300)["y"]
    assert right[given["shop"] == "s1"].mean() > 0.7
    assert right[given["shop"] == "s0"].mean() > 0.7
    assert ((nowhere > 0.5) == rows.tail(300)["y"])[given["shop"] == "s1"].mean() < 0.5
    # back to what s1 had before, and nobody else is another
    dry = invoke("rollback", "--model", "shops", "--segment", "s1", "--to", "1", "--dry-run")
    assert "a new version would have segment 's1' as in v1, all else as in v" in dry.output
    back = ("rollback", "--model", "shops", "--segment", "s1", "--to", "1", "--yes")
    planned = json.loads(invoke(*back[:-1], "--dry-run", "--json").stdout)
    assert (planned["segment"], planned["adapter_of"], planned["move"]) == ("s1", 1, None)
    assert "champion of 'shops' moved from" in invoke(*back).output
    assert lives == [True]
    registry = MlflowRegistry()
    champion = registry.alias("shops", "champion")
    assert champion is not None
    restored = mlflow.pyfunc.load_model("models:/shops@champion").predict(given)
    turned = (given["shop"] == "s1").to_numpy()
    assert (restored[~turned] == answers[~turned]).all()
    assert (restored[turned] == nowhere[turned]).all()
    healed_by = [config_of(registry.version("shops", one)) for one in (1, champion)]
    assert healed_by[0] == healed_by[1]  # a server that is begun now heals as before
    assert healed_by[0]["segments"]["by"] == "shop"
    assert "alias-moved" in invoke("history", "--model", "shops", "--segment", "s1").output
    assert "Everything holds." in invoke("audit", "--model", "shops").output
    again = invoke(*back, expect=5).stderr
    assert "segment 's1' has no adapter of its own in shops v1 and in" in again


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("--segment-by", "shop", "--recipe", "article"), "recipe 'article' heals without a gate"),
        (("--segment-by", "shop", "--labels", "delayed:2", "--set",
          "heal.assume=inputs-shifted"), "heals without labels, and segments learn from labels"),
        ((), "no column says which segment a row is of; give --segment-by COLUMN"),
    ],
)  # fmt: skip
def test_segments_that_cannot_be_healed_are_refused_in_one_line(
    workdir: Path, invoke: Invoke, given: tuple[str, ...], what: str
) -> None:
    table(600).to_csv("rows.csv", index=False)
    said = invoke("run", "rows.csv", "--target", "y", "--no-plots", "--set", "segments.heal=true",
                  *given, expect=3)  # fmt: skip
    assert what in " ".join(said.stderr.split())
