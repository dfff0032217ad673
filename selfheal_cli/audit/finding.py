"""What an audit looked at, and what does not hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: where, and what is wrong with it."""

    where: str
    problem: str


@dataclass(slots=True)
class Audit:
    """Everything that was checked, by kind, and the findings in their order."""

    checked: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def found(self, where: str, problem: str) -> None:
        """Something does not hold."""
        self.findings.append(Finding(where, problem))
