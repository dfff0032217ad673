"""What holds on rows of the user's own where nobody said otherwise, whatever begins the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.config import HealSettings
from selfheal_cli.model.tree_library import why_no_trees

RECIPE = "ensemble"
# monitors that miss least and cry least, docs/monitors.md. The last one needs labels
MONITORS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"name": name} for name in ("two-sample", "prediction-rate", "missing", "category")},
    "page-hinkley:on=errors": {"name": "page-hinkley", "on": ["errors"]},
}
DRIFT_BY = "monitors"
# of the policy, where its file says nothing of it
PUBLISHING: Mapping[str, Any] = {
    "publish_change": 0.003,
    "publish_share": 0.6,
    "brake_to": "best",
    "cooldown_until": "drift",
    "label_rate_of": "recent-or-training",
}
# an ensemble learns from the latest batches alone: the window holds those that it is judged on, and
# those of a pause after a rollback; its experts are charged before they learn, so that the gate
# needs fewer rows
OF_ENSEMBLE: Mapping[str, Any] = {
    "window": 12, "held_out": 0.1, "charged": 100, "trees_after": 1, "filter_steps": 25,
    "network_steps": 10,
}  # fmt: skip


def monitors(*, labelled: bool = True) -> list[dict[str, Any]]:
    """Those of rows that get labels, or of rows that never do."""
    return [dict(one) for one in MONITORS.values()][: None if labelled else -1]


def healing(recipe: str) -> dict[str, Any]:
    """How a recipe heals such rows; the article's as its own stream."""
    if recipe == "article":
        return {
            "better_by": "f1", "pre_heal": "version", "progressive": False, "trees": False,
            "verdict": "window",
        }  # fmt: skip
    ensemble = recipe == "ensemble"
    return {
        "better_by": "paired", "pre_heal": "figures", "progressive": True, "verdict": "change",
        "trees": ensemble and not why_no_trees(), **(OF_ENSEMBLE if ensemble else {}),
    }  # fmt: skip


def with_recipe(heal: HealSettings, recipe: str) -> HealSettings:
    """The same settings with another recipe: of those that an ensemble has as its own, what nobody
    said otherwise is as that recipe has it.
    """
    usual = HealSettings().model_dump()
    before, after = (
        {**usual, **OF_ENSEMBLE} if one == "ensemble" else usual for one in (heal.recipe, recipe)
    )
    unsaid = {name: after[name] for name in OF_ENSEMBLE if getattr(heal, name) == before[name]}
    return heal.model_copy(update={"recipe": recipe, **unsaid})
