"""Training statistics of the frozen network, which the anchored recipes measure change against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.model.mixture import LINEAR, TREES, MixtureAdapter
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.moments import ColumnMoments, floored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Matrix = NDArray[np.float64]


LEVELS = np.linspace(0.01, 0.99, 50)  # of the inputs' quantiles
MOST_ROWS = 10_000  # that trees are fitted on
FEWEST_ROWS = 200  # that are worth a fit
MOST_VALUES = 4_000_000  # in the rows that are kept for trees: 2,000 columns take 16 MB
BINS = 10  # of a class's frozen logits, as many training rows of the class in each
SAMPLE = 20_000  # training rows that the quantiles are taken from, evenly spread


@dataclass(frozen=True, slots=True)
class Anchor:
    """Statistics of the frozen features over the training rows, all float64.

    ``mean``, ``sd`` (features,); ``class_mean`` (K, features) and ``class_share`` (K,);
    ``logit_mean``, ``logit_sd`` (outputs,) of the frozen logits; ``input_mean``, ``input_sd``
    (inputs,) and ``input_quantiles`` (levels, inputs) of the standardised inputs, from
    ``quantile_rows`` (1,) of the rows. What trees read of the latest rows, (n, d) float32, and
    their classes ``latest_y`` (n,) int8, are for a mixture alone: elsewhere there are none.
    ``margin_quantiles`` (K, bins - 1) of the frozen logit in each class are for healing without
    labels alone.
    """

    mean: Matrix
    sd: Matrix
    class_mean: Matrix
    class_share: Matrix
    logit_mean: Matrix
    logit_sd: Matrix
    input_quantiles: Matrix
    quantile_rows: Matrix
    input_mean: Matrix
    input_sd: Matrix
    latest_x: Any = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    latest_y: Any = field(default_factory=lambda: np.zeros(0, dtype=np.int8))
    margin_quantiles: Matrix = field(default_factory=lambda: np.zeros((0, 0)))

    def tensors(self) -> dict[str, Tensor]:
        """As they are stored with the base."""
        kept = {name: getattr(self, name) for name in self.__slots__}
        return {name: torch.from_numpy(one) for name, one in kept.items() if one.size}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Anchor:
        """The inverse of `tensors`."""
        return cls(**{name: tensors[name].numpy() for name in cls.__slots__ if name in tensors})


class AnchorRows:
    """Accumulates an `Anchor` from training rows that come in blocks."""

    def __init__(self, network: SelfHealingNetwork, classes: int, *, margins: bool = False) -> None:
        size = network.architecture
        self._margins: list[list[Matrix]] = [[] for _ in range(classes if margins else 0)]
        self._network = network
        self._features, self._inputs = ColumnMoments(size.features), ColumnMoments(size.inputs)
        self._logits = ColumnMoments(size.outputs)
        self._sample: list[FloatArray] = []
        self._stride = 1
        self._by_class = [ColumnMoments(size.features) for _ in range(classes)]
        adapter = network.adapter
        self._read = adapter.read if isinstance(adapter, MixtureAdapter) else slice(0, 0)
        self._latest = LatestRows.none(self._read.stop - self._read.start)

    def add(self, x: FloatArray, features: FloatArray, y: LabelArray) -> None:
        """Take inputs (n, inputs), the backbone's features (n, features), and labels (n,)."""
        wide = features.astype(np.float64)
        self._features.add(wide)
        self._inputs.add(x.astype(np.float64))
        self._sample.append(x[:: self._stride])
        # every second row goes and the stride doubles, so that the sample stays evenly spread
        # over a stream whose length nobody knows beforehand
        while sum(map(len, self._sample)) > SAMPLE:
            self._sample = [rows[::2] for rows in self._sample]
            self._stride *= 2
        logits = frozen_logits(self._network, features)
        self._logits.add(logits)
        for label, margins in enumerate(self._margins):
            margins.append(logits[y == label, 0])
        for label, moments in enumerate(self._by_class):
            moments.add(wide[y == label])
        if self._read.stop:
            self._latest.add(features[:, self._read], y)

    def anchor(self) -> Anchor:
        """The statistics of all rows so far."""
        counts = np.array([moments.count for moments in self._by_class], dtype=np.float64)
        sample = np.concatenate(self._sample)
        input_sd = floored(self._inputs.sd)
        return Anchor(
            mean=self._features.mean,
            sd=floored(self._features.sd),
            class_mean=np.array([moments.mean for moments in self._by_class]),
            class_share=counts / counts.sum(),
            logit_mean=self._logits.mean,
            logit_sd=floored(self._logits.sd),
            input_quantiles=quantiles(sample, self._inputs.mean, input_sd),
            quantile_rows=np.array([float(len(sample))]),
            input_mean=self._inputs.mean,
            input_sd=input_sd,
            latest_x=self._latest.x,
            latest_y=self._latest.y,
            margin_quantiles=self._margin_quantiles(),
        )

    def _margin_quantiles(self) -> Matrix:
        values = [np.concatenate(margins) for margins in self._margins]
        if not values or not all(map(len, values)):
            return np.zeros((0, 0))
        edges: Matrix = np.array([np.quantile(one, np.arange(1, BINS) / BINS) for one in values])
        return edges


