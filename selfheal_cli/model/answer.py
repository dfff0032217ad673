"""The meaning of a foreign network's output: logits or probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfheal_cli.errors import ModelError
from selfheal_cli.model.network import as_probabilities

AUTO, LOGITS, PROBABILITIES = "auto", "logits", "probabilities"
KINDS = (AUTO, LOGITS, PROBABILITIES)
ROUNDING = 1e-5  # of a softmax in float32, whose sum is not exactly one
SATURATED = 30.0  # a sigmoid of this is 1 in float32; half of a classifier's rows are not so sure
DOUBLE = 1e-6  # between a probability computed in float64 and one of features kept in float32
SQUASHED = 0.9  # a trained tanh comes as near to 1 as this
OTHERWISE = (
    "regression, multi-label and ranking are not supported; if these are logits, let the model "
    "return what its last layer gives, or say --gives logits (output='logits' in Python)"
)


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The linear layer that runs last, by its ``name``, and what it ``gives`` for the rows."""

    name: str
    gives: Tensor

    def is_scaled_to(self, table: Tensor) -> bool:
        """Whether the output (n, columns) is this layer's, each column on a scale of its own."""
        given = self.gives.reshape(table.shape).double()
        away, from_mean = table.double() - table.double().mean(0), given - given.mean(0)
        slope = (away * from_mean).sum(0) / (from_mean**2).sum(0)
        gap = (away - slope * from_mean).abs().max()
        return bool((slope > 0).all()) and float(gap) <= ROUNDING * float(table.abs().max())


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """How an output of ``columns`` columns is read: its ``kind``, and the ``probabilities``, (n,)
    or (n, K) float32, by it; ``words`` describe the values for messages. ``assumed``: it is one
    unbounded number a row, which nobody declared to be a logit. ``tolerance`` is by how much a
    probability may differ since the model computes in another type than float32.
    """

    kind: str
    columns: int
    probabilities: Tensor
    words: str
    assumed: bool = False
    tolerance: float = 0.0


def parse_gives(text: str) -> tuple[str, str | None]:
    """Kind and key of ``auto``, ``logits``, ``probabilities``, ``KEY`` or ``KEY:logits``.

    >>> parse_gives("out:probabilities"), parse_gives("logits"), parse_gives("0")
    (('probabilities', 'out'), ('logits', None), ('auto', '0'))
    """
    key, colon, kind = text.rpartition(":")
    if colon and kind in KINDS:
        return kind, key
    return (text, None) if text in KINDS else (AUTO, text)


def read_answer(
    output: Tensor, rows: int, declared: str = AUTO, *, direct: bool = False,
    last: LastLayer | None = None,
) -> ModelOutput:  # fmt: skip
    """Read a network's output for ``rows`` rows; ``direct``: a linear layer or convolution gave it,
    ``last`` is the one that ran last, where one did.

    Outputs between 0 and 1 are taken as probabilities. Raises `ModelError` for an output that is
    not a classifier's.
    """
    table = one_a_row(output, rows)
    rounding = torch.finfo(table.dtype).eps
    table = table.float()
    low, high = float(table.min()), float(table.max())
    words = (
        f"{table.shape[1]} output{'s' * (table.shape[1] > 1)} a row, from {low:.4g} to {high:.4g}"
    )
    within = low >= -ROUNDING and high <= 1 + ROUNDING
    small = within and direct and table.shape[1] > 1 and declared == AUTO
    if small and not _sums_to_one(table, rounding):
        within = False  # a linear layer's own output, small as it is of what is hardly trained
    kind = declared if declared != AUTO else PROBABILITIES if within else LOGITS
    if kind == PROBABILITIES:
        if not within:
            raise ModelError(f"the model gives {words}: probabilities lie between 0 and 1")
        _require_one_class_a_row(table, max(ROUNDING, rounding))
        chosen = {1: table[:, 0], 2: table[:, -1]}.get(table.shape[1], table)
    else:
        if declared == AUTO:
            _require_logits(table, words, last, direct=direct)
        chosen = as_probabilities(table)
    hint = " (--gives logits if they are)" if (kind, declared) == (PROBABILITIES, AUTO) else ""
    assumed = (kind, declared, table.shape[1]) == (LOGITS, AUTO, 1)
    if assumed:
        hint = " of class 1: a regression's output looks the same, and the first labels tell"
    return ModelOutput(
        kind, table.shape[1], chosen, f"{words}, read as {kind}{hint}", assumed,
        _tolerance(output.dtype, kind, rounding),
    )  # fmt: skip


