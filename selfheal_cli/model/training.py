"""Training of the network on clean data, and Adam, which gradient heals use as well."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adam import adam

from selfheal_cli.config import NetworkSettings
from selfheal_cli.records import Rows

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

    Block = tuple[FloatArray, FloatArray]  # inputs (n, d) and classes (n,)


class SpooledRows:
    """Training blocks, read once in each epoch: the first in memory, the others in a file."""

    def __init__(self, blocks: Iterator[Rows]) -> None:
        first = next(blocks)
        self._width = first.x.shape[1]
        self._first = (first.x, first.y.astype(np.float32))
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        for block in blocks:
            self._spool(block)

    def __len__(self) -> int:
        return len(self._first[1]) + sum(self._sizes)

    def upto(self, stop: int) -> Iterator[Block]:
        """The blocks of the first ``stop`` rows."""
        for x, y in self:
            yield x[:stop], y[:stop]
            stop -= len(y)
            if stop <= 0:
                return

    def between(self, start: int, stop: int) -> Block:
        """The rows from ``start`` to before ``stop`` as one block."""
        places = [(x[max(0, start - at) :], y[max(0, start - at) :])
                  for at, x, y in self._placed(stop) if at + len(y) > start]  # fmt: skip
        if not places:
            return self._first[0][:0], self._first[1][:0]
        x, y = (np.concatenate(part) for part in zip(*places, strict=True))
        return x, y

    def spread(self, stop: int, most: int) -> Block:
        """Of the first ``stop`` rows at most ``most``, evenly spread, as one block."""
        step = max(1, -(-stop // most))
        parts = [(x[-at % step :: step], y[-at % step :: step]) for at, x, y in self._placed(stop)]
        x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        return x, y

    def _placed(self, stop: int) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        """The blocks of the first ``stop`` rows, each with its first row's place."""
        at = 0
        for x, y in self.upto(stop):
            yield at, x, y
            at += len(y)

    def __iter__(self) -> Iterator[Block]:
        yield self._first
        if self._file is None:
            return
        self._file.seek(0)
        for rows in self._sizes:
            data = np.frombuffer(self._file.read(rows * (self._width + 1) * 4), dtype=np.float32)
            block = data.reshape(rows, self._width + 1)
            yield block[:, :-1].copy(), block[:, -1].copy()

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()

    def _spool(self, block: Rows) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        joined = np.column_stack([block.x, block.y.astype(np.float32)])
        self._file.write(np.ascontiguousarray(joined).tobytes())
        self._sizes.append(len(block))


KINDS = ("step", "exp_avg", "exp_avg_sq")
SMALLEST = torch.finfo(torch.float32).tiny
GRADIENT = attrgetter("grad")


class Adam:
    """Adam (Kingma and Ba 2015), to the same bits as `torch.optim.Adam`.

    ``moments`` holds the ``KIND.NAME`` tensors of an earlier Adam on these parameters. It calls
    torch's functional form: the class would load torch's compiler on its first use, which takes
    more than a second.
    """

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

        self._parameters: list[Tensor] = list(self._named.values())
        # the same tensors again, in the order of the parameters: a step changes them in place
        self._averages, self._squares, self._steps = (
            [self._state[f"{kind}.{name}"] for name in self._named]
            for kind in ("exp_avg", "exp_avg_sq", "step")
        )

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self._named.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients; every parameter needs one."""
        adam(
            self._parameters,
            list(map(GRADIENT, self._parameters)),
            self._averages,
            self._squares,
            [],
            self._steps,
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
        """The state, from which another Adam goes on."""
        return dict(self._state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws of torch come from this seed within the block; the caller's generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(
    network: nn.Module,
    rows: SpooledRows,
    settings: NetworkSettings,
    on_epoch: Callable[[], None],
) -> None:
    """Minimise cross-entropy by Adam, with one permutation for each block and epoch, and freeze.

    Draws from torch's global generator: call it inside `seeded`.
    """
    optimiser = Adam(dict(network.named_parameters()), learning_rate=settings.learning_rate)
    for _ in range(settings.epochs):
        train_epoch(network, rows, optimiser, settings.train_batch_size)
        on_epoch()
    network.eval()
    network.requires_grad_(requires_grad=False)


def train_epoch(
    network: nn.Module, blocks: Iterable[Block], optimiser: Adam, batch_size: int
) -> None:
    """A step for each ``batch_size`` rows, in a new order within each block."""
    for x_block, y_block in blocks:
        x, y = torch.from_numpy(x_block), torch.from_numpy(y_block)
        for chosen in torch.split(torch.randperm(len(y)), batch_size):
            optimiser.zero_grad()
            loss = cross_entropy(network(x[chosen]), y[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def cross_entropy(probabilities: Tensor, y: Tensor) -> Tensor:
    """Mean loss of probabilities (n,) or (n, K) against labels (n,)."""
    if probabilities.ndim == 1:
        return functional.binary_cross_entropy(probabilities, y)
    return functional.nll_loss(torch.log(probabilities.clamp_min(SMALLEST)), y.long())
