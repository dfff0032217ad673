"""LightGBM's trees as text, and as something that scores; the library is loaded when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selfheal_cli.model.tree_library import require_trees

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

APART = b"\0"  # between the texts of several
END = "end of trees"  # what follows in a text are parameters, which decide nothing
THREADS = 1  # with more, one row in a hundred takes milliseconds


def as_tensor(texts: Sequence[str]) -> Tensor:
    """Texts as they are stored, (bytes,) uint8; none of them leaves nothing."""
    data = APART.join(text.encode() for text in texts) if any(texts) else b""
    return torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8))


def text_of(booster: Any) -> str:
    """A booster's trees, without the parameters that they were fitted by."""
    text: str = booster.model_to_string()
    return text[: text.index(END) + len(END)] + "\n"


def boosters_of(trees: Tensor) -> tuple[Any, ...]:
    """What `as_tensor` stored; None for an empty text. Raises as `require_trees`."""
    return _read(trees.numpy().tobytes()) if len(trees) else ()


@lru_cache(maxsize=4)  # a heal asks for what served before and after it, several times
def _read(data: bytes) -> tuple[Any, ...]:
    require_trees("this version")
    from lightgbm import Booster

    texts = (part.decode() for part in data.split(APART))
    return tuple(Booster(model_str=text) if text else None for text in texts)


def probabilities(booster: Any, x: FloatArray) -> FloatArray:
    """Of class 1 (n,), or of each class (n, K), of rows (n, d); float64."""
    answer: FloatArray = booster.predict(x, num_threads=THREADS)
    return answer