def _tolerance(dtype: torch.dtype, kind: str, rounding: float) -> float:
    """Nothing in float32. What float64 computes is kept in float32; and probabilities of a half
    type were rounded to that.
    """
    if dtype == torch.float64:
        return DOUBLE
    return rounding if kind == PROBABILITIES and dtype != torch.float32 else 0.0


def one_a_row(output: Tensor, rows: int) -> Tensor:
    """The output as a table (n, columns); raises `ModelError` unless it has one answer per row."""
    if output.ndim not in (1, 2) or len(output) != rows or output.numel() == 0:
        raise ModelError(
            f"the model gives {tuple(output.shape)} for {rows} rows; one answer a row is "
            "needed: (n,), (n, 1) or a column a class (per-token labels are not supported)"
        )
    table = output if output.ndim > 1 else output[:, None]
    if not table.is_floating_point():
        raise ModelError(f"the model gives {table.dtype}; logits or probabilities are needed")
    odd = (~torch.isfinite(table)).any(dim=1)
    if bool(odd.any()):
        first = int(odd.nonzero()[0])
        raise ModelError(
            f"row {first + 1} of those it is checked on: the model gives {_first(table[first])}, "
            "which is no finite number"
        )
    if rows > 1 and bool((table == table[0]).all()):
        raise ModelError(
            f"the model gives the same ({_first(table[0])}) for all {rows} rows, so that "
            "nobody can see whether it decides as before; give --data with rows that it tells apart"
        )
    return table


def _require_one_class_a_row(table: Tensor, rounding: float) -> None:
    columns = table.shape[1]
    off = float((table.sum(dim=1) - 1).abs().max())
    if columns > 1 and not _sums_to_one(table, rounding):
        raise ModelError(
            f"the model gives {columns} outputs each between 0 and 1 that do not sum to 1 (off by "
            f"up to {off:.2g}): multi-label is not supported; one class a row is needed"
        )


def _sums_to_one(table: Tensor, rounding: float) -> bool:
    room = table.shape[1] * max(ROUNDING, rounding)
    return float((table.sum(dim=1) - 1).abs().max()) <= room


def _require_logits(table: Tensor, words: str, last: LastLayer | None, *, direct: bool) -> None:
    """Raise `ModelError` for values that do not look like logits."""
    largest = table.abs().amax(dim=1)
    if float((largest > SATURATED).float().mean()) > 0.5:
        raise ModelError(f"the model gives {words}: too large for logits; {OTHERWISE}")
    if direct or (table.shape[1] > 1 and _log_probabilities(table)):
        return
    if last is not None and last.is_scaled_to(table):
        return
    if SQUASHED < float(largest.max()) <= 1:
        behind = ""
        if last is not None:
            low, high = float(last.gives.min()), float(last.gives.max())
            behind = f" behind layer '{last.name}', which gives {low:.4g} to {high:.4g}"
        raise ModelError(f"the model gives {words}: squashed by its last step{behind}; {OTHERWISE}")
    if bool((table >= 0).all()) or bool((table <= 0).all()):
        raise ModelError(f"the model gives {words}: all on one side of 0; {OTHERWISE}")


def _log_probabilities(table: Tensor) -> bool:
    return float(torch.logsumexp(table, dim=1).abs().max()) <= table.shape[1] * ROUNDING


def _first(row: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in row[:3].tolist()) + (
        ", ..." if len(row) > 3 else ""
    )
