"""Which expert of an ensemble carried how much, and when."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from selfheal_cli.events.types import HealPublished

SHARE, APART = "weight_", "apart_"
NAMED = 3  # experts that are told of
LEAST = 0.05  # share of the mixture that is worth a word
MOST = 8  # stretches of the stream that are told of
KINDS = {
    "filter": "logistic regression around the network's logit",
    "random": "the same on random features of the inputs",
    "inputs": "logistic regression on the inputs alone",
}
SHORTLY = KINDS | {
    "frozen": "the network as trained",
    "scale": "the network's logit, scaled and shifted",
    "random": "logistic regression on random features of the inputs",
    "network": "a small network that goes on learning",
    "trees": "boosted trees",
}


def in_words(name: str) -> str:
    """What an expert is, by its name in the log."""
    kind, _, rest = name.partition("_")
    if kind == "trees" and rest.isdecimal():
        return f"boosted trees on the last {int(rest):,} labelled rows"
    if kind in KINDS and rest.isdecimal():
        return f"{KINDS[kind]}, forgetting {1 - int(rest) / 1_000:.1%} in 100 labelled rows"
    if kind in KINDS:
        return f"{KINDS[kind]}, as it was before a break"
    known = {
        "frozen": SHORTLY["frozen"],
        "scale": "its logit, scaled and shifted",
        "network": "a small network on the inputs that learns by gradient steps",
    }
    return known.get(name, name)


@dataclass(slots=True)
class SharesOfStretch:
    """What was published from a batch to another: each expert's shares added up."""

    first: int
    last: int
    versions: int = 0
    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def join(self, later: SharesOfStretch) -> None:
        """Take the stretch that follows."""
        self.last, self.versions = later.last, self.versions + later.versions
        for name, share in later.total.items():
            self.total[name] += share

    def carried(self) -> list[tuple[str, str, str]]:
        """Name, share and words of those that carried most."""
        ranked = sorted(self.total, key=lambda name: (-self.total[name], name))[:NAMED]
        shares = [(name, self.total[name] / self.versions) for name in ranked]
        return [(name, f"{s:.0%}", in_words(name)) for name, s in shares if s >= LEAST]


@dataclass(slots=True)
class ExpertShares:
    """Shares of the experts over the versions that an ensemble published.

    ``apart`` has the batches in which one failed: how many, and the last. ``stretches`` hold
    equally many versions, the last one fewer.
    """

    versions: int = 0
    total: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    apart: dict[str, tuple[int, int]] = field(default_factory=dict)
    stretches: list[SharesOfStretch] = field(default_factory=list)
    _each: int = 1  # versions of a stretch

    def add(self, heal: HealPublished) -> None:
        """Take a heal; those of other recipes have no experts to tell of."""
        if heal.recipe != "ensemble":
            return
        self.versions += 1
        self._stretch(heal)
        for key, value in heal.more.items():
            name = key.removeprefix(SHARE)
            if key.startswith(SHARE):
                self.total[name.partition("_")[0]] += value
            elif key.startswith(APART):
                name = key.removeprefix(APART)
                self.apart[name] = (self.apart.get(name, (0, 0))[0] + 1, heal.batch)

    def _stretch(self, heal: HealPublished) -> None:
        shares = {key.removeprefix(SHARE): v for key, v in heal.more.items() if SHARE in key}
        own = SharesOfStretch(heal.batch, heal.batch, 1, defaultdict(float, shares))
        if self.stretches and self.stretches[-1].versions < self._each:
            self.stretches[-1].join(own)
            return
        self.stretches.append(own)
        if len(self.stretches) > MOST:  # they grow twice as long, so that there are never many
            self._each *= 2
            for place in range(0, MOST, 2):
                self.stretches[place].join(self.stretches[place + 1])
            del self.stretches[1:MOST:2]

    def sentences(self) -> list[str]:
        """In words; nothing without versions of an ensemble."""
        if not self.versions:
            return []
        ranked = sorted(self.total, key=lambda name: (-self.total[name], name))
        worth = [one for one in ranked if self.total[one] / self.versions >= LEAST][:NAMED]
        carried = (
            f"{self.total[one] / self.versions:.0%} {SHORTLY.get(one, one)}"
            for one in worth or ranked[:1]
        )
        told = [f"What answered, over {self.versions:,} versions: {', '.join(carried)}."]
        told += [
            f"Expert {name} gave no number, or could not be fitted, "
            f"{'once' if times == 1 else f'{times:,} times'}, last in batch {batch:,}."
            for name, (times, batch) in sorted(self.apart.items())
        ]
        return told
