"""A version on a base of its own beside the champion: who answers, and what is kept of a row."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.model.wrapping import wrap
from selfheal_cli.pipeline.prepare.foreign import Sample, base_of
from selfheal_cli.serve.http.invocations import full_answer, quick_answer
from selfheal_cli.serve.http.model import Scorer
from selfheal_cli.serve.http.v2 import infer
from selfheal_cli.spool.control import Published
from selfheal_cli.spool.tried import TriedVersion
from tests.serve.conftest import Running

OWN = "debts"
KEPT = {"json": quick_answer, "csv": full_answer}


@pytest.fixture(scope="module")
def base() -> tuple[Any, Packed]:
    """A network on `OWN` and a column of the champion's."""
    rows = np.random.default_rng(2).standard_normal((20, 2)).astype(np.float32)
    network = wrap(nn.Linear(2, 1), rows, shape=(2,), output="logits")
    sample = Sample(rows, (OWN, "V14"), (2,), "float32")
    return base_of(network, sample, ["normal", "fraud"]), Packed.of(network.adapter.state_dict())


def scorer(served: Running, base: tuple[Any, Packed], share: float, by: str = "") -> Scorer:
    stored, packed = base
    wanted = Published("apart", 0.5, "m-apart", packed.sha256, packed.data, "test", 9)
    scorer = Scorer(served.front.scorer.served)
    registry: Any = SimpleNamespace(base=lambda name: stored)
    scorer.try_out(TriedVersion(wanted, share, by, time.time() + 600), registry)
    return scorer


def body(served: Running, kind: str, *, own: bool = True) -> tuple[bytes, str]:
    rows = served.rows(2)
    names, data = list(rows["columns"]), [list(row) for row in rows["data"]]
    if own:
        names, data = [*names, OWN], [[*row, 1.5] for row in data]
    if kind == "json":
        text = json.dumps({"dataframe_split": {"columns": names, "data": data}})
        return text.encode(), "application/json"
    lines = [names, *data]
    return "".join(",".join(map(str, line)) + "\n" for line in lines).encode(), "text/csv"


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whoever_answers_the_columns_of_both_are_kept(
    served: Running, base: tuple[Any, Packed], kind: str, share: float
) -> None:
    chosen, trial = scorer(served, base, share).choose("r1")
    answer = KEPT[kind](chosen, *body(served, kind), None, 100, trial)
    assert answer is not None
    assert answer.scored is not None
    assert answer.scored.served.snapshot == ("apart" if share else chosen.snapshot)
    names = served.front.scorer.served.quick.encoding.names
    assert answer.scored.columns.keys() == {*names, OWN}
    assert answer.scored.columns[OWN].tolist() == [1.5, 1.5]
    told = json.loads(answer.text)["predictions"]
    assert told == pytest.approx(answer.scored.probabilities.tolist())
    alone = KEPT[kind](chosen, *body(served, kind), None, 100)
    assert alone is not None
    assert (alone.text == answer.text) is not bool(share)


@pytest.mark.parametrize("kind", KEPT)
def test_who_does_not_send_its_columns_is_answered_by_the_champion(
    served: Running, base: tuple[Any, Packed], kind: str
) -> None:
    chosen, trial = scorer(served, base, 1.0).choose("r1")
    answer = KEPT[kind](chosen, *body(served, kind, own=False), None, 100, trial)
    assert answer is not None
    assert answer.scored is not None
    assert answer.scored.served is chosen
    assert OWN not in answer.scored.columns


def test_by_a_column_of_the_champions_it_answers_those_that_are_its_own(
    served: Running, base: tuple[Any, Packed]
) -> None:
    beside = scorer(served, base, 0.5, by="V14")
    canary = beside.canary
    assert canary is not None
    values = [float(one) for one in range(20)]
    rows = served.rows(1)
    place = rows["columns"].index("V14")
    for value in values:
        row = [*rows["data"][0], 1.5]
        row[place] = value
        text = {"dataframe_split": {"columns": [*rows["columns"], OWN], "data": [row]}}
        chosen, trial = beside.choose("r1")
        answer = quick_answer(
            chosen, json.dumps(text).encode(), "application/json", None, 100, trial
        )
        assert answer is not None
        assert answer.scored is not None
        assert (answer.scored.served.snapshot == "apart") == canary.takes(value)


@pytest.mark.parametrize("own", [True, False])
def test_tensors_by_name_reach_it_too_and_one_tensor_is_the_champions(
    served: Running, base: tuple[Any, Packed], own: bool
) -> None:
    rows = served.rows(2)
    names = [*rows["columns"], *([OWN] if own else [])]
    turned = [*map(list, zip(*rows["data"], strict=True)), *([[1.5, 1.5]] if own else [])]
    tensors = [
        {"name": name, "datatype": "FP64", "shape": [2], "data": values}
        for name, values in zip(names, turned, strict=True)
    ]
    flat = [one for row in rows["data"] for one in row]
    whole = [{"name": "x", "datatype": "FP64", "shape": [2, len(rows["columns"])], "data": flat}]

    def asked(inputs: Any) -> Any:
        text = json.dumps({"inputs": inputs}).encode()
        choose = scorer(served, base, 1.0).choose
        return infer(choose, text, None, model="fraud", request_id="r", key=None, most=9).scored

    assert (asked(tensors).served.snapshot == "apart") is own
    assert (OWN in asked(tensors).columns) is own
    assert asked(whole).served is served.front.scorer.served
