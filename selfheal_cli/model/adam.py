"""Adam (Kingma and Ba 2015) with its state in plain sight, so that a heal can be a pure function.

The arithmetic is torch's own functional form, to the same bits as `torch.optim.Adam`; that class
would load torch's compiler, more than a second, on its first use.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

KINDS = ("step", "exp_avg", "exp_avg_sq")


class Adam:
    """Steps named parameters; ``moments`` holds ``KIND.NAME`` tensors of an earlier Adam."""

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        moments: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._named = dict(named)
        self._rate = learning_rate
        if moments:
            self._state = {key: value.clone() for key, value in moments.items()}
        else:
            self._state = {
                f"{kind}.{name}": torch.tensor(0.0)
                if kind == "step"
                else torch.zeros_like(parameter)
                for name, parameter in self._named.items()
                for kind in KINDS
            }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._named.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients; every parameter needs one."""
        lists: dict[str, list[Tensor]] = {
            kind: [self._state[f"{kind}.{name}"] for name in self._named] for kind in KINDS
        }
        adam(
            list(self._named.values()),
            [parameter.grad for parameter in self._named.values()],  # type: ignore[misc]
            lists["exp_avg"],
            lists["exp_avg_sq"],
            [],
            lists["step"],
            foreach=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def moments(self) -> dict[str, Tensor]:
        """The state, to go on from later."""
        return dict(self._state)
