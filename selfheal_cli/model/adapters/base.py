"""What every adapter is, and the room that it is put into."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Room:
    """What an adapter is given and hands on, of one row.

    ``sizes`` of the features as the network computes them: (d,), (tokens, d) or (channels, h, w);
    they are kept flattened, (n, prod(sizes)). ``axis`` of ``sizes`` along which one thing (a
    token, a pixel) is described. ``hidden`` values go to what comes next; ``inputs`` is the width
    of the network's rows and ``outputs`` that of its logits. ``taken``: the first so many values
    along the axis are what a layer takes, the others what it gives; 0: they are not told apart.
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
        """Features (n, prod(sizes)), each token or pixel on its own: (m, width)."""
        if len(self.sizes) == 1:
            return features
        table = features.reshape(len(features), *self.sizes)
        return table.movedim(self._place, -1).reshape(-1, self.width)

    def together(self, rows: Tensor, count: int) -> Tensor:
        """The inverse of `apart` for ``count`` rows, whatever the width has become."""
        if len(self.sizes) == 1:
            return rows
        others = [size for place, size in enumerate(self.sizes, 1) if place != self._place]
        table = rows.reshape(count, *others, rows.shape[-1]).movedim(-1, self._place)
        return table.reshape(count, -1)

    @property
    def _place(self) -> int:
        return self.axis % len(self.sizes) + 1

    @classmethod
    def flat(cls, width: int) -> Room:
        """Rows of ``width`` values before a layer."""
        return cls(width, 1, (width,), width)


class Adapter(nn.Module):
    """The only part that learns after deployment.

    ``forward`` takes the backbone's features (n, features) and gives what comes next reads
    (n, hidden).
    """

    def around(self, tensors: Mapping[str, Tensor]) -> Self:
        """A frozen copy with these tensors for parameters, taken over and not copied."""
        known = dict(self.named_parameters())
        own = {id(known[n]): nn.Parameter(v, requires_grad=False) for n, v in tensors.items()}
        copied: Self = deepcopy(self, own)
        copied.training = False
        return copied

    def learning(self) -> dict[str, nn.Parameter]:
        """The parameters that gradient steps move, by name."""
        return dict(self.named_parameters())

    @property
    def aligns(self) -> bool:
        """Whether it moves inputs, so that the frozen backbone's features are not what counts."""
        return False

    def align(self, x: Tensor) -> Tensor:
        """Inputs (n, inputs) on their way into the backbone; most adapters leave them alone."""
        return x
