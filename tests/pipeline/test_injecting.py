"""A change that is put into a table is held against the same table without it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.config import MonitorSettings, RunConfig
from selfheal_cli.config_sources import TableSettings
from selfheal_cli.kinds import INJECTIONS, UNCHANGED
from selfheal_cli.pipeline.offline.injecting import GainInterval, Injection, inject
from selfheal_cli.pipeline.offline.injections import KINDS, Subject, subject_of
from selfheal_cli.pipeline.prepare.baseline import survey, train_networks
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.stream.memory import CountingLog, Replay
from selfheal_cli.settings.own_data import PUBLISHING
from selfheal_cli.sources.base import Source
from tests.conftest import Invoke, enter

ROWS, SIZE, DATES = 2_720, 50, 6
TOLD = ("label-noise", "missing", "swapped-columns")  # kinds of change


def quiet_table(rows: int = ROWS) -> pd.DataFrame:
    """Nothing moves: two columns that matter, one that does not."""
    draw = np.random.default_rng(7)
    a, b, c = draw.normal(size=(3, rows))
    label = np.where(draw.random(rows) < 1 / (1 + np.exp(-(2 * a - b))), "yes", "no")
    return pd.DataFrame({"a": a, "b": 10 + 3 * b, "c": c, "label": label})


@pytest.fixture(scope="module")
def tabled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, Source]]:
    """A table and how it is gone through; its networks are trained once."""
    path = tmp_path_factory.mktemp("injected") / "quiet.csv"
    quiet_table().to_csv(path, index=False)
    names = ("two-sample", "prediction-rate", "missing", "page-hinkley:on=errors")
    monitors = [MonitorSettings(name=n.split(":")[0], on=("errors",) if ":" in n else ())
                for n in names]  # fmt: skip
    config = RunConfig(
        source=TableSettings(path=path, target="label"), batch_size=SIZE, monitors=tuple(monitors),
        plots=False, drift_by="monitors", sensitive="auto",
    )  # fmt: skip
    heal = config.heal.model_copy(update={"recipe": "anchored", "better_by": "paired"})
    policy = config.policy.model_copy(update=PUBLISHING)
    config = config.model_copy(update={"heal": heal, "policy": policy})
    with pytest.MonkeyPatch.context() as patch:
        enter(path.parent, patch)
        yield config, open_source(config)


@pytest.fixture(scope="module")
def tried(tabled: tuple[RunConfig, Source]) -> Injection:
    return inject(*tabled, TOLD, DATES, lambda done: None)


def test_each_kind_is_tried_at_as_many_dates_as_asked_that_do_not_overlap(tried: Injection) -> None:
    assert [row.kind for row in tried.rows] == list(TOLD)
    for row in (*tried.rows, tried.beside):
        dates = [one.date for one in row.dates]
        assert len(dates) == DATES
        assert all(b - a >= tried.length for a, b in itertools.pairwise(dates))
        assert row.gain.low <= row.gain.mean <= row.gain.high


def test_without_a_change_nothing_is_noticed(tried: Injection) -> None:
    assert (tried.beside.kind, tried.beside.share, tried.beside.lag) == (UNCHANGED, 0.0, None)
    assert tried.untouched.batches == ceil(ROWS * 3 / 4 / SIZE)
    assert tried.untouched.per_thousand() == 0


def test_changes_are_noticed_by_who_can_see_them(tried: Injection) -> None:
    rows = {row.kind: row for row in tried.rows}
    assert rows["missing"].share == 1
    assert next(iter(rows["missing"].by)) == "missing"
    assert rows["swapped-columns"].share == 1
    assert rows["swapped-columns"].lag == 1
    assert set(rows["label-noise"].by) <= {"page-hinkley:errors"}


def test_healing_pays_where_the_relation_of_columns_and_label_is_another(tried: Injection) -> None:
    rows = {row.kind: row for row in tried.rows}
    assert rows["swapped-columns"].gain_beyond(tried.beside).mean > 0
    assert tried.beside.gain_beyond(tried.beside) == GainInterval(0.0, 0.0, 0.0)
    assert abs(tried.beside.gain.mean) < 0.03


def test_processes_and_other_kinds_beside_it_change_no_figure_of_a_kind(
    tabled: tuple[RunConfig, Source], tried: Injection
) -> None:
    alone = inject(*tabled, ["missing"], DATES, lambda done: None)
    assert alone.rows[0] == next(row for row in tried.rows if row.kind == "missing")
    assert alone.beside == tried.beside


def test_a_copied_session_goes_on_as_the_first_one(tabled: tuple[RunConfig, Source]) -> None:
    config, source = tabled
    prepared = survey(config, source, train_networks(config, source, lambda done, total: None))
    session = Replay(config, source, prepared)
    batches = [batch for batch, _ in zip(source.batches(), range(14), strict=False)]
    for batch in batches[:8]:
        session.step(batch)
    copied = session.copied(CountingLog())
    begun = session.counts()
    for batch in batches[8:]:
        session.step(batch)
    after = session.predict(batches[0].rows.x)
    for batch in batches[8:]:
        copied.step(batch)
    assert (copied.predict(batches[0].rows.x) == after).all()
    assert copied.counts()["batch"] == session.counts()["batch"] - begun["batch"] == 6


@pytest.fixture(scope="module")
def subject(tabled: tuple[RunConfig, Source]) -> Subject:
    config, source = tabled
    return subject_of(source, train_networks(config, source, lambda done, total: None))


@pytest.mark.parametrize("kind", [UNCHANGED, *INJECTIONS])
def test_a_change_does_what_its_name_says_and_no_more(
    kind: str, tabled: tuple[RunConfig, Source], subject: Subject
) -> None:
    pool = list(tabled[1].batches())[:40]
    before = pool[0].rows.y.copy()
    injected = KINDS[kind](subject, pool, np.random.default_rng(1))
    rows, was, used = injected.batch.rows, pool[0].rows, subject.used[0]
    assert len(rows) == len(injected.truth) == SIZE
    assert (tabled[1].encoding.encode(rows.columns) == rows.x).all()
    assert (was.y == before).all()
    same_columns = all((rows.columns[n] == was.columns[n]).all() for n in ("a", "b", "c"))
    assert same_columns == (kind in (UNCHANGED, "concept", "label-noise"))
    if kind == "concept":
        assert rows.y.sum() == was.y.sum()
        assert (rows.y != was.y).any()
    if kind == "label-noise":
        assert (injected.truth == was.y).all()
        assert 0 < (rows.y != was.y).mean() < 0.5
    if kind in ("units", "missing", "swapped-columns"):
        assert (rows.y == was.y).all()
    if kind == "covariate":
        assert rows.columns[used].mean() > was.columns[used].mean()
    if kind == "prior":
        assert rows.y.mean() > was.y.mean()


def test_labels_of_three_classes_come_as_either_of_the_others(
    tabled: tuple[RunConfig, Source], subject: Subject
) -> None:
    pool = [replace(one, rows=replace(one.rows, y=one.rows.y * 0)) for one in tabled[1].batches()]
    injected = KINDS["label-noise"](replace(subject, classes=3), pool, np.random.default_rng(1))
    assert set(injected.batch.rows.y.tolist()) == {0, 1, 2}
    assert not injected.truth.any()


def test_the_command_shows_a_table_of_80_columns_and_a_picture(
    tried: Injection, workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    quiet_table(2_400).to_csv("quiet.csv", index=False)
    asked = ("compare", "quiet.csv", "--target", "label", "--batch-size", "30")
    asked = (*asked, "--set", "network.epochs=1", "--set", "monitors=[{name: missing}]")
    asked = (*asked, "--recipes", "anchored", "--inject")
    result = invoke(*asked, "missing", "--output", "changes.png")
    assert max(map(len, result.stdout.splitlines()[:8])) <= 80
    assert "no change" in result.stdout
    assert "10 of 10" in result.stdout
    assert "in 1,000" in result.stdout
    assert "missing" in result.stderr
    assert Path("changes.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("selfheal_cli.pipeline.offline.injecting.inject", lambda *_: tried)
    document: dict[str, Any] = json.loads(invoke(*asked, "all", "--json").stdout)
    (missing,) = (one for one in document["kinds"] if one["kind"] == "missing")
    assert missing["share_found"] == 1
    assert len(missing["by_date"]) == missing["dates"] == DATES


def test_what_cannot_be_tried_is_refused_in_one_line(workdir: Path, invoke: Invoke) -> None:
    quiet_table(600).to_csv("quiet.csv", index=False)
    asked = ("compare", "quiet.csv", "--target", "label", "--inject")
    few = invoke(*asked, "missing", expect=3).stderr
    assert "10 dates need 60" in few
    assert few.count("\n") == 1
    assert ", ".join(INJECTIONS) in invoke(*asked, "flood", expect=2).stderr
    assert "give a file" in invoke("compare", "--inject", "all", expect=2).stderr
    two = invoke(*asked, "all", "--recipes", "anchored,gradient", expect=2).stderr
    assert "one recipe" in two
    assert "nobody is compared" in invoke(*asked, "all", "--seeds", "3", expect=2).stderr
    assert not Path("comparison.png").exists()
