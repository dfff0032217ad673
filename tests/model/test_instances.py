"""Live modules: taken as they are, equal when stored, in batches of any size; or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.model import device, original
from selfheal_cli.model.answer import LOGITS, read_answer
from selfheal_cli.model.checkpoint import assemble, make_base, pack
from selfheal_cli.model.interface import ModelInput
from selfheal_cli.model.live import unwrapped
from selfheal_cli.model.network import as_probabilities
from selfheal_cli.model.original import take
from selfheal_cli.model.parts import built, described
from selfheal_cli.model.parts import named as named_thing
from selfheal_cli.model.wrapping import put_in, wrap
from selfheal_cli.pipeline.prepare.foreign import Sample, base_of, pins
from selfheal_cli.pipeline.prepare.wrapped import Wrapped
from selfheal_cli.registry.carried import carried
from selfheal_cli.registry.mlflow.format import signature
from selfheal_cli.registry.pyfunc import ProbabilityModel
from selfheal_cli.sources.encoding import Encoding
from tests.model import instances
from tests.model.networks import Mlp

DRAW = np.random.default_rng(3)
ROWS = DRAW.standard_normal((100, 8)).astype(np.float32)
MIXED = np.hstack([ROWS[:, :5], DRAW.integers(0, 4, (100, 3))]).astype(np.float32)
FLAT = (ModelInput(shape=(8,)),)
BOTH = (
    ModelInput(name="numbers", shape=(5,)),
    ModelInput(name="tokens", shape=(3,), dtype="int64"),
)
LIVE: dict[str, Callable[[], Any]] = {
    "renamed": lambda: instances.Renamed(8, torch.relu),
    "replaced": instances.replaced,
    "added": instances.Added,
    "added, then a probability": lambda: instances.Added(nn.Sigmoid()),
    "recurrent": instances.Recurrent,
    "two inputs": instances.TwoInputs,
    "thirteen layers": lambda: nn.Sequential(
        *(layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.Tanh())), nn.Linear(8, 2)
    ),
    "compiled": lambda: torch.compile(instances.Added(), backend="eager"),
    "parallel": lambda: nn.DataParallel(Mlp(outputs=3)),
    "fitted": lambda: instances.Fitted(Mlp(outputs=3)),
    "one layer": lambda: nn.Linear(8, 1),
    "bfloat16": lambda: Mlp(outputs=3).to(torch.bfloat16),
    "float64": lambda: Mlp(outputs=3).double(),
    "autocast": instances.InHalf,
}


def of_caller(module: nn.Module, rows: Any, kind: str) -> Any:
    """Probabilities as the module's own caller reads them."""
    x = torch.from_numpy(rows)
    with torch.no_grad():
        if isinstance(module, instances.TwoInputs):
            output = module(x[:, :5], x[:, 5:].long())["score"]
        else:
            output = module(x.to(next(module.parameters()).dtype))
    output = output[0] if isinstance(output, tuple) else output
    table = output.float()
    read: Tensor = table[:, 0] if kind == "probabilities" else as_probabilities(table)
    return read.numpy()


@pytest.mark.parametrize("name", LIVE)
def test_a_live_model_decides_the_same_once_it_is_stored(name: str) -> None:
    torch.manual_seed(2)
    model = LIVE[name]()
    module = unwrapped(model).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)  # what is not trained may pass as chances
    rows, inputs = (MIXED, BOTH) if name == "two inputs" else (ROWS, FLAT)
    original = take(model, rows, inputs=inputs, output="score" if inputs is BOTH else "auto")
    network = put_in(original)
    stored = assemble(make_base(network, {}, {}, rows), network.adapter.state_dict(), where="v1")
    module.requires_grad_(requires_grad=False)
    exact = name not in ("float64", "added, then a probability")
    for count in (1, 7, 100):
        expected = of_caller(module, rows[:count], original.answer.kind)
        np.testing.assert_allclose(stored.predict(rows[:count]), expected, atol=1e-6)
        if exact and count == 100:
            assert np.array_equal(stored.predict(rows), expected)
    assert stored.ends_in_linear or name == "autocast"


def test_a_network_computes_on_the_device_that_was_chosen_and_gives_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone: list[tuple[str, str]] = []

    def moved(value: Any, device: str) -> Any:
        gone.append((type(value).__name__, device))
        return value

    module = Mlp(outputs=3)
    expected = wrap(module, ROWS, shape=(8,), at="second").predict(ROWS)
    monkeypatch.setattr(device, "moved", moved)
    monkeypatch.setenv(device.VARIABLE, "cuda:0")
    network = wrap(module, ROWS, shape=(8,), at="second")
    assert ("Mlp", "cuda:0") in gone
    gone.clear()
    assert np.array_equal(network.predict(ROWS), expected)  # what goes into both halves
    assert gone.count(("Tensor", "cuda:0")) == 2
    assert network.features(ROWS[:1]).shape == (1, 16)


@pytest.mark.parametrize(("name", "message"), [("tpu", "are allowed"), ("cuda", "cannot use it")])
def test_a_device_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv(device.VARIABLE, name)
    with pytest.raises(ModelError, match=message):
        wrap(nn.Linear(8, 1), ROWS, shape=(8,))


