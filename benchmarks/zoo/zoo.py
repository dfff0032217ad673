"""Other people's models: wrapped or refused, equal after a reload, healed on a drift, served.

Run in an environment of its own (`constraints.txt` beside this has the libraries; they are no part
of the tests). A model is trained a little, given to `SelfHealing` or refused by it, and its version
is loaded by MLflow alone and held against the model, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import operators
import pandas as pd
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
operators.import_without_operators()

import zoo_data
from cases import Case, all_cases

from selfheal_cli.api import SelfHealing
from selfheal_cli.errors import SelfhealError
from selfheal_cli.metrics import classify
from selfheal_cli.model.answer import parse_gives
from selfheal_cli.model.checkpoint import assemble, make_base
from selfheal_cli.model.interface import Interface, ModelInput, choose_key
from selfheal_cli.model.live import unwrapped
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.model.original import take
from selfheal_cli.model.wrapping import put_in

SIZES = (1, 7, 100)


@dataclass
class Outcome:
    """What became of a model."""

    library: str
    name: str
    ok: bool
    said: str
    at: str = ""
    seconds: float = 0.0
    frozen: float | None = None
    healed: float | None = None


def inputs_of(case: Case) -> tuple[ModelInput, ...]:
    """What the model takes."""
    if "inputs" in case.takes:
        return tuple(
            ModelInput(name=name, shape=(size,), dtype=dtype)
            for name, size, dtype in case.takes["inputs"]
        )
    return (ModelInput(**case.takes),)


def rows_of(case: Case, count: int, seed: int, *, moved: bool = False) -> tuple[Any, Any]:
    """Rows for a model, by what it takes."""
    if "inputs" in case.takes:
        make = zoo_data.masked if case.takes["inputs"][0][0] == "input_ids" else zoo_data.mixed
        return make(count, seed, moved)
    if case.takes.get("dtype") == "int64":
        return zoo_data.tokens(count, seed, moved)
    shape = case.takes["shape"]
    if len(shape) == 3:
        return zoo_data.pictures(count, seed, moved, case.classes, shape[-1])
    return zoo_data.table(count, seed, moved, case.classes)


def output(case: Case, module: nn.Module, rows: Any) -> Tensor:
    """What the model's own caller sees."""
    asked = inputs_of(case)
    own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    dtype = str(own).removeprefix("torch.")
    if dtype != "float32" and len(asked) == 1:
        asked = (asked[0].model_copy(update={"dtype": dtype}),)
    named = "inputs" in case.takes
    called = Interface(inputs=asked, as_mapping=named and "dictionary" in case.name)
    if case.library == "rtdl" and case.name == "FT-Transformer":
        called = Interface(inputs=(asked[0].model_copy(update={"name": "x_cont"}),),
                           absent=("x_cat",))  # fmt: skip
    gave = called.output(module, torch.from_numpy(rows))
    key = parse_gives(case.output)[1] or choose_key(gave, len(rows))
    return called.model_copy(update={"key": key}).picked(gave)


