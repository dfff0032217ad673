"""Who told which labels; what is taken back of a name; and a person's rows, erased."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.spool.entries import Feedback
from selfheal_cli.spool.store import Spool
from selfheal_cli.spool.tellers import Tellers
from tests.spool.conftest import Place
from tests.spool.test_spool import answered

DAY = 86_400.0


@pytest.fixture
def spool(place: Place) -> Spool:
    spool = place.spool()
    spool.append([answered("r1", rows=4, keys=("a", "b", "c", "d")), answered("r2", rows=2)])
    return spool


@pytest.fixture
def tellers(spool: Spool, place: Place) -> Tellers:
    return place.tellers()


def now(spool: Spool) -> dict[tuple[int, int], int]:
    """Classes by request and place."""
    numbers = [one.number for one in spool.rows_after(0, 100)]
    return {
        (numbers.index(one.answered) + 1, one.place): one.y for one in spool.labels_after(0, 100)
    }


def test_a_name_is_held_against_others_and_its_own_past(spool: Spool, tellers: Tellers) -> None:
    spool.label([Feedback(1, "r1", place) for place in range(3)], "chargebacks", DAY)
    spool.label([Feedback(0, "r1", 3), Feedback(1, "r2", 0)], "desk", 2 * DAY)
    spool.label([Feedback(0, "r1", 0)], "desk", 3 * DAY)
    one, other = tellers.all()
    assert (one.name, one.labels, one.positives, one.one_class) == ("chargebacks", 3, 3, True)
    assert (one.compared, one.other, one.past, one.lately) == (1, 1, (2, 2), (1, 1))
    assert (other.name, other.labels, other.positives, other.one_class) == ("desk", 3, 1, False)
    assert (other.first, other.last, other.past, other.lately) == (2 * DAY, 3 * DAY, (2, 1), (1, 0))


def test_what_is_taken_back_is_what_others_told_or_no_label(spool: Spool, tellers: Tellers) -> None:
    spool.label([Feedback(0, "r1", 0)], "bad", 1.0)
    spool.label([Feedback(1, "r1", 0), Feedback(1, "r1", 1)], "bad", 5.0, lambda teller: True)
    spool.label([Feedback(1, "r1", 2)], "bad", 6.0)
    spool.label([Feedback(0, "r1", 2)], "desk", 7.0)
    spool.label([Feedback(1, "r1", 3)], "desk", 8.0)
    before = spool.labels_after(0, 100)[-1].number
    plan = tellers.plan("bad", 2.0)
    assert (plan.labels, plan.replaced, plan.first) == (3, 2, 5.0)
    assert tellers.revoke("bad", 2.0) == plan
    assert now(spool) == {(1, 0): 0, (1, 1): -1, (1, 2): 0, (1, 3): 1}
    assert {one.place for one in spool.labels_after(before, 100)} == {0, 1, 2}
    assert tellers.plan("bad", 2.0).labels == 0
    assert spool.told_of("r1", 1) == [(1, "bad (revoked)", 5.0)]


def test_a_row_whose_label_was_taken_back_takes_the_next_one(
    spool: Spool, tellers: Tellers
) -> None:
    spool.label([Feedback(1, "r1", 0)], "bad", 5.0)
    tellers.revoke("bad", 0.0)
    told = spool.label([Feedback(0, "r1", 0)], "desk", 6.0)
    assert (told.joined, told.repeated) == (1, 0)
    assert now(spool) == {(1, 0): 0}


def test_of_an_erased_row_nothing_is_left_but_that_it_was_there(
    spool: Spool, tellers: Tellers
) -> None:
    spool.label([Feedback(1, key="b"), Feedback(0, key="c")], "desk", 5.0)
    assert tellers.rows_of("b", None, None) == 1
    assert tellers.erase("b", None, None) == 1
    request, other = spool.rows_after(0, 10)
    assert np.isnan(request.columns["amount"]).tolist() == [False, True, False, False]
    assert request.columns["place"].tolist() == ["a", None, "a", "a"]
    assert np.isnan(request.probabilities).tolist() == [False, True, False, False]
    assert len(other) == 2
    assert spool.told_of("r1", 1) == []
    assert now(spool) == {(1, 2): 0, (1, 1): -1}
    assert tellers.rows_of("b", None, None) == 0
    assert (tellers.erase(None, "r2", 1), tellers.erase(None, "r9", None)) == (1, 0)


def test_files_with_rows_are_their_owners_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "spool.db").append([answered("r1")])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("spool.db*")}
    assert set(modes.values()) == {0o600}
