"""What an audit looked at, what does not hold, and what was seen and is nobody's fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: where, and what is to be said of it."""

    where: str
    problem: str


@dataclass(slots=True)
class Audit:
    """Everything that was checked, by kind; the findings and the notes in their order.

    ``strangers`` are versions whose requirements ask for a distribution of ours, as 0.1.0 wrote
    them: indexes have another project by that name.
    """

    checked: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)

    def found(self, where: str, problem: str) -> None:
        """Something does not hold."""
        self.findings.append(Finding(where, problem))

    def seen(self, where: str, what: str) -> None:
        """Something that a reader should know, and that speaks against nobody."""
        self.notes.append(Finding(where, what))