def train(case: Case, module: nn.Module) -> None:
    """A few steps."""
    x, y = rows_of(case, 400 if len(inputs_of(case)[0].shape) == 3 else 2_000, 1)
    wide = len(inputs_of(case)[0].shape) == 3
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3 if wide else 1e-2)
    module.train()
    target = torch.from_numpy(y)
    for step in range(8 if wide else 80):
        part = slice(step * 64 % 320, step * 64 % 320 + 64) if wide else slice(None)
        z = output(case, module, x[part]).float()
        z = z if z.ndim > 1 else z[:, None]
        if case.name.endswith(("sigmoid", ", softmax")):
            z = torch.log(z.clamp(1e-6, 1 - 1e-6))
        if z.shape[1] == 1:
            chance = (
                z[:, 0]
                if not case.name.endswith("sigmoid")
                else z[:, 0] - torch.log1p(-torch.exp(z[:, 0]))
            )
            loss = nn.functional.binary_cross_entropy_with_logits(chance, target[part].float())
        else:
            loss = nn.functional.cross_entropy(z, target[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def read(case: Case, module: nn.Module, rows: Any, kind: str) -> Any:
    """Probabilities as the model's caller reads them."""
    with torch.inference_mode():
        z = output(case, module, rows)
    z = (z if z.ndim > 1 else z.reshape(len(rows), -1)).float()
    if kind == "probabilities":
        return (z[:, -1] if z.shape[1] <= 2 else z).numpy()
    if z.shape[1] == 1:
        return torch.sigmoid(z)[:, 0].numpy()
    p = torch.softmax(z, -1)
    return (p[:, 1] if z.shape[1] == 2 else p).numpy()


def tried(case: Case, *, heals: bool, untrained: bool) -> Outcome:
    """One model."""
    began = time.perf_counter()
    torch.manual_seed(0)
    model = case.make()
    outcome = Outcome(case.library, case.name, ok=False, said="")
    try:
        module = unwrapped(model)
        if case.trained and case.refused is None and not untrained:
            train(case, module)
        module.eval()
        x, _ = rows_of(case, 128, 2)
        if case.name.startswith("spectral"):
            module(torch.from_numpy(x))
        original = take(model, x, inputs=inputs_of(case), output=case.output)
        network = put_in(original)
        outcome.at = original_place(network)
        base = make_base(network, {}, {}, x)
        stored = assemble(base, network.adapter.state_dict(), where="v1")
        fit = module.requires_grad_(requires_grad=False)
        for count in SIZES:
            expected = read(case, fit, x[:count], original.answer.kind)
            actual = stored.predict(x[:count])
            gap = np.abs(actual.reshape(expected.shape) - expected).max()
            if gap > max(1e-6, original.answer.tolerance):
                raise AssertionError(f"differs by {gap} at batch size {count}")
            if count == len(x) and gap > original.answer.tolerance:
                raise AssertionError(f"differs by {gap}")
        outcome.said = f"wrapped; {original.answer.words}"
        outcome.ok = case.refused is None
        if heals and case.refused is None and "inputs" not in case.takes:
            heal(case, model, network, outcome)
    except SelfhealError as exc:
        outcome.said = f"refused: {exc}"
        outcome.ok = case.refused is not None and case.refused in str(exc)
    except Exception as exc:  # what nobody foresaw
        outcome.ok, outcome.said = False, f"FAILED: {type(exc).__name__}: {exc}"[:300]
    outcome.seconds = round(time.perf_counter() - began, 1)
    return outcome


def heal(case: Case, model: Any, network: Any, outcome: Outcome) -> None:
    """Accuracy on later rows of a stream that drifts: the frozen model, and after its heals."""
    shape = case.takes["shape"]
    whole = case.takes.get("dtype") == "int64"

    def given(count: int, seed: int, *, moved: bool) -> tuple[Any, Any]:
        rows, y = rows_of(case, count, seed, moved=moved)
        rows = rows.reshape(len(rows), *shape)
        return (rows.astype(np.int64) if whole else rows), y

    few = 100 if len(shape) == 3 else 1_000
    x, y = given(few, 3, moved=False)
    drifted, later = given(2 * few, 4, moved=True), given(few, 5, moved=True)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        healing = SelfHealing(
            model, x, y, name="zoo", mode="sync", output=case.output, batch_size=few // 20,
            recipe="anchored" if network.ends_in_linear else "gradient",
            settings={} if network.ends_in_linear else {"learning_rate": 0.02, "steps": 20},
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
        )  # fmt: skip
        before = healing.predict(later[0])
        for at in range(0, 2 * few, few // 20):
            part = slice(at, at + few // 20)
            healing.observe(drifted[0][part], drifted[1][part])
        healing.close()
        after = healing.predict(later[0])
        version = mlflow.pyfunc.load_model("models:/zoo@champion")
        flat = later[0].reshape(few, -1)
        frame = pd.DataFrame(flat, columns=[f"x{place}" for place in range(flat.shape[1])])
        served = np.asarray(version.predict(later[0] if len(shape) == 3 else frame))
    if np.abs(served.reshape(after.shape) - after).max() > 1e-6:
        raise AssertionError("the champion that MLflow loads decides otherwise")
    outcome.frozen, outcome.healed = (
        round(float(np.mean(classify(one, 0.5) == later[1])), 3) for one in (before, after)
    )
    outcome.said = f"{outcome.frozen} -> {outcome.healed}; {outcome.said}"


def original_place(network: Any) -> str:
    """Where the adapter is."""
    foreign = network.architecture.other
    return f"{foreign.at}{'' if foreign.place is None else ' (inside)'}" + (
        " by parts" if foreign.module.parts is not None else ""
    )


def main() -> None:
    """Print a line a model, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="libraries or names")
    parser.add_argument("--heal", action="store_true", help="heal each on a drift; takes hours")
    parser.add_argument("--untrained", action="store_true", help="as made; without --heal")
    parser.add_argument("--to", type=Path, default=Path("zoo.json"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    use_one_thread()
    outcomes = []
    for case in all_cases():
        if asked.only and not {case.library, case.name} & set(asked.only):
            continue
        outcome = tried(case, heals=asked.heal, untrained=asked.untrained)
        outcomes.append(outcome)
        mark = "ok  " if outcome.ok else "BAD "
        print(f"{mark}{outcome.library:14} {outcome.name:28} {outcome.seconds:5.1f}s "
              f"{outcome.at:20} {outcome.said[:230]}", flush=True)  # fmt: skip
    asked.to.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    print(f"{sum(one.ok for one in outcomes)} of {len(outcomes)} as expected")


if __name__ == "__main__":
    main()
