"""Which version is better: only what came after it counts, and only what cannot be chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfheal_cli.events.evidence import POSITIVES, WINDOW, Evidence
from selfheal_cli.events.types import CandidatesCompared
from selfheal_cli.report.recommendation import stay

ROWS = 100


def evidence(gains: dict[str, float], noise: float = 0.05, batches: int = WINDOW) -> Evidence:
    """Candidates that are better by so much a row, with noise between batches."""
    random, kept = np.random.default_rng(3), Evidence()
    for batch in range(1, batches + 1):
        served = 40 + float(random.normal())
        losses = {
            name: served - ROWS * (gain + noise * float(random.normal()))
            for name, gain in gains.items()
        }
        kept.add(_event(batch, served, losses))
    return kept


def _event(
    batch: int, served: float, losses: dict[str, float], positives: int = 10
) -> CandidatesCompared:
    return CandidatesCompared(
        batch=batch, rows=ROWS, positives=positives, serving="now", served=served, losses=losses
    )


def test_a_version_that_lost_less_in_batch_after_batch_is_better() -> None:
    best, other = evidence({"old": 0.1, "older": 0.0}).gains()
    assert (best.snapshot, best.certain, other.certain) == ("old", True, False)
    assert 0 < best.low < best.gain == pytest.approx(0.1, abs=0.04)
    assert (best.batches, best.rows, best.positives) == (WINDOW, WINDOW * ROWS, 10 * WINDOW)


def test_versions_that_are_no_better_are_not_called_so() -> None:
    kept = evidence({f"v{number}": 0.0 for number in range(8)})
    assert not any(one.certain for one in kept.gains())


def test_the_more_versions_are_asked_the_surer_one_must_be() -> None:
    alone = evidence({"old": 0.1}).gains()[0]
    of_many = evidence({"old": 0.1} | {f"v{n}": 0.1 for n in range(7)}).gains()
    assert {one.candidates for one in of_many} == {8}
    assert alone.candidates == 1
    assert min(one.gain - one.low for one in of_many) > 0


def test_with_more_than_two_classes_nothing_is_called_a_positive() -> None:
    kept = evidence({"old": 0.0})
    assert "200 positives" in stay(kept, kept.gains()[0])
    kept.of_classes(("poor", "fair", "good"))
    assert "200 rows that are not of the commonest class" in stay(kept, kept.gains()[0])


def test_nothing_is_said_on_too_few_batches_or_too_few_positives() -> None:
    assert evidence({"old": 1.0}, batches=WINDOW - 1).gains() == []
    rare = Evidence()
    for batch in range(1, WINDOW + 5):
        positives = POSITIVES if batch == 2 else 0
        rare.add(_event(batch, 40.0, {"old": 20.0 + batch % 2}, positives=positives))
    assert rare.gains()[0].batches == WINDOW + 3  # as many more as hold the positives


def test_a_version_made_within_the_window_is_not_asked() -> None:
    kept = evidence({"old": 0.0})
    kept.add(_event(WINDOW + 1, 40.0, {"old": 40.0, "young": 1.0}))
    assert [one.snapshot for one in kept.gains()] == ["old"]


def test_labels_that_come_in_parts_are_added_up_over_those_asked_about_all_of_them() -> None:
    kept = Evidence()
    kept.add(_event(1, 40.0, {"old": 30.0}))
    kept.add(_event(1, 41.0, {"old": 31.0, "young": 1.0}))
    assert kept.batches[1].rows == 2 * ROWS
    assert kept.batches[1].losses == {"old": 61.0}


def test_what_serves_by_now_may_be_a_candidate_itself() -> None:
    kept = evidence({"old": 0.1, "older": 0.4})
    assert [one.snapshot for one in kept.gains("old")] == ["older"]
    assert not any(one.certain for one in kept.gains("older"))


def test_what_has_learned_since_is_not_gone_back_from() -> None:
    """Where labels come late, what answered the rows is not what serves when they come."""
    late = Evidence()
    for batch in range(1, WINDOW + 1):
        event = _event(batch, 90.0, {"old": 40.0 + batch % 2})
        late.add(replace(event, by_now=40.0))
    assert not late.gains()[0].certain


def test_a_gain_that_nobody_would_notice_is_no_reason_to_move() -> None:
    slight = evidence({"old": 0.001}, noise=1e-5).gains()[0]
    assert slight.low > 0
    assert not slight.certain
