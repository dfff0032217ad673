"""selfheal in a service of one's own: wrapped, shown a drift, healed, rolled back."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from numpy.typing import NDArray
from threadpoolctl import threadpool_info
from torch import nn

import selfheal_cli
from selfheal_cli import SelfHealing
from selfheal_cli.errors import (
    Closed,
    ConfigurationError,
    DataError,
    MissingColumn,
    ModelError,
    NoRows,
    RepeatedId,
    SelfhealError,
    UnknownClass,
    WrongShape,
)
from selfheal_cli.records import Phase
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke
from tests.model.oddities import Exponential

pytestmark = pytest.mark.usefixtures("forked_worker")
Array = NDArray[np.float32]


def rows_of(count: int, seed: int, moved: float = 0.0) -> tuple[Array, NDArray[np.int64]]:
    """Two classes that a line tells apart, moved sideways by ``moved``."""
    drawn = np.random.default_rng(seed)
    x = drawn.standard_normal((count, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0.5).astype(np.int64)
    x[:, 0] += np.float32(moved)
    return x, y


def threads_of_this_process() -> dict[str, int]:
    """By library."""
    pools = {one["filepath"]: one["num_threads"] for one in threadpool_info()}
    return {**pools, "torch": torch.get_num_threads()}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    x, y = rows_of(2_000, 0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        logits = network(torch.from_numpy(x)).squeeze(-1)
        nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y).float()).backward()
        optimiser.step()
    return network


def test_a_module_heals_from_what_it_is_shown_and_is_rolled_back(
    workdir: Path, module: nn.Module, invoke: Invoke
) -> None:
    clean, drifted, later = rows_of(1_000, 1), rows_of(1_500, 2, 2.0), rows_of(1_000, 3, 2.0)
    with torch.inference_mode():
        original = torch.sigmoid(module(torch.from_numpy(later[0]))).squeeze(-1).numpy()
    with SelfHealing(module, *clean, name="credit") as model:
        assert np.array_equal(model.predict(later[0]), original)
        for at in range(0, 1_500, 50):
            part = slice(at, at + 50)
            assert model.observe(drifted[0][part], drifted[1][part])
        assert model.observe(later[0][:30])  # nobody knows these labels yet
    healed = model.predict(later[0])
    before, after = (float(((p >= 0.5) == later[1]).mean()) for p in (original, healed))
    assert after > before + 0.1
    assert model.finished is not None
    assert len(model.finished.view.rows) == 16
    number = model.rollback("to show that it can be done", to="previous")
    registry = MlflowRegistry()
    assert registry.alias("credit", "champion") == number
    assert standing(registry, "credit").moves["champion"].reason == "to show that it can be done"
    entries = len(list(registry.entries("credit")))
    assert model.rollback("again", to=number) == number  # it serves already
    assert len(list(registry.entries("credit"))) == entries
    invoke("audit", "--model-name", "credit")
    said = invoke("audit", "--replay", "3", "--model-name", "credit", expect=3).stderr
    assert "came from a program" in said


def test_a_service_that_is_begun_again_goes_on_from_the_champion_that_was_healed(
    workdir: Path, module: nn.Module
) -> None:
    clean, drifted, later = rows_of(1_000, 1), rows_of(1_000, 2, 2.0), rows_of(300, 3, 2.0)
    registry = MlflowRegistry()
    with SelfHealing(module, *clean, name="credit", mode="sync") as model:
        model.observe(*drifted)
    healed, champion = model.predict(later[0]), registry.alias("credit", "champion")
    wrapped = registry.alias("credit", "wrapped")
    versions = len(registry.versions("credit"))
    with SelfHealing(module, *clean, name="credit", mode="sync") as again:
        pass
    assert np.array_equal(again.predict(later[0]), healed)
    assert registry.alias("credit", "champion") == champion
    assert registry.alias("credit", "wrapped") == wrapped
    assert len(registry.versions("credit")) == versions  # no other baseline

    rows, labels = rows_of(1_000, 4)
    with SelfHealing(module, rows, labels, name="credit", mode="sync"):
        pass  # other rows say what is normal: another base, which begins anew
    assert registry.alias("credit", "champion") != champion


def test_many_threads_predict_and_observe_and_no_row_is_lost(
    workdir: Path, module: nn.Module
) -> None:
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        x, y = rows_of(300, seed, 1.0)
        try:
            for at in range(0, 300, 30):
                assert model.predict(x[at : at + 30]).shape == (30,)
                assert model.observe(x[at : at + 30], y[at : at + 30])
        except BaseException as exc:
            failed.append(exc)

    with SelfHealing(module, *rows_of(500, 1), name="many", batch_size=64) as model:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert model.finished is not None
    assert sum(row.rows for row in model.finished.view.rows.values()) == 1_200


def test_what_does_not_fit_is_said_at_once(workdir: Path, module: nn.Module) -> None:
    x, y = rows_of(500, 1)
    with SelfHealing(module, x, y, name="strict") as model:
        with pytest.raises(WrongShape, match=r"x: rows have shape \(3,\), the model takes \(4,\)"):
            model.predict(x[:, :3])
        with pytest.raises(UnknownClass, match=r"labels: .*classes from 0 to 1, -1 where unknown"):
            model.observe(x[:2], [0, 2])
        with pytest.raises(WrongShape, match=r"labels: labels have shape \(3,\)"):
            model.observe(x[:2], [0, 1, 1])
        with pytest.raises(RepeatedId, match="ids: 'a' stands for two rows"):
            model.score(x[:2], ids=["a", "a"])
        with pytest.raises(WrongShape, match="ids: 1 are given for 2 rows"):
            model.score(x[:2], ids=["a"])
        with pytest.raises(MissingColumn, match="row: no column 'x3'"):
            model.predict_one({"x0": 1, "x1": 2, "x2": 3})
        with pytest.raises(UnknownClass, match=r"y: .*'maybe'"):
            model.label(["a"], ["maybe"])
    with pytest.raises(Closed, match="'strict' is closed"):
        model.observe(x[:2])
    with pytest.raises(Closed, match="'strict' is closed"):
        model.score(x[:2], ids=[1, 2])
    assert model.predict(x[:2]).shape == (2,)
    with pytest.raises(NoRows, match="x: no rows"):
        SelfHealing(module, x[:0], y[:0], name="strict")
    with pytest.raises(DataError, match="y: is of one class"):
        SelfHealing(module, x, y * 0, name="strict")


def test_labels_come_later_by_ids_and_a_restart_goes_on_without_the_module(
    workdir: Path, module: nn.Module, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    (x, y), names = rows_of(600, 2, 2.0), ["age", "amount", "rate", "days"]
    clean, words = rows_of(1_000, 1), ["good", "bad"]
    threads = threads_of_this_process()
    ids = [f"payment-{place}" for place in range(600)]
    with SelfHealing(module, *clean, name="late", labels=words, columns=names) as model:
        for at in range(0, 600, 100):
            part = slice(at, at + 100)
            assert np.array_equal(model.score(x[part], ids=ids[part]), model.predict(x[part]))
        told = model.label(ids[:400], [words[one] for one in y[:400]])
        assert (told.joined, told.repeated, told.unknown) == (400, 0, ())
        assert model.predict_one(dict(zip(names, x[0], strict=True))) == model.predict(x[:1])[0]
        assert model.predict_proba(x[:3]).shape == (3, 2)
    healed = model.predict(x)
    state = model.close().state
    assert (state.rows, state.labels, state.waiting, state.error) == (600, 400, 0, "")
    assert state.heals["healed"] >= 1
    assert state.lift is not None
    assert state.lift.rows == 400
    assert "accuracy" in repr(state)
    assert "<table>" in state._repr_html_()
    assert "<iframe" in model.report()._repr_html_()

    with selfheal_cli.load("late") as again:
        assert np.array_equal(again.predict(x), healed)
        told = again.label([*ids[350:], "nobody"], [*(1 - y[350:]), 1])
        assert (told.joined, told.repeated, told.unknown) == (200, 50, ("nobody",))
        assert told.contradicting == 50
        again.score(x[:100], ids=range(100))
    after = again.close().state
    assert (after.rows, after.labels) == (100, 200)  # no row was gone through again
    assert len(MlflowRegistry().versions("late", phase=Phase.BASELINE)) == 2
    plan = again.rollback(to="previous", plan=True)
    assert plan.target.version != MlflowRegistry().alias("late", "champion")
    assert capfd.readouterr() == ("", "")
    assert threads.items() <= threads_of_this_process().items()
    invoke("audit", "--model", "late")


def test_what_ends_the_run_in_the_background_is_told_by_the_next_call(
    workdir: Path, module: nn.Module
) -> None:
    x, y = rows_of(500, 1)
    model = SelfHealing(module, x, y, name="broken", rules=("nowhere > 1 => 1",))
    with pytest.raises(SelfhealError, match="nowhere"):
        model.close()
    with pytest.raises(SelfhealError, match="nowhere"):
        model.observe(x[:2])
    assert MlflowClient().get_model_version_by_alias("broken", "champion").version == 1


def test_the_lines_of_the_readme_do_what_they_say(workdir: Path, module: nn.Module) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    stream, y = rows_of(1_000, 4, 2.0)
    x_train, y_train = rows_of(1_000, 1)
    # the rollback of the last line needs a heal that came before it
    with SelfHealing(module, x_train, y_train, name="credit") as model:
        model.observe(stream, y)
    given = {"module": module, "x_train": x_train, "y_train": y_train, "rows": stream, "labels": y}
    code = lines.replace("    model.rollback", "    model.close()\n    model.rollback")
    exec(compile(code, "README.md", "exec"), given)  # noqa: S102 (the README's own lines)
    assert given["probabilities"].shape == (1_000,)


def test_tables_are_taken_by_the_names_of_their_columns_in_whatever_order(
    workdir: Path, module: nn.Module
) -> None:
    x, y = rows_of(500, 1)
    names = ["age", "amount", "rate", "days"]
    table = pd.DataFrame(x, columns=names)
    turned = table[["rate", "days", "age", "amount"]].assign(extra="text")
    with SelfHealing(module, table, y, name="named") as model:
        expected = model.predict(x)
        assert np.array_equal(model.predict(table), expected)
        assert np.array_equal(model.predict(turned), expected)
        assert np.array_equal(model.predict(torch.tensor(x, requires_grad=True)), expected)
        assert np.array_equal(model.predict(pd.DataFrame(x)), expected)  # its columns are counted
        assert model.predict(x[:0]).shape == (0,)
        assert model.observe(turned[:60], y[:60])
        with pytest.raises(DataError, match="no column 'age'; the model takes age, amount"):
            model.predict(table.rename(columns={"age": "Age"}))
        with pytest.raises(DataError, match="two columns 'age'"):
            model.observe(pd.concat([table, table[["age"]]], axis=1))
        with pytest.raises(DataError, match="numbers"):
            model.predict(table.assign(age="old"))
        with pytest.raises(DataError, match="a value is missing"):
            model.observe(table.astype({"days": "Float64"}).assign(days=pd.NA))
    described = MlflowRegistry().base(MlflowRegistry().version("named", 1).base).describe()
    assert [one["name"] for one in described["encoding"]["columns"]] == names


def test_a_row_that_the_module_overflows_on_ends_nothing(workdir: Path) -> None:
    torch.manual_seed(0)
    x, y = rows_of(500, 1)
    with SelfHealing(Exponential(), x, y, name="overflow", batch_size=50) as model:
        wild = x[:50].copy()
        wild[7] = 1e4
        assert model.observe(wild, y[:50])
        assert model.observe(x[50:100], y[50:100])
        with pytest.raises(DataError, match="not a finite number"):
            model.observe(np.full((1, 4), 1e39), [1])
        assert model.observe(x[100:101])  # a last batch of one row
    assert model.finished is not None
    rows = [row.rows for row in model.finished.view.rows.values()]
    assert sum(rows) == 100


@pytest.mark.parametrize("name", ["prod/credit", "kredit-ö", ""])
def test_a_name_that_no_model_can_have_is_said_in_words(
    workdir: Path, module: nn.Module, invoke: Invoke, name: str
) -> None:
    with pytest.raises(ConfigurationError, match="model_name"):
        SelfHealing(module, *rows_of(500, 1), name=name)
    Path("w.safetensors").touch()
    arguments = ("--from", "torch.nn:Linear", "--weights", "w.safetensors", "--as", name)
    said = invoke("wrap", *arguments, expect=3).stderr
    assert f"the name '{name}': model_name" in said
    assert "pydantic" not in said


def test_what_is_no_module_of_pytorch_is_refused(workdir: Path) -> None:
    with pytest.raises(ModelError, match=r"a dict is no torch.nn.Module"):
        SelfHealing({}, *rows_of(500, 1), name="odd")  # type: ignore[arg-type]
    x, y = rows_of(500, 1)
    x[0, 0] = np.nan
    with pytest.raises(ModelError, match=r"a SimpleNamespace is no torch.nn.Module"):
        SelfHealing(SimpleNamespace(), x, y, name="odd")  # type: ignore[arg-type]
    keras = type("Sequential", (nn.Sequential,), {"__module__": "keras.src.models"})
    with pytest.raises(ModelError, match=r"a Sequential of Keras .* not taken"):
        SelfHealing(keras(nn.Linear(4, 1)), *rows_of(500, 1), name="odd")
