"""What other people's outputs are read as: the same through the registered version, or refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import infer_signature
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_info

from selfheal_cli.errors import ModelError
from selfheal_cli.model.answer import LastLayer, read_answer
from tests.conftest import Invoke
from tests.model.heads import Head, trained

ROWS = np.random.default_rng(3).standard_normal((300, 4)).astype(np.float32)
NAMES = ["a", "b", "c", "d"]
AS_LOGITS = {  # what its callers do with such an output
    "one logit": torch.sigmoid,
    "a flat logit": torch.sigmoid,
    "two logits": lambda z: torch.softmax(z, dim=1)[:, 1],
    "five logits": lambda z: torch.softmax(z, dim=1),
    "five logits over a temperature": lambda z: torch.softmax(z, dim=1),
    "one logit over a temperature": torch.sigmoid,
    "log_softmax of two": lambda z: torch.softmax(z, dim=1)[:, 1],
    "log_softmax of five": lambda z: torch.softmax(z, dim=1),
    "a dict": torch.sigmoid,
}
AS_PROBABILITIES = {
    "sigmoid": lambda p: p,
    "softmax of two": lambda p: p[:, 1],
    "softmax of five": lambda p: p,
    "the second of a softmax": lambda p: p,
    "both sides of a sigmoid": lambda p: p[:, 1],
}
NO_LOGITS = {  # probabilities that no sigmoid or softmax of a linear layer gives
    "calibrated sigmoid": lambda p: p,
    "calibrated softmax": lambda p: p,
    "smoothed sigmoid": lambda p: p,
    "hardsigmoid": lambda p: p,
}
REFUSED = {
    "tanh": "squashed by its last step",
    "three tanh": "squashed by its last step",
    "logsigmoid": "all on one side of 0",
    "softplus": "all on one side of 0",
    "three log-sigmoids": "all on one side of 0",
    "three sigmoids": "3 outputs each between 0 and 1 that do not sum to 1",
    "two sigmoids": "multi-label is not supported",
    "prices": "too large for logits; regression",
    "a tuple": "gives a tuple with 0 (n, 1), 1 (n, 1); say which is one answer a row with --gives",
    "an answer a token": "per-token labels are not supported",
    "one for all": "one answer a row is needed",
    "labels": "torch.int64; logits or probabilities are needed",
    "always the same": "the same (-0) for all 300 rows",
    "the logarithm of a sum": "no finite number",
}


def wrapping(kind: str, *, bare: bool = False) -> tuple[str, ...]:
    """What wraps a head that was stored here, with rows beside it."""
    save_file(trained(kind, bare=bare).state_dict(), "head.safetensors")
    if not Path("rows.csv").exists():
        pd.DataFrame(ROWS, columns=NAMES).to_csv("rows.csv", index=False)
    init = f'{{"kind": "{kind}"{", " + chr(34) + "bare" + chr(34) + ": true" if bare else ""}}}'
    return ("wrap", "--from", "tests.model.heads:Head", "--init", init, "--weights",
            "head.safetensors", "--data", "rows.csv", "--as", "head")  # fmt: skip


def stored(kind: str, *, bare: bool) -> Head:
    """The very weights: drawn once more they may be rounded otherwise."""
    head = Head(kind, bare=bare)
    head.load_state_dict(load_file("head.safetensors"))
    return head.eval().requires_grad_(requires_grad=False)


def given(kind: str, *, bare: bool = False) -> torch.Tensor:
    """What the model's own caller sees."""
    rows = np.ascontiguousarray(pd.read_csv("rows.csv").to_numpy(dtype=np.float32))
    with torch.inference_mode():
        output = stored(kind, bare=bare)(torch.from_numpy(rows))
    return output["logits"] if isinstance(output, dict) else output


@pytest.mark.parametrize("kind", [*AS_LOGITS, *AS_PROBABILITIES])
def test_a_registered_version_gives_what_callers_read_in_the_original_bit_for_bit(
    workdir: Path, invoke: Invoke, kind: str
) -> None:
    said = invoke(*wrapping(kind)).stdout
    read: Any = {**AS_LOGITS, **AS_PROBABILITIES}[kind]
    assert f"read as {'logits' if kind in AS_LOGITS else 'probabilities'}" in said
    expected = read(given(kind)).numpy()
    version = mlflow.pyfunc.load_model("models:/head@champion")
    frame = pd.read_csv("rows.csv")
    served = np.asarray(version.predict(frame))
    assert np.array_equal(served, expected.reshape(served.shape))
    alone = np.asarray(version.predict(frame[:1]))  # batch norm is in evaluation mode everywhere
    np.testing.assert_allclose(alone, served[:1], atol=1e-6)


@pytest.mark.parametrize("kind", NO_LOGITS)
def test_probabilities_without_logits_are_kept_as_they_are_also_at_0_and_1(
    workdir: Path, invoke: Invoke, kind: str
) -> None:
    said = invoke(*wrapping(kind)).stdout
    assert "after the model's output" in said
    assert "read as probabilities" in said
    expected = NO_LOGITS[kind](given(kind)).numpy()
    version = mlflow.pyfunc.load_model("models:/head@champion")
    served = np.asarray(version.predict(pd.read_csv("rows.csv")))
    np.testing.assert_allclose(served.reshape(expected.shape), expected, atol=1e-6)


