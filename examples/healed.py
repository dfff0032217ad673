"""What the examples share: a stream of rows shown to a wrapped module, and a table at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from selfheal_cli import SelfHealing

STEP = 50  # rows that are scored, and then shown with their labels


@dataclass(frozen=True)
class Story:
    """Accuracy over all rows of the stream, each scored before anything learned from it.

    ``restored`` is the version that the rollback made the champion, out of ``heals`` healed ones.
    """

    no_heal: float
    healed: float
    majority: float
    rows: int
    heals: int
    restored: int

    def __str__(self) -> str:
        lines = (("no heal", self.no_heal), ("healed", self.healed), ("majority", self.majority))
        table = "\n".join(f"{what:<10} {accuracy:.3f}   {self.rows}" for what, accuracy in lines)
        return (
            f"{'':<10} accuracy rows\n{table}\n"
            f"rolled back to version {self.restored}, the best of {self.heals} healed ones"
        )


def show(
    module: nn.Module,
    known: tuple[np.ndarray, np.ndarray],
    stream: tuple[np.ndarray, np.ndarray],
    *,
    name: str,
    **wrapping: Any,
) -> Story:
    """Wrap the module, show it the stream with labels, roll back, and print what came of it."""
    x, y = stream
    with SelfHealing(module, *known, name=name, batch_size=STEP, mode="sync", **wrapping) as model:
        for at in range(0, len(y), STEP):
            model.observe(x[at : at + STEP], y[at : at + STEP])
    view = model.close().view
    accuracy = {stage["title"]: stage["accuracy"] for stage in view.finished.stages}
    story = Story(
        no_heal=accuracy["Shadow (frozen)"],
        healed=accuracy["Live (healing)"],
        majority=float(np.bincount(y).max() / len(y)),
        rows=len(y),
        heals=sum(row.phase == "post-heal" for row in view.snapshots.values()),
        restored=model.rollback("to show that it can be done", to="previous"),
    )
    print(story)  # noqa: T201 (it is what the examples are run for)
    return story
