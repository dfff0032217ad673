"""Labels joined to rows by a key: late, early, twice, unknown, and never without bound."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.sources.joining import LabelJoin


def join(**bounds: int) -> LabelJoin:
    return LabelJoin("id", "y", ("no", "yes"), **bounds)


def rows(*keys: Any) -> list[dict[str, Any]]:
    return [{"id": key} for key in keys]


def labels(**by_key: Any) -> list[dict[str, Any]]:
    return [{"id": key, "y": label} for key, label in by_key.items()]


def told(late: Any) -> list[tuple[int, int, int]]:
    if late is None:
        return []
    return list(zip(late.batch.tolist(), late.place.tolist(), late.y.tolist(), strict=True))


def test_a_label_finds_the_batch_and_the_place_of_its_row() -> None:
    joining = join()
    assert joining.late(1, []) is None
    joining.remember(1, rows("a", "b"))
    joining.remember(2, rows("c"))
    assert told(joining.late(3, labels(c="no", b="yes"))) == [(2, 0, 0), (1, 1, 1)]
    assert joining.notes() == {}


def test_a_label_that_comes_before_its_row_waits_for_it() -> None:
    joining = join()
    assert joining.late(1, labels(a="yes")) is None
    assert joining.notes() == {"labels of unknown rows": 1}
    joining.remember(1, rows("a"))
    assert told(joining.late(2, [])) == [(1, 0, 1)]
    assert joining.notes() == {}


def test_numbers_and_texts_are_one_key() -> None:
    joining = join()
    joining.remember(1, rows(7, "8", 9.0))
    came = [{"id": "7", "y": "no"}, {"id": 8, "y": "yes"}, {"id": 9, "y": "yes"}]
    assert told(joining.late(2, came)) == [(1, 0, 0), (1, 1, 1), (1, 2, 1)]


def test_what_is_given_again_or_unknown_or_no_label_is_counted() -> None:
    joining = join()
    joining.remember(1, rows("a", None))
    came = [*labels(a="yes"), *labels(a="no"), {"id": "b"}, {"y": "no"}, *labels(c="maybe")]
    assert told(joining.late(2, came)) == [(1, 0, 1)]
    assert joining.late(3, labels(a="no", d="no")) is None
    assert joining.notes() == {
        "labels given again": 2,
        "labels of unknown rows": 1,
        "labels without a key or a known value": 3,
        "rows without a key": 1,
    }


def test_a_key_that_comes_again_is_that_of_its_last_row() -> None:
    joining = join()
    joining.remember(1, rows("a"))
    joining.remember(2, rows("b", "a"))
    assert told(joining.late(3, labels(a="yes"))) == [(2, 1, 1)]
    assert joining.notes() == {"rows whose key came again": 1}


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    joining = join(most_keys=2, most_early=2)
    joining.remember(1, rows("a", "b", "c"))
    assert told(joining.late(2, labels(a="yes", b="yes"))) == [(1, 1, 1)]
    assert joining.late(3, labels(x="no", y="no", z="no")) is None
    assert joining.notes() == {"labels of unknown rows": 4}


@given(order=st.permutations(range(12)), cut=st.integers(1, 5))
def test_each_row_gets_its_own_label_once_whatever_the_order(order: list[int], cut: int) -> None:
    joining, given_labels = join(), [0] * 12
    came: list[tuple[int, int, int]] = []
    for batch, start in enumerate(range(0, 12, cut), 1):
        now = order[start : start + cut]
        came += told(joining.late(batch, [{"id": key, "y": "yes"} for key in now]))
        joining.remember(batch, rows(*range(start, min(start + cut, 12))))
    came += told(joining.late(99, []))
    for batch, place, y in came:
        assert y == 1
        given_labels[(batch - 1) * cut + place] += 1
    assert given_labels == [1] * 12