def test_every_head_that_cannot_be_kept_is_refused_with_what_was_seen(
    workdir: Path, invoke: Invoke
) -> None:
    for kind, seen in REFUSED.items():
        said = invoke(*wrapping(kind), expect=3).stderr
        assert seen in said, said
        assert said.count("\n") == 1
    from mlflow import MlflowClient

    assert not MlflowClient().search_registered_models()


@pytest.mark.parametrize("at", ["auto", "body.0"])
def test_a_head_without_a_layer_of_its_own_is_never_taken_for_the_layer_before_it(
    workdir: Path, invoke: Invoke, at: str
) -> None:
    invoke(*wrapping("one logit", bare=True), "--at", at)
    version = mlflow.pyfunc.load_model("models:/head@champion")
    served = np.asarray(version.predict(pd.read_csv("rows.csv")))
    assert np.array_equal(served, torch.sigmoid(given("one logit", bare=True)).numpy()[:, 0])
    said = invoke(*wrapping("sigmoid", bare=True), "--at", "body.0", expect=3).stderr
    assert "no linear layer of its own" in said


def test_loading_a_version_leaves_threads_and_path_of_the_process_alone(
    workdir: Path, invoke: Invoke
) -> None:
    invoke(*wrapping("one logit"))
    before = (list(sys.path), torch.get_num_threads())
    torch.set_num_threads(2)
    try:
        blas = [one["num_threads"] for one in threadpool_info()]
        mlflow.pyfunc.load_model("models:/head@champion").predict(pd.read_csv("rows.csv"))
        assert torch.get_num_threads() == 2
        assert [one["num_threads"] for one in threadpool_info()] == blas
        added = set(sys.path) - set(before[0])
        assert all("/artifacts/code" in one for one in added)  # MLflow's own, of the version
    finally:
        torch.set_num_threads(before[1])


@pytest.mark.filterwarnings("ignore")
def test_columns_that_a_signature_names_are_found_in_any_order_or_missed(
    workdir: Path, invoke: Invoke
) -> None:
    wrapping("one logit")
    network = stored("one logit", bare=False)
    frame = pd.read_csv("rows.csv")
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            network, name="m", registered_model_name="camera", serialization_format="pickle",
            pip_requirements=["torch"],
            signature=infer_signature(frame, network(torch.tensor(ROWS)).numpy()),
        )  # fmt: skip
    wrap = ("wrap", "models:/camera/1", "--allow-pickle", "--as", "head")
    expected = torch.sigmoid(given("one logit")).numpy()[:, 0]
    turned = frame[["c", "a", "d", "b"]].assign(target=1)
    turned.to_csv("turned.csv", index=False)
    for data in ((), ("--data", "turned.csv")):
        told = json.loads(invoke(*wrap, *data, "--promote", "--json").stdout)
        assert told["inputs"] == NAMES
        served = mlflow.pyfunc.load_model("models:/head@champion").predict(turned)
        assert np.array_equal(np.asarray(served), expected)
    said = invoke(*wrap, "--data", "turned.csv", "--drop", "a", expect=3).stderr
    assert "no column 'a', which the model's signature names; it takes a, b, c, d" in said


def test_a_text_among_the_rows_is_named_with_its_column(workdir: Path, invoke: Invoke) -> None:
    arguments = wrapping("one logit")
    pd.read_csv("rows.csv").assign(b="AT").to_csv("rows.csv", index=False)
    said = invoke(*arguments, expect=3).stderr
    assert "'b'" in said
    assert "AT" in said
    pd.read_csv("rows.csv").to_parquet("rows.parquet")
    texts = [one.replace("rows.csv", "rows.parquet") for one in arguments]
    assert "'b'" in invoke(*texts, expect=3).stderr


def test_the_user_may_say_that_numbers_between_0_and_1_are_logits(
    workdir: Path, invoke: Invoke
) -> None:
    arguments = wrapping("clamp")
    assert "--gives logits if they are" in invoke(*arguments, "--at", "out", expect=3).stderr
    invoke(*arguments, "--gives", "logits")
    served = np.asarray(
        mlflow.pyfunc.load_model("models:/head@champion").predict(pd.read_csv("rows.csv"))
    )
    assert np.array_equal(served, torch.sigmoid(given("clamp")).numpy()[:, 0])
    said = invoke(*wrapping("one logit"), "--gives", "probabilities", expect=3).stderr
    assert "probabilities lie between 0 and 1" in said


def test_small_logits_on_a_scale_of_their_own_are_no_squashed_ones() -> None:
    z = torch.linspace(-4, 4, 50)[:, None] ** 3
    last = LastLayer("head", z)
    small = z / 66 + 0.01
    assert read_answer(small, 50, last=last).kind == "logits"
    for squashed in (torch.tanh(z), z.clamp(-1, 1), -small, z / 66 + 0.001 * torch.sin(z)):
        with pytest.raises(ModelError, match="behind layer 'head', which gives -64 to 64"):
            read_answer(squashed, 50, last=last)
    with pytest.raises(ModelError, match="by its last step; regression"):
        read_answer(small, 50)
