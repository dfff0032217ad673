"""What goes into another's model where a value is missing: said, recorded, never a silent 0."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from selfheal_cli.pipeline.prepare.foreign import Sample, filled_with, fills
from selfheal_cli.sources.encoding import MISSING, Encoding

ROWS = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]], dtype=np.float32)


class Answering:
    """A network that takes NaN, or has no answer to it."""

    def __init__(self, *, takes: bool) -> None:
        self._takes = takes

    def predict(self, x: Any) -> Any:
        sums = x.sum(axis=1)
        return np.nan_to_num(sums) if self._takes else sums


class Failing:
    """Stands for a network whose code raises where a value is missing."""

    def predict(self, x: Any) -> Any:
        raise IndexError("index -1 is out of bounds")


def sample(**values: Any) -> Sample:
    given: dict[str, Any] = {"rows": ROWS, "names": ("a", "b"), "shape": (2,), "dtype": "float32"}
    return Sample(**(given | values))


@pytest.mark.parametrize(
    ("takes", "values", "found", "words"),
    [
        (True, {}, [None, None], "NaN"),
        (False, {}, [3.0, 20.0], "mean"),
        (False, {"dtype": "int64", "rows": ROWS[[0, 1, 1]]}, [3.0, 30.0], "commonest"),
        (False, {"drawn": True}, [None, None], "left out"),
        (False, {"drawn": True, "dtype": "int64"}, [0.0, 0.0], "0, since no rows were given"),
    ],
    ids=["takes-nan", "mean", "tokens", "drawn", "drawn-tokens"],
)
def test_the_fill_is_what_the_rows_say_or_nan(
    takes: bool, values: dict[str, Any], found: list[float | None], words: str
) -> None:
    network: Any = Answering(takes=takes)
    known = fills(network, sample(**values))
    assert known == found
    assert words in filled_with(known, sample(**values))


def test_a_network_that_fails_on_a_missing_value_gets_what_the_rows_say() -> None:
    network: Any = Failing()
    assert fills(network, sample()) == [3.0, 20.0]


def test_a_missing_value_is_filled_as_recorded_and_counted() -> None:
    encoding = Encoding.raw_columns(("a", "b"), (2.5, None))
    again = Encoding.model_validate_json(encoding.model_dump_json())
    columns = {"a": np.array([np.nan, 1.0]), "b": np.array([4.0, np.nan])}
    counts: Counter[str] = Counter()
    x = again.encode(columns, counts)
    assert x[0].tolist() == [2.5, 4.0]
    assert x[1, 0] == 1.0
    assert np.isnan(x[1, 1])
    assert counts[MISSING] == 2


def test_what_0_1_0_wrapped_keeps_its_nought() -> None:
    old = Encoding.model_validate({"columns": [{"kind": "raw", "name": "a"}]})
    assert old.encode({"a": np.array([np.nan])}).tolist() == [[0.0]]
    assert old.missing == ()
    assert old.model_dump(mode="json") == {"columns": [{"kind": "raw", "name": "a"}]}
