"""The adapter of a model that heals by segment: one for all rows, and a small one of each segment's
beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.model.adapter import Adapter
from selfheal_cli.model.mixture import LEAST
from selfheal_cli.segment_keys import CODE_COLUMNS, whole_code

Weights = Mapping[str, Tensor]

OWN = 3  # experts of a segment's own, each linear in what the others' mixture says and in the row
MOST_DIRECTIONS = 30  # features that these read
WHOLE = "whole."  # prefix of the tensors of the adapter for all rows


class SegmentedAdapter(Adapter):
    """``share_0 p + sum_e share_e sigmoid(margin(p) + theta_e [f, margin(p), 1])`` for the rows of
    a segment, with the probability ``p`` that the adapter for all rows, ``whole``, gives.

    ``code`` (s, 2) names the segments, rising; ``share`` (s, 1 + own) sums to 1; ``theta`` (s, own,
    directions + margins + 1, margins) reads the features at ``directions`` as they come. Features
    (n, features + 2) end in each row's code. A row of a segment that is not among them, or of none,
    is ``p``, bit for bit.
    """

    answers: ClassVar[bool] = True
    texts: ClassVar[tuple[str, ...]] = ()
    sized: ClassVar[tuple[str, ...]] = ("code", "share", "theta")  # by the number of segments

    def __init__(self, whole: Adapter, directions: Sequence[int], margins: int) -> None:
        super().__init__()
        self.whole = whole
        self.directions = list(directions)
        self.columns = len(self.directions) + margins + 1
        self.texts = (*(f"{WHOLE}{name}" for name in whole.texts), *self.sized)  # type: ignore[misc]
        none = none_yet(self.columns, margins)
        self.code = nn.Parameter(none["code"], requires_grad=False)
        self.share = nn.Parameter(none["share"], requires_grad=False)
        self.theta = nn.Parameter(none["theta"], requires_grad=False)
        self._take_in()

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """As `Adapter.around`, without a deep copy, since every heal makes several."""
        whole, own = apart(tensors)
        copied = copy(self)
        copied._parameters = {
            name: nn.Parameter(value, requires_grad=False) for name, value in own.items()
        }
        copied._modules = {"whole": self.whole.around(whole)}
        copied.training = False
        copied._take_in()
        return copied

    def _load_from_state_dict(self, state: Any, prefix: str, *others: Any) -> None:
        for name in self.sized:  # as many segments as are in what is loaded
            if f"{prefix}{name}" in state:
                empty = torch.empty_like(state[f"{prefix}{name}"])
                setattr(self, name, nn.Parameter(empty, requires_grad=False))
        super()._load_from_state_dict(state, prefix, *others)
        if not self.code.is_meta:
            self._take_in()

    def _take_in(self) -> None:
        """Know the segments."""
        if not self.code.is_meta:
            self._known = torch.from_numpy(whole_code(self.code.detach().numpy()))

    def learning(self) -> dict[str, nn.Parameter]:
        """None: recipes learn the ``whole``, and segments are fitted."""
        return {}

    @property
    def aligns(self) -> bool:
        """As the adapter for all rows."""
        return self.whole.aligns

    def align(self, x: Tensor) -> Tensor:
        """As the adapter for all rows."""
        return self.whole.align(x)

    def forward(self, features: Tensor) -> Tensor:
        """Features with the rows' codes to what the adapter for all rows gives."""
        adapted: Tensor = self.whole(features[:, :-CODE_COLUMNS].contiguous())
        return adapted

    def by_segment(self, p: Tensor, features: Tensor) -> Tensor:
        """Probabilities (n,) or (n, K) by ``p``, those of all rows' adapter, with the features."""
        code = torch.from_numpy(whole_code(features[:, -CODE_COLUMNS:].detach().numpy()))
        if not len(self._known) or not len(code):
            return p
        place = torch.searchsorted(self._known, code).clamp(max=len(self._known) - 1)
        own = torch.nonzero(self._known[place] == code).flatten()
        if not len(own):
            return p
        answers = p.clone()
        answers[own] = self._mixed(p[own], features[own], place[own]).float()
        return answers

    def _mixed(self, p: Tensor, features: Tensor, place: Tensor) -> Tensor:
        """The answers (n,) or (n, K) to rows of the segments at ``place`` (n,)."""
        # row by row and in double: the same bits for a row alone and among others
        margin = margins_of_p(p)
        read = features[:, self.directions].double()
        row = torch.cat([read, margin, torch.ones(len(p), 1, dtype=torch.float64)], dim=1)
        moved = (row[:, None, :, None] * self.theta[place].double()).sum(dim=2)
        every = probabilities_of(torch.cat([margin[:, None], margin[:, None] + moved], dim=1))
        mixed = (every * self.share[place].double()[:, :, None]).sum(dim=1)
        return mixed[:, 1] if p.ndim == 1 else mixed


def margins_of_p(p: Tensor) -> Tensor:
    """Logits of probabilities (n,) of class 1, (n, 1); of (n, K) against the first, (n, K - 1)."""
    wide = p.double()
    if p.ndim == 1:
        return torch.logit(wide.clamp(LEAST, 1.0 - LEAST))[:, None]
    logs = wide.clamp(min=LEAST).log()
    return logs[:, 1:] - logs[:, :1]


def probabilities_of(margin: Tensor) -> Tensor:
    """Of each class, (n, experts, K), none below `LEAST`, by margins (n, experts, K - 1)."""
    p = torch.softmax(nn.functional.pad(margin, (1, 0)), dim=-1).clamp(min=LEAST)
    return p / p.sum(dim=-1, keepdim=True)


def none_yet(columns: int, margins: int) -> dict[str, Tensor]:
    """The tensors of no segment."""
    return {
        "code": torch.zeros(0, CODE_COLUMNS),
        "share": torch.zeros(0, 1 + OWN),
        "theta": torch.zeros(0, OWN, columns, margins),
    }


def apart(tensors: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the adapter for all rows, by its own names, and those of segments."""
    whole = {n.removeprefix(WHOLE): one for n, one in tensors.items() if n.startswith(WHOLE)}
    return whole, {name: one for name, one in tensors.items() if not name.startswith(WHOLE)}


def replaced(own: Weights, other: Weights, codes: Collection[int]) -> dict[str, Tensor]:
    """The tensors of segments as in ``own``, of those with these codes as in ``other``."""
    mine, others = (whole_code(one["code"].numpy()) for one in (own, other))
    kept, taken = ~np.isin(mine, list(codes)), np.isin(others, list(codes))
    order = np.argsort(np.concatenate([mine[kept], others[taken]]))
    return {
        name: torch.from_numpy(
            np.concatenate([value.numpy()[kept], other[name].numpy()[taken]])[order]
        )
        for name, value in own.items()
    }


def together(whole: Weights, own: Weights) -> dict[str, Tensor]:
    """The inverse of `apart`."""
    return {**{f"{WHOLE}{name}": one for name, one in whole.items()}, **own}