def test_a_number_that_ranks_no_better_than_chance_is_taken_for_no_logit() -> None:
    module = nn.Linear(8, 1)
    y = np.random.default_rng(1).integers(0, 2, len(ROWS))
    told = (wrap(module, ROWS, shape=(8,)).predict(ROWS) > 0.5).astype(np.int8)
    for output, labels, refused in (("auto", y, True), ("auto", told, False), ("logits", y, False)):
        network = wrap(module, ROWS, shape=(8,), output=output)
        version: Any = SimpleNamespace(model="m", version=1)
        taken = Wrapped(network, (), ("0", "1"), version, Encoding.raw_columns(["a"]))
        with pytest.raises(DataError, match="no better than chance") if refused else nullcontext():
            taken.require_better_than_chance(network.predict(ROWS), labels.astype(np.int8))


def test_what_the_original_names_is_asked_for_beside_what_loads_a_version(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "mlflow==1.0\ntimm==1.0.3\nselfheal==0.1.0\nodd==2.0+local\n-e .\nhttps://there/x.whl\n"
    )
    named = pins(tmp_path)
    assert named == ("mlflow==1.0", "timm==1.0.3", "odd==2.0")
    module = {"target": "torch.nn.modules.linear:Linear"}
    foreign = {"module": module, "requirements": list(named)}
    needed = carried(json.dumps({"network": {"foreign": foreign}})).requirements
    assert {"timm==1.0.3", "odd==2.0"} < set(needed)
    assert sum(one.startswith("mlflow==") for one in needed) == 1
    assert "mlflow==1.0" not in needed


def test_small_outputs_of_a_last_linear_layer_are_logits_and_of_anything_else_no_classes() -> None:
    small = torch.rand(50, 3) / 4
    assert read_answer(small, 50, direct=True).kind == LOGITS
    with pytest.raises(ModelError, match="multi-label"):
        read_answer(small, 50)


def test_a_picture_is_one_tensor_to_callers_and_a_version_does_not_grow_with_its_size() -> None:
    rows = DRAW.standard_normal((20, 768)).astype(np.float32)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    network = wrap(module, rows, shape=(3, 16, 16))
    names = tuple(f"x{place}" for place in range(768))
    document = base_of(network, Sample(rows, names, (3, 16, 16), "float32"), None).describe()
    (taken,) = signature(document).inputs.to_dict()
    assert taken["tensor-spec"]["shape"] == (-1, 3, 16, 16)
    healed = network.anchored(beside=False)
    assert len(pack(healed.adapter.state_dict())) < 1_000
    stored = assemble(make_base(healed, {}, {}, rows), healed.adapter.state_dict(), where="v1")
    version = ProbabilityModel(
        stored, Encoding.model_validate(document["encoding"]), ("0", "1"), 0.5
    )
    given = version.predict(rows.reshape(-1, 3, 16, 16))
    assert np.array_equal(np.asarray(given), network.predict(rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: instances.Odd("dropout"), "when it is asked again about the same rows"),
        (lambda: instances.Odd("batch"), "depends on the other rows of its batch"),
        (lambda: instances.Odd("nan"), "no finite number"),
        (lambda: instances.Odd("half"), "one answer a row is needed"),
        (instances.TwoInputs, "takes 2 inputs .numbers, tokens. and was given one"),
        (lambda: nn.Linear(8, 2, device="meta"), "weight '0.weight' is on the device meta"),
        (lambda: nn.Sequential(nn.LazyLinear(2)), "as lazy layers have none before they ran"),
        (lambda: instances.Odd("running"), "buffer 'mean' changes whenever it answers"),
        (lambda: torch.jit.trace(nn.Linear(8, 2), torch.ones(2, 8)), "the module that it was made"),
        (
            lambda: torch.jit.trace(nn.Sequential(nn.Linear(8, 2)), torch.ones(2, 8)),
            "the module that it was made",
        ),
        (
            lambda: torch.export.export(nn.Linear(8, 2), (torch.ones(2, 8),)).module(),
            "is a GraphModule, which has no class of its own",
        ),
        (lambda: instances.Renamed(8, lambda x: x * 2), "activation is a function that nobody can"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_no_copy_can_do_as_well_is_refused_by_what_was_seen(
    make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        wrap(make(), ROWS, shape=(8,))
    assert "--init" not in str(raised.value)


def test_a_slow_model_is_told_of_with_the_rows_that_it_was_compared_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(original, "SLOW", 0.0)
    with pytest.warns(UserWarning, match=f"s a row: compared on {len(ROWS)} rows alone"):
        wrap(nn.Linear(8, 2), ROWS, shape=(8,))


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:exec", "torch.hub:os.system", "torch.hub:os"]
)
def test_a_stored_description_names_nothing_of_the_standard_library(name: str) -> None:
    with pytest.raises(ModelError, match="may name"):
        named_thing(name)


@pytest.mark.parametrize(
    "name",
    ["pandas:read_pickle", "numpy:load", "torch:load", "torch:from_file", "torch.hub:load",
     "mlflow.pyfunc:load_model", "yaml:unsafe_load"],
)  # fmt: skip
def test_a_stored_description_calls_nothing_of_a_library_that_no_layer_is_from(name: str) -> None:
    spec = described(nn.TransformerEncoderLayer(8, 2, batch_first=True)).spec
    activation = spec.model_dump(mode="json")["parts"]["state"]["activation"]
    assert activation == {"named": "torch.nn.functional:relu"}
    call = {"partial": [{"named": name}, ["file"], []]}
    state = {**(spec.parts or {})["state"], "activation": call}
    assert built(spec) is not None
    with pytest.raises(ModelError, match="--allow-module"):
        built(spec.model_copy(update={"parts": {**(spec.parts or {}), "state": state}}))