class LatestRows:
    """What trees read of the latest rows, (n, d) and classes (n,)."""

    def __init__(self, x: FloatArray, y: LabelArray) -> None:
        self._most = max(FEWEST_ROWS, min(MOST_ROWS, MOST_VALUES // max(1, x.shape[1])))
        self.x, self.y = x, y

    @classmethod
    def none(cls, width: int) -> LatestRows:
        """No row yet."""
        return cls(np.zeros((0, width), dtype=np.float32), np.zeros(0, dtype=np.int8))

    def add(self, x: FloatArray, y: LabelArray) -> None:
        """Take rows (n, d) and classes (n,), and let the oldest go."""
        self.x = np.concatenate([self.x, x[-self._most :]])[-self._most :]
        self.y = np.concatenate([self.y, y[-self._most :]])[-self._most :]


def moved(anchor: Anchor, features: FloatArray) -> float:
    """How far rows (n, features), or the first of their features, are from training's: the mean of
    the feature that moved most, in sampling errors.
    """
    (rows, width), trained = features.shape, float(anchor.quantile_rows[0])
    gap = features.mean(axis=0, dtype=np.float64) - anchor.mean[:width]
    gap = np.abs(gap) / anchor.sd[:width]
    return float(gap.max() * np.sqrt(rows * trained / (rows + trained)))


def quantiles(x: FloatArray, mean: Matrix, sd: Matrix) -> Matrix:
    """Quantiles (levels, inputs) of the inputs (n, inputs), standardised by ``mean`` and ``sd``."""
    points: Matrix = np.quantile((x - mean) / sd, LEVELS, axis=0)
    return points


def frozen_logits(network: SelfHealingNetwork, features: FloatArray) -> Matrix:
    """The logits (n, outputs) of the frozen baseline, float64."""
    hidden = network.architecture.hidden
    if not network.ends_in_linear:
        with torch.inference_mode():
            logits: Matrix = network.head(network.adapter(torch.from_numpy(features))).numpy()
        return logits.astype(np.float64)
    weight, bias = (tensor.numpy() for tensor in network.linear_head())
    frozen: Matrix = features[:, :hidden].astype(np.float64) @ weight.T + bias
    return frozen


class Design:
    """The regression's design matrix: [(f - mean) / sd, standardised frozen logits, 1].

    ``columns`` is features + outputs + 1; random features are none of them. The frozen logits have
    columns of their own so that they can be scaled as a whole with hardly any penalty (Platt 1999).
    """

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor) -> None:
        self.network = network
        self.anchor = anchor
        size = network.architecture
        self.features, self.outputs = size.plain, size.outputs
        self.columns = size.plain + size.outputs + 1
        self._head, self._bias = (tensor.numpy() for tensor in network.linear_head())
        self._inverse = _tensor(np.linalg.pinv(self._head))

    def offset(self, features: FloatArray) -> Matrix:
        """The frozen baseline's logits (n, outputs) of features (n, features)."""
        hidden = self._head.shape[1]
        logits: Matrix = features[:, :hidden].astype(np.float64) @ self._head.T + self._bias
        return logits

    def rows(self, features: FloatArray, offset: Matrix) -> Matrix:
        """The design matrix (n, columns) of features (n, features) and their offset; float64."""
        a = np.empty((len(features), self.columns))
        of = slice(0, self.features)
        np.subtract(features[:, of], self.anchor.mean[of], out=a[:, of])
        a[:, of] /= self.anchor.sd[of]
        a[:, self.features : -1] = (offset - self.anchor.logit_mean) / self.anchor.logit_sd
        a[:, -1] = 1.0
        return a

    def fold(self, theta: Matrix) -> dict[str, Tensor]:
        """The adapter that adds ``rows @ theta`` to the logits, theta (columns, outputs): an affine
        one, or of a mixture one expert alone.
        """
        anchor, size = self.anchor, self.network.architecture
        mean, sd = anchor.mean[: self.features], anchor.sd[: self.features]
        # the standardising is undone in the weights, so that scoring need not know of it
        on_features = theta[: self.features] / sd[:, None]
        on_logits = theta[self.features : -1] / anchor.logit_sd[:, None]
        constant = theta[-1] - mean @ on_features + (self._bias - anchor.logit_mean) @ on_logits
        on_features[: size.hidden] += self._head.T @ on_logits
        adapter = self.network.adapter
        if isinstance(adapter, MixtureAdapter):
            return _alone(adapter, _tensor(on_features.T), _tensor(constant))
        return {
            "weight": _tensor(on_features.T),
            "bias": _tensor(constant),
            "direction": self._inverse,
            "scale": torch.ones(size.moved),
            "shift": torch.zeros(size.moved),
        }


def _alone(adapter: MixtureAdapter, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Tensors of a mixture that is one correction of the margins alone: ``weight`` (margins, d) of
    the first d features, and ``bias`` (margins,).
    """
    tensors = {name: torch.zeros_like(one.data) for name, one in adapter.named_parameters()}
    tensors |= {name: torch.zeros(0) for name in ("network", "scale", "shift")}
    tensors |= {"trees": torch.zeros(0, dtype=torch.uint8), "begins": torch.ones(LINEAR)}
    tensors["share"] = torch.zeros(1 + LINEAR + TREES)
    tensors["share"][1] = 1.0
    tensors["weight"][0, :, : weight.shape[1]] = weight
    tensors["bias"][0] = bias
    return tensors


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
