"""What decisions are for and how many rows a batch takes, by how rare the positives are."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from selfheal_cli.settings.reference import percent

# Below it, saying "no" to every row is right in more than nine rows of ten, and accuracy rewards
# just that.
RARE = 0.10
USUAL = 100  # rows a batch
EXPECTED = 5  # positives in a batch, below which its F1 is mostly 0 or 1 by chance
LARGEST = 1_000  # rows a batch; waiting longer for a heal costs more than it tells
FEWEST_BATCHES = 20  # of a stream, so that there is something to see


@dataclass(frozen=True, slots=True)
class RarityAdvice:
    """For rare positives; ``objective`` and ``batch_size`` with a sentence each that says why."""

    rarity: str
    objective: str
    because: str
    batch_size: int
    held: str

    def __str__(self) -> str:
        return f"{self.rarity}: {self.because}; {self.held}"


def advise(positives: int, rows: int, streamed: int | None = None) -> RarityAdvice | None:
    """From the positives among the training rows of two classes, and how many rows will stream;
    None where positives are not rare, so that accuracy and the usual batch will do.

    >>> str(advise(80, 5_000))
    'positives are rare (80 of 5,000 training rows, 1.6 %): objective f1, since flagging nothing \
would be right in 98.4 % of rows; batches of 400 rows hold some 6 positives each'
    >>> advise(2_000, 5_000)
    """
    share = positives / rows if rows else 0.0
    if not 0 < share < RARE:
        return None
    most = min(LARGEST, rows, *([] if streamed is None else [streamed // FEWEST_BATCHES]))
    size = max(USUAL, min(most, USUAL * ceil(EXPECTED / share / USUAL)))
    return RarityAdvice(
        rarity=f"positives are rare ({positives:,} of {rows:,} training rows, "
        f"{percent(positives, rows)})",
        objective="f1",
        because="objective f1, since flagging nothing would be right in "
        f"{percent(rows - positives, rows)} of rows",
        batch_size=size,
        held=f"batches of {size:,} rows hold some {share * size:.0f} positives each",
    )
