"""Rare positives get an objective and a batch size that can tell something of them."""

from __future__ import annotations

import pytest

from selfheal_cli.settings.objective import EXPECTED, LARGEST, RARE, advise


@pytest.mark.parametrize("share", [0.0, RARE, 0.5, 1.0])
def test_positives_that_are_not_rare_need_nothing(share: float) -> None:
    assert advise(int(share * 10_000), 10_000) is None


@pytest.mark.parametrize(("positives", "size"), [(900, 100), (500, 100), (200, 300), (70, 800)])
def test_a_batch_holds_as_many_positives_as_f1_needs(positives: int, size: int) -> None:
    advice = advise(positives, 10_000)
    assert advice is not None
    assert (advice.objective, advice.batch_size) == ("f1", size)
    assert advice.batch_size * positives / 10_000 >= EXPECTED


def test_a_batch_is_never_so_large_that_a_heal_has_to_wait_for_it() -> None:
    advice = advise(5, 100_000)
    assert advice is not None
    assert advice.batch_size == LARGEST


def test_a_short_stream_still_has_batches_to_look_at() -> None:
    advice = advise(10, 1_000, streamed=6_000)
    assert advice is not None
    assert advice.batch_size == 300
