"""What other people's outputs are read as: the same through the registered version, or refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

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
from selfheal_cli.model.checkpoint import assemble, make_base
from selfheal_cli.model.original import Original, take
from selfheal_cli.model.wrapping import put_in
from tests.conftest import Invoke
from tests.model.heads import Head, trained

Read = Callable[[torch.Tensor], torch.Tensor]
ROWS = np.random.default_rng(3).standard_normal((300, 4)).astype(np.float32)
NAMES = ["a", "b", "c", "d"]
AS_LOGITS: dict[str, Read] = {  # what its callers do with such an output
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
AS_PROBABILITIES: dict[str, Read] = {
    "sigmoid": lambda p: p,
    "softmax of two": lambda p: p[:, 1],
    "softmax of five": lambda p: p,
    "the second of a softmax": lambda p: p,
    "both sides of a sigmoid": lambda p: p[:, 1],
}
NO_LOGITS: dict[str, Read] = {  # probabilities that no sigmoid or softmax of a linear layer gives
    "calibrated sigmoid": lambda p: p,
    "calibrated softmax": lambda p: p,
    "smoothed sigmoid": lambda p: p,
    "hardsigmoid": lambda p: p,
}
READ = AS_LOGITS | AS_PROBABILITIES | NO_LOGITS
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


def wrapping(kind: str) -> tuple[str, ...]:
    """What wraps a head that was stored here, with rows beside it."""
    save_file(trained(kind).state_dict(), "head.safetensors")
    if not Path("rows.csv").exists():
        pd.DataFrame(ROWS, columns=NAMES).to_csv("rows.csv", index=False)
    return ("wrap", "--from", "tests.model.heads:Head", "--init", f'{{"kind": "{kind}"}}',
            "--weights", "head.safetensors", "--data", "rows.csv", "--as", "head")  # fmt: skip


def stored(kind: str) -> Head:
    """The very weights: drawn once more they may be rounded otherwise."""
    head = Head(kind)
    head.load_state_dict(load_file("head.safetensors"))
    return head.eval().requires_grad_(requires_grad=False)


def read_by_callers(head: Head) -> np.ndarray:
    """What the model's own callers make of what it gives."""
    with torch.inference_mode():
        output = head(torch.from_numpy(ROWS))
    if isinstance(output, dict):
        output = output["logits"]
    return READ[head.kind](output).numpy()


def taken(kind: str, *, bare: bool = False) -> tuple[Head, Original]:
    head = trained(kind, bare=bare)
    return head, take(head, ROWS, shape=(4,), init={"kind": kind, "bare": bare})


@pytest.mark.parametrize("kind", READ)
def test_a_version_gives_what_callers_read_in_the_original_bit_for_bit(kind: str) -> None:
    head, original = taken(kind)
    assert original.answer.kind == ("logits" if kind in AS_LOGITS else "probabilities")
    network = put_in(original)
    stored = assemble(make_base(network, {}, {}), network.adapter.state_dict(), where="v1")
    expected = read_by_callers(head)
    for one in (network, stored):
        given = one.predict(ROWS)
        np.testing.assert_allclose(given, expected.reshape(given.shape), atol=1e-6)
        if kind not in NO_LOGITS:
            assert np.array_equal(given, expected.reshape(given.shape))
        alone = one.predict(ROWS[:1])  # batch norm is in evaluation mode everywhere
        np.testing.assert_allclose(alone, given[:1], atol=1e-6)
    at = (network.architecture.foreign or {})["at"]
    assert at == ("output" if kind in NO_LOGITS else "out")  # also at 0 and 1


@pytest.mark.parametrize("kind", ["a dict", "softmax of five", "hardsigmoid"])
def test_a_registered_version_gives_it_and_leaves_threads_and_path_of_the_process_alone(
    workdir: Path, invoke: Invoke, kind: str
) -> None:
    said = invoke(*wrapping(kind)).stdout
    assert f"read as {'logits' if kind in AS_LOGITS else 'probabilities'}" in said
    assert ("after the model's output" in said) == (kind in NO_LOGITS)
    frame, before = pd.read_csv("rows.csv"), (list(sys.path), torch.get_num_threads())
    torch.set_num_threads(2)
    try:
        blas = [one["num_threads"] for one in threadpool_info()]
        served = np.asarray(mlflow.pyfunc.load_model("models:/head@champion").predict(frame))
        assert torch.get_num_threads() == 2
        assert [one["num_threads"] for one in threadpool_info()] == blas
        added = set(sys.path) - set(before[0])
        assert all("/artifacts/code" in one for one in added)  # MLflow's own, of the version
    finally:
        torch.set_num_threads(before[1])
    expected = read_by_callers(stored(kind)).reshape(served.shape)
    np.testing.assert_allclose(served, expected, atol=1e-6)
    if kind not in NO_LOGITS:
        assert np.array_equal(served, expected)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_head_that_cannot_be_kept_is_refused_with_what_was_seen(kind: str) -> None:
    with pytest.raises(ModelError, match=re.escape(REFUSED[kind])):
        put_in(taken(kind)[1])


def test_of_what_is_refused_nothing_is_registered(workdir: Path, invoke: Invoke) -> None:
    said = invoke(*wrapping("tanh"), expect=3).stderr
    assert REFUSED["tanh"] in said
    assert said.count("\n") == 1
    from mlflow import MlflowClient

    assert not MlflowClient().search_registered_models()


@pytest.mark.parametrize("at", ["auto", "body.0"])
def test_a_head_without_a_layer_of_its_own_is_never_taken_for_the_layer_before_it(at: str) -> None:
    head, original = taken("one logit", bare=True)
    assert np.array_equal(put_in(original, at=at).predict(ROWS), read_by_callers(head)[:, 0])
    with pytest.raises(ModelError, match="no linear layer of its own"):
        put_in(taken("sigmoid", bare=True)[1], at="body.0")


@pytest.mark.filterwarnings("ignore")
def test_columns_that_a_signature_names_are_found_in_any_order_or_missed(
    workdir: Path, invoke: Invoke
) -> None:
    wrapping("one logit")
    network = stored("one logit")
    frame = pd.read_csv("rows.csv")
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            network, name="m", registered_model_name="camera", serialization_format="pickle",
            pip_requirements=["torch"],
            signature=infer_signature(frame, network(torch.tensor(ROWS)).numpy()),
        )  # fmt: skip
    wrap = ("wrap", "models:/camera/1", "--allow-pickle", "--as", "head")
    expected = read_by_callers(network)[:, 0]
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
    assert np.array_equal(
        served, torch.sigmoid(stored("clamp")(torch.from_numpy(ROWS))).numpy()[:, 0]
    )
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
