"""What a program may say of its module: what goes before it, what it takes, how it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from selfheal_cli import SelfHealing
from selfheal_cli.api.intake import Intake
from selfheal_cli.errors import (
    ConfigurationError,
    DataError,
    ModelError,
    OptionError,
    UnknownClass,
)
from tests.cli.test_preprocess import FRAME, before
from tests.model.instances import doubled, small_network


class Wide(nn.Module):
    """Takes numbers and a token, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = nn.Embedding(3, 2)
        self.last = nn.Linear(4, 1)

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.cat([x_num, self.jobs(x_cat[:, 0])], dim=1))
        return logits


def numbers(count: int = 200) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    drawn = np.random.default_rng(3)
    frame = pd.DataFrame(drawn.standard_normal((count, 2)), columns=["age", "amount"])
    frame.insert(0, "job", drawn.integers(0, 3, count))
    return frame, (frame["age"] > 0).to_numpy().astype(int)


def own(module: nn.Module, *inputs: Tensor) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        probabilities: np.ndarray[Any, Any] = torch.sigmoid(module(*inputs)).squeeze(-1).numpy()
    return probabilities


def test_a_module_that_ends_in_log_softmax_is_healed_by_the_recipe_that_fits(
    workdir: Path,
) -> None:
    x, y = numbers()
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.LogSoftmax(1))
    with SelfHealing(module, x.to_numpy(np.float32), y, name="three", mode="sync") as model:
        own = torch.exp(module(torch.from_numpy(x.to_numpy(np.float32)))).detach()
        np.testing.assert_allclose(model.predict(x.to_numpy()), own, atol=1e-6)
    with pytest.raises(ConfigurationError, match="anchored"):
        SelfHealing(module, x.to_numpy(np.float32), y, name="other", recipe="anchored", mode="sync")


class Trainer:
    """As pytorch-tabnet's: scikit-learn's habits around a network."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def fit(self, x: Any, y: Any) -> None:
        """Nothing more to learn."""

    def get_params(self) -> dict[str, Any]:
        """None."""
        return {}


def test_an_object_of_scikit_learns_habits_that_holds_a_network_is_that_network(
    workdir: Path,
) -> None:
    x, y = numbers()
    rows = x.to_numpy(np.float32)
    module = small_network(inputs=3)
    with SelfHealing(Trainer(module), rows, y, name="t", gives="logits", mode="sync") as model:
        assert np.array_equal(model.predict(rows), own(module, torch.from_numpy(rows)))


def test_what_holds_no_module_is_told_what_is_taken(workdir: Path) -> None:
    x, y = numbers()
    with pytest.raises(ModelError, match="CatBoost's, and what MLflow has"):
        SelfHealing(object(), x, y, name="object")


def test_a_pipeline_before_a_module_takes_the_table_and_is_kept_with_it(workdir: Path) -> None:
    x, y = FRAME.drop(columns="y"), FRAME["y"].to_numpy()
    module, fitted = small_network(inputs=8), before().fit(x)
    with SelfHealing(
        module, x[:400], y[:400], name="credit", preprocess=fitted, gives="logits", mode="sync"
    ) as model:
        inputs = torch.from_numpy(np.asarray(fitted.transform(x)).astype(np.float32))
        assert np.array_equal(model.predict(x), own(module, inputs))
        model.observe(x[400:], y[400:])
    again = SelfHealing.load("credit")
    assert again.predict(x).shape == (len(x),)
    again.close()


def test_columns_go_to_the_inputs_that_are_named_whatever_their_order(workdir: Path) -> None:
    frame, y = numbers()
    module = Wide()
    asked = ["x_num=age,amount", "x_cat=tokens:job"]
    with SelfHealing(
        module, frame, y, name="wide", inputs=asked, gives="logits", mode="sync"
    ) as model:
        x = torch.from_numpy(frame[["age", "amount"]].to_numpy().astype(np.float32))
        theirs = own(module, x, torch.tensor(frame[["job"]].to_numpy()))
        assert np.array_equal(model.predict(frame), theirs)
        assert np.array_equal(model.predict(frame[["amount", "job", "age"]]), theirs)
    with pytest.raises(DataError, match=r"in the order age, amount, job: give x as a table"):
        SelfHealing(
            module, frame.to_numpy(), y, name="w2", columns=list(frame), inputs=asked,
        )  # fmt: skip
    with pytest.raises(OptionError, match="--input age"):
        SelfHealing(module, frame, y, name="w2", inputs=["age"])


def test_a_module_that_has_hooks_is_made_again_by_its_factory(workdir: Path) -> None:
    frame, y = numbers()
    x = frame.to_numpy().astype(np.float32)
    module = doubled(3)
    with pytest.raises(ModelError, match="has a hook"):
        SelfHealing(module, x, y, name="hooked", gives="logits")
    with pytest.raises(ModelError, match="makes another model"):
        SelfHealing(module, x, y, name="hooked", gives="logits", factory=small_network)
    with SelfHealing(
        module,
        x,
        y,
        name="hooked",
        gives="logits",
        factory=doubled,
        init={"inputs": 3},
        mode="sync",
    ) as model:
        assert np.array_equal(model.predict(x), own(module, torch.from_numpy(x)))


def test_what_is_for_modules_alone_is_refused_of_another_model(workdir: Path) -> None:
    frame, y = numbers()
    fitted = LogisticRegression().fit(frame, y)
    for said in ({"at": "0"}, {"gives": "logits"}, {"inputs": ["3"]}, {"preprocess": before()}):
        with pytest.raises(ModelError, match=rf"{next(iter(said))}= is for torch modules"):
            SelfHealing(fitted, frame, y, name="credit", **said)
    with pytest.raises(ConfigurationError):
        SelfHealing(fitted, frame, y, name="credit", recipe="none")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"policy": {"publish": 1}}, "policy: unknown key 'publish'"),
        ({"policy": 3}, "a selfheal_cli.Policy is needed, given: 3"),
        ({"columns": ["job", "age", "age"]}, "columns: 'age' is there twice"),
        ({"keep_rows": 0}, "keep_rows = 0: .*rows from 1"),
        ({"max_wait": float("nan")}, "max_wait = nan"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name_before_anything_is_registered(
    workdir: Path, said: dict[str, Any], message: str
) -> None:
    x, y = numbers()
    with pytest.raises((ConfigurationError, DataError), match=message):
        SelfHealing(nn.Linear(3, 1), x.to_numpy(np.float32), y, name="odd", **said)
    assert not Path("mlruns").exists()
    with pytest.raises(ModelError, match="Linear is a class: make a model of it"):
        SelfHealing(nn.Linear, x.to_numpy(np.float32), y, name="odd")


def test_ids_and_classes_that_are_none_are_refused_whatever_their_size() -> None:
    intake = Intake(("a",), (1,), ("good", "bad"))
    with pytest.raises(DataError, match="ids: None names no row"):
        intake.ids([None, "b"], 2)
    with pytest.raises(DataError, match="ids: nan names no row"):
        intake.ids([float("nan")], 1)
    for given in (10**30, True + 1, 0.5):
        with pytest.raises(UnknownClass, match="given: "):
            intake.classes(np.array(["bad", given], dtype=object), 2)
    assert intake.classes(["bad", None, 0, True], 4).tolist() == [1, -1, 0, 1]
    with pytest.raises(DataError, match=r"row: .*rows of numbers are needed"):
        intake.rows({"a": "dear"}, "row")
