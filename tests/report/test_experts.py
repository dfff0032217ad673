"""What a report says of the experts of an ensemble."""

from __future__ import annotations

from selfheal_cli.events.types import HealPublished
from selfheal_cli.records import Evaluation
from selfheal_cli.report.experts import ExpertShares


def published(batch: int, recipe: str = "ensemble", **more: float) -> HealPublished:
    return HealPublished(
        heal_id=f"h{batch}", batch=batch, reason="new labels", recipe=recipe, from_snapshot="a",
        to_snapshot="b", before=None, after=None, evaluation=Evaluation.AWAITING, threshold=0.5,
        own_rows=False, gate={}, more=more,
    )  # fmt: skip


def test_who_carried_how_much_and_when_is_said_in_words() -> None:
    experts = ExpertShares()
    experts.add(published(3, weight_frozen=0.8, weight_random_990=0.2))
    experts.add(published(9, weight_frozen=0.0, weight_random_990=1.0, apart_trees_2500=1.0))
    assert experts.sentences() == [
        "Of the mixture, over 2 versions: random_990 carried 60% (most, 100%, in batch 9); frozen "
        "carried 40% (most, 80%, in batch 3).",
        "Expert trees_2500 gave no number, or could not be fitted, once, last in batch 9.",
    ]


def test_of_other_recipes_nothing_is_said() -> None:
    experts = ExpertShares()
    experts.add(published(3, recipe="anchored", weight_frozen=1.0))
    assert experts.sentences() == []
