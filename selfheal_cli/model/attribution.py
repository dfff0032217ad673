"""Attribution: how far the network's decision moves with each of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfheal_cli.errors import ModelError
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Floats = NDArray[np.float64]


def input_gradients(network: SelfHealingNetwork, x: FloatArray) -> FloatArray:
    """Gradient (n, inputs) of each row's logit, of K classes that of the likeliest; a segment's own
    adapter is left out.

    Raises `ModelError` for a network that takes whole numbers, which have none.
    """
    other = network.architecture.other
    if other is not None and other.dtype == "int64":
        raise ModelError(
            "a model that takes whole numbers has no gradient by its inputs, so that nothing is "
            "attributed to them: leave --explain out"
        )
    network = network.whole
    inputs = torch.from_numpy(np.array(x[:, : network.architecture.inputs])).requires_grad_()
    adapted = network.adapter(network.backbone(network.adapter.align(inputs)))
    logits = network.head(adapted)
    torch.autograd.backward(logits.max(dim=-1).values.sum())
    gradients: Any = inputs.grad
    return gradients.numpy()  # type: ignore[no-any-return]


def gradient_times_input(network: SelfHealingNetwork, blocks: Iterable[FloatArray]) -> Floats:
    """Mean of ``|gradient * input|`` (inputs,) over all rows (Shrikumar et al. 2016)."""
    total, rows = np.zeros(network.architecture.inputs), 0
    for x in blocks:
        total += np.abs(input_gradients(network, x) * x[:, : len(total)]).sum(
            axis=0, dtype=np.float64
        )
        rows += len(x)
    means: Floats = total / max(rows, 1)
    return means
