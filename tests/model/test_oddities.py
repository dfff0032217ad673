"""Other people's constructors, hooks and exceptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.checkpoint import assemble, make_base
from selfheal_cli.model.wrapping import wrap
from tests.model import oddities

ROWS = np.random.default_rng(5).standard_normal((200, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        (oddities.Sliced, "auto"),
        (oddities.Computes, "auto"),
        (oddities.Stacks, "auto"),
        (oddities.Stacks, "output"),
        (oddities.PlainTensor, "inner"),
        (oddities.Parametrised, "inner"),
        (oddities.Normed, "auto"),
        (oddities.Overwrites, "auto"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_torch_rounds_or_a_constructor_computes_is_wrapped_stored_and_scores_one_row(
    kind: type[nn.Module], at: str
) -> None:
    torch.manual_seed(2)
    module = kind()
    with torch.no_grad():
        getattr(module, "inner").weight.mul_(3)  # noqa: B009 (of whichever class)
    learning = [one.requires_grad for one in module.parameters()]
    network = wrap(module, ROWS, shape=(8,), at=at)
    assert [one.requires_grad for one in module.parameters()] == learning
    stored = assemble(make_base(network, {}, {}, ROWS), network.adapter.state_dict(), where="v1")
    module.requires_grad_(requires_grad=False)
    with torch.inference_mode():
        expected = torch.sigmoid(module(torch.from_numpy(ROWS.copy())))[:, 0].numpy()
    given = ROWS.copy()
    for one in (network, stored):
        assert np.array_equal(one.predict(given), expected)
        assert np.array_equal(given, ROWS)
        assert one.predict(ROWS[:1]).shape == (1,)
        assert one.predict(ROWS[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (oddities.Fails, "'list' object has no attribute 'to'"),
        (lambda: oddities.Fails("division"), r"does not take float32 \(n, 8\) \(division"),
        (oddities.ByCount, "8 answers for 7 rows: one answer a row is needed"),
        (lambda: oddities.ByCount(1), "2 values for one row and 7 for 7"),
        (lambda: oddities.ByCount(1, fails=True), "fails on one row alone: .*no group of this"),
        (object, "a object is no torch.nn.Module and holds none"),
    ],
)
def test_what_cannot_be_wrapped_is_a_model_error_whatever_it_raises(
    make: type[nn.Module], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(make(), ROWS, shape=(8,))


def test_a_constructor_that_fails_names_its_class_and_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"Fails cannot be built with .*no such group.*--init"):
        wrap(oddities.Fails("nothing"), ROWS, shape=(8,), init={"kind": "constructor"})
