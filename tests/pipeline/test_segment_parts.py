"""What of a heal is published by segment: who is better on its own rows, whoever else is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import SegmentSettings
from selfheal_cli.config_policy import Policy
from selfheal_cli.heal.engine import LiveModel, Serving
from selfheal_cli.heal.recipes.segmented import by_code
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows
from selfheal_cli.model.segmented import apart
from selfheal_cli.pipeline.stream.parts import SegmentParts
from selfheal_cli.segment_keys import code_of
from tests.heal.test_segmented import RECIPES, begun, heal, rows_of


def rows(seed: int) -> HealRows:
    """Shop a can be learned; in b heads and tails are as likely, whatever the inputs."""
    _, given = rows_of(seed, ("a", "b"))
    y = given.y.copy()
    y[40:] = np.random.default_rng(seed).integers(0, 2, 40)
    return replace(given, y=y)


@pytest.fixture(scope="module")
def outcome() -> HealOutcome:
    """The last of some heals of which none was published."""
    state = begun()
    for seed in range(5):
        outcome = heal(state, rows(seed))
        state = AdapterState(state.weights, outcome.after.memory)
    return outcome


@pytest.fixture(scope="module")
def parts() -> SegmentParts:
    served = begun()
    serving = Serving(RECIPES.network.with_adapter(served.weights), served, "", 0.5)
    config = SimpleNamespace(
        policy=Policy(publish_change=0.003), batch_size=80, segments=SegmentSettings(by="shop")
    )
    run: Any = SimpleNamespace(config=config, live=LiveModel(serving))
    segments: Any = SimpleNamespace(names=("a", "b"))
    return SegmentParts(run, segments)


def test_a_segment_that_is_better_on_its_own_rows_is_published_and_no_other_with_it(
    outcome: HealOutcome, parts: SegmentParts
) -> None:
    of = parts.of(outcome, None, 0.5)
    served, _ = apart(begun().weights)
    (whole, own), (healed, also) = apart(of.alone.after.weights), apart(of.full.after.weights)
    assert list(by_code(own)) == list(by_code(also)) == [int(code_of("a"), 16)]
    assert all(whole[name].equal(one) for name, one in served.items())
    assert not all(healed[name].equal(one) for name, one in served.items())
    assert of.fresh
    assert of.alone.task.reason.startswith("; alone for shop a (log loss lower by 0.")
    assert of.alone.task.reason.endswith("on 200 rows of its own)")
    unlike = of.alone.probabilities_after != outcome.probabilities_before
    assert (unlike[40:] == False).all()  # noqa: E712 - of shop b
    assert unlike[:40].mean() > 0.9


def test_what_was_kept_unpublished_is_not_fresh_again(
    outcome: HealOutcome, parts: SegmentParts
) -> None:
    kept = RECIPES.network.with_adapter(parts.of(outcome, None, 0.5).alone.after.weights)
    again = parts.of(outcome, kept, 0.5)
    assert not again.fresh
    assert by_code(apart(again.alone.after.weights)[1])


def test_evidence_begins_anew_once_another_adapter_serves_the_segment(
    outcome: HealOutcome, parts: SegmentParts
) -> None:
    alone = parts.of(outcome, None, 0.5).alone
    after = heal(AdapterState(alone.after.weights, alone.after.memory), rows(9)).after.memory
    counts = {int(row[0]): int(row[2]) for row in after["segments.evidence"].tolist()}
    assert counts == {int(code_of("a"), 16): 40, int(code_of("b"), 16): 240}
