"""What names a segment: a value of one column, as text, and as numbers beside a row's inputs."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE_COLUMNS = 2  # float32 numbers of 24 bits each, which hold 48 bits of a hash exactly
NO_SEGMENT = -1.0
_HALF = 1 << 24


def keys_of(values: NDArray[Any]) -> NDArray[Any]:
    """A column's values (n,) as keys of segments: texts, None where there is none.

    >>> keys_of(np.array([49.0, np.nan])).tolist()
    ['49', None]
    """
    if values.dtype != np.object_:
        places, distinct = pd.factorize(values)
        texts = np.array([*(f"{value:.15g}" for value in distinct), None], dtype=object)
        return np.asarray(texts[places])  # a missing one's place is -1, the last
    keys = values.copy()
    keys[pd.isna(values)] = None
    return keys


def code_of(key: str) -> str:
    """12 hexadecimal digits for a key.

    Two of 5,000 keys have the same with a probability of 4e-8.

    >>> code_of("DE")
    '7c41a5c93562'
    """
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def codes_of(values: NDArray[Any]) -> NDArray[np.float32]:
    """A column's values (n,) as numbers beside the inputs, (n, 2); `NO_SEGMENT` where none is."""
    places, distinct = pd.factorize(keys_of(values))
    codes = np.full((len(distinct) + 1, CODE_COLUMNS), NO_SEGMENT, dtype=np.float32)
    for place, key in enumerate(distinct):
        codes[place] = divmod(int(code_of(key), 16), _HALF)
    return np.asarray(codes[places])  # a missing one's place is -1, the last


def whole_code(codes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Both halves (n, 2) as one number (n,); below zero where there is no segment.

    >>> whole = whole_code(codes_of(np.array(["DE", None], dtype=object)))
    >>> f"{whole[0]:012x}", bool(whole[1] < 0)
    ('7c41a5c93562', True)
    """
    wide: NDArray[np.int64] = codes.astype(np.int64)
    return wide[:, 0] * _HALF + wide[:, 1]


def as_codes(whole: NDArray[np.int64]) -> NDArray[np.float32]:
    """The inverse of `whole_code`."""
    return np.stack(np.divmod(whole, _HALF), axis=1).astype(np.float32)
