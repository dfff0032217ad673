"""What is said of labels: that they came, were corrected, learned anew or set apart."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from selfheal_cli.events.event import SCORES, OfBatch
from selfheal_cli.records import LabelVerdict
from selfheal_cli.scores import AnyScores


class LabelsArrived(OfBatch, kind="labels"):
    """Labels of rows of a batch came, perhaps not all at once: the scores are of these rows."""

    rows: int
    live: AnyScores = field(metadata=SCORES)
    shadow: AnyScores = field(metadata=SCORES)


class LabelsMatured(OfBatch, kind="labels-matured"):
    """The time of rows of a batch was over, so that they count from now on.

    ``negatives`` of the ``rows`` are so because nobody had said anything ``by`` then, in the
    stream's own time.
    """

    rows: int
    negatives: int
    by: float


class LabelsCorrected(OfBatch, kind="labels-corrected"):
    """Rows of a batch had another label than the one that was told first, as ``in_batch`` says.

    ``live`` and ``shadow`` are the counts of these rows with their labels as now known, ``was`` and
    ``was_shadow`` as they had been counted.
    """

    is_action: ClassVar[bool] = True
    rows: int
    in_batch: int
    live: AnyScores = field(metadata=SCORES)
    shadow: AnyScores = field(metadata=SCORES)
    was: AnyScores = field(metadata=SCORES)
    was_shadow: AnyScores = field(metadata=SCORES)

    @property
    def why(self) -> str:
        """What came."""
        return f"{self.rows} labels of batch {self.batch} were corrected"

    def __str__(self) -> str:
        return self.why


class LabelsRelearned(OfBatch, kind="labels-relearned"):
    """Corrected labels were learned from as if they had been right at once: ``rows`` of them, from
    batch ``since`` on, through ``heals`` heals; what serves follows by a heal of this batch.

    ``beyond`` rows are further back than ``labels.horizon``: they change figures alone.
    """

    is_action: ClassVar[bool] = True
    rows: int
    since: int
    heals: int
    beyond: int

    @property
    def why(self) -> str:
        """What was done with them."""
        old = f"; {self.beyond} labels are too old and change figures alone" if self.beyond else ""
        if not self.rows:
            return f"labels were corrected{old}"
        return (
            f"{self.rows} labels were corrected: learned anew from batch {self.since} on, "
            f"{self.heals} heals{old}"
        )

    def __str__(self) -> str:
        return self.why


class LabelsQuarantined(OfBatch, kind="labels-quarantined"):
    """Labels whose rate was out of all proportion, or was believed after all."""

    is_action: ClassVar[bool] = True
    rows: int
    held_back: bool
    verdict: LabelVerdict = field(metadata={"flat": LabelVerdict, "decode": LabelVerdict})

    @property
    def why(self) -> str:
        """What the labels look like."""
        return self.verdict.reason

    def __str__(self) -> str:
        return f"implausible labels in batch {self.batch}"
