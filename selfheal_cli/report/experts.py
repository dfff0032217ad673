"""Which expert of an ensemble carried how much, and when."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from selfheal_cli.events.types import HealPublished

SHARE, APART = "weight_", "apart_"
NAMED = 3  # experts that are told of
LEAST = 0.05  # share of the mixture that is worth a word


@dataclass(slots=True)
class ExpertShares:
    """Shares of the experts over the versions that an ensemble published.

    ``most`` is an expert's largest share with its batch; ``apart`` the batches in which one
    failed: how many, and the last.
    """

    versions: int = 0
    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    most: dict[str, tuple[float, int]] = field(default_factory=dict)
    apart: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, heal: HealPublished) -> None:
        """Take a heal; those of other recipes have no experts to tell of."""
        if heal.recipe != "ensemble":
            return
        self.versions += 1
        for key, value in heal.more.items():
            name = key.removeprefix(SHARE)
            if key.startswith(SHARE):
                self.total[name] += value
                self.most[name] = max(self.most.get(name, (-1.0, 0)), (value, heal.batch))
            elif key.startswith(APART):
                name = key.removeprefix(APART)
                self.apart[name] = (self.apart.get(name, (0, 0))[0] + 1, heal.batch)

    def sentences(self) -> list[str]:
        """In words; nothing without versions of an ensemble."""
        if not self.versions:
            return []
        ranked = sorted(self.total, key=lambda name: (-self.total[name], name))
        worth = [one for one in ranked if self.total[one] / self.versions >= LEAST][:NAMED]
        carried = (self._carried(name) for name in worth or ranked[:1])
        told = [f"Of the mixture, over {self.versions:,} versions: {'; '.join(carried)}."]
        told += [
            f"Expert {name} gave no number, or could not be fitted, "
            f"{'once' if times == 1 else f'{times:,} times'}, last in batch {batch:,}."
            for name, (times, batch) in sorted(self.apart.items())
        ]
        return told

    def _carried(self, name: str) -> str:
        most, batch = self.most[name]
        mean = self.total[name] / self.versions
        return f"{name} carried {mean:.0%} (most, {most:.0%}, in batch {batch:,})"
