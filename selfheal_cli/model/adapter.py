"""What every adapter is: the only part that learns after deployment, and where it sits."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Room:
    """The shape of an adapter's input and output, of one row.

    ``sizes`` of the features as the network computes them: (d,), (tokens, d) or (channels, h, w);
    they are kept flattened, (n, prod(sizes)). ``axis``: that of ``sizes`` which describes one
    token or pixel. The next layer gets ``hidden`` values; ``inputs`` is the width of the network's
    rows and ``outputs`` that of its logits. ``taken``: so many first values along the axis are a
    layer's input, the others its output; 0: all are its input.
    """

    inputs: int
    outputs: int
    sizes: tuple[int, ...]
    hidden: int
    axis: int = -1
    taken: int = 0

    @property
    def width(self) -> int:
        """Values that describe one token, pixel or row."""
        return self.sizes[self.axis]

    def apart(self, features: Tensor) -> Tensor:
        """Features (n, prod(sizes)) with a row for each token or pixel: (m, width)."""
        if len(self.sizes) == 1:
            return features
        table = features.reshape(len(features), *self.sizes)
        return table.movedim(self._place, -1).reshape(-1, self.width)

    def together(self, rows: Tensor, count: int) -> Tensor:
        """The inverse of `apart` for ``count`` rows; the width may have changed."""
        if len(self.sizes) == 1:
            return rows
        others = [size for place, size in enumerate(self.sizes, 1) if place != self._place]
        table = rows.reshape(count, *others, rows.shape[-1]).movedim(-1, self._place)
        return table.flatten(1)  # not reshape(): of no rows it cannot tell the width

    @property
    def _place(self) -> int:
        return self.axis % len(self.sizes) + 1

    @classmethod
    def flat(cls, width: int) -> Room:
        """Rows of ``width`` values before a layer."""
        return cls(width, 1, (width,), width)


class Adapter(nn.Module):
    """The only part that learns after deployment.

    ``forward`` takes the backbone's features (n, features) and gives the next layer's input
    (n, hidden). ``answers``: it gives the probabilities, of the head's logits and the features.
    ``texts`` are parameters whose length is that of what they hold.
    """

    answers: ClassVar[bool] = False
    texts: ClassVar[tuple[str, ...]] = ()

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """A frozen copy with these tensors for parameters, taken over and not copied."""
        known = dict(self.named_parameters())
        # deepcopy takes what its memo holds for a copy made already
        memo = {}
        for name, value in tensors.items():
            memo[id(known[name])] = nn.Parameter(value, requires_grad=False)
        copied: Self = deepcopy(self, memo)
        copied.training = False
        return copied

    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that gradient steps move, by name."""
        return dict(self.named_parameters())

    @property
    def aligns(self) -> bool:
        """Whether it moves inputs, so that the backbone must run again on the moved ones."""
        return False

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) on their way into the backbone; most adapters leave them alone."""
        return x

    @property
    def is_idle(self) -> bool:
        """Whether its weights say that it gives the features that it takes, so that it can be left
        out; an adapter that cannot tell is never idle.
        """
        return False

    def answer(self, frozen: Tensor, logits: Tensor, features: Tensor) -> Tensor:
        """Probabilities (n,) or (n, K), where it ``answers``, from those that the head gives,
        its logits (n, outputs), and the features (n, features).
        """
        return frozen
