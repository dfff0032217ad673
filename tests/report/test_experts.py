"""What a report says of the experts of an ensemble."""

from __future__ import annotations

from selfheal_cli.events.types import HealPublished
from selfheal_cli.records import Evaluation
from selfheal_cli.report.experts import ExpertShares, in_words


def published(batch: int, recipe: str = "ensemble", **more: float) -> HealPublished:
    return HealPublished(
        heal_id=f"h{batch}", batch=batch, reason="new labels", recipe=recipe, from_snapshot="a",
        to_snapshot="b", before=None, after=None, evaluation=Evaluation.AWAITING, threshold=0.5,
        own_rows=False, gate={}, more=more,
    )  # fmt: skip


def test_who_answered_by_how_much_is_said_in_words_and_kinds() -> None:
    experts = ExpertShares()
    experts.add(published(3, weight_frozen=0.8, weight_random_990=0.1, weight_random_past_1=0.1))
    experts.add(published(9, weight_frozen=0.0, weight_random_990=1.0, apart_trees_2500=1.0))
    assert experts.sentences() == [
        "What answered, over 2 versions: 60% logistic regression on random features of the inputs, "
        "40% the network as trained.",
        "Expert trees_2500 gave no number, or could not be fitted, once, last in batch 9.",
    ]


def test_the_stream_is_told_of_in_a_few_stretches_however_long_it_is() -> None:
    experts = ExpertShares()
    for batch in range(1, 38):
        early = float(batch <= 16)
        experts.add(published(batch, weight_frozen=early, weight_trees_2500=1 - early))
    told = [(one.first, one.last, one.versions, one.carried()) for one in experts.stretches]
    network = [("frozen", "100%", "the network as trained")]
    trees = [("trees_2500", "100%", "boosted trees on the last 2,500 labelled rows")]
    assert told == [
        (1, 8, 8, network), (9, 16, 8, network), (17, 24, 8, trees), (25, 32, 8, trees),
        (33, 37, 5, trees),
    ]  # fmt: skip


def test_an_expert_is_named_in_words() -> None:
    assert in_words("inputs_700") == (
        "logistic regression on the inputs alone, forgetting 30.0% in 100 labelled rows"
    )
    assert in_words("filter_past_1").endswith("as it was before a break")


def test_of_other_recipes_nothing_is_said() -> None:
    experts = ExpertShares()
    experts.add(published(3, recipe="anchored", weight_frozen=1.0))
    assert experts.sentences() == []
