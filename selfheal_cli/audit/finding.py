"""The result of an audit: what was checked, findings, and notes; and a check of hash chains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding or note: where, and what."""

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

    def report(self, where: str, problem: str) -> None:
        """Add a finding: something does not hold."""
        self.findings.append(Finding(where, problem))

    def note(self, where: str, what: str) -> None:
        """Add a note: something that a reader should know, and that is no finding."""
        self.notes.append(Finding(where, what))


GENESIS = "0" * 64
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ChainHead(BaseModel):
    """The number of a chain's last link, and that link's digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sequence: int = Field(default=0, ge=0)
    digest: Digest = GENESIS


class ChainWatch:
    """Follows a chain link by link, and reports where it differs from a ``signed`` link of it."""

    def __init__(self, audit: Audit, where: str, signed: ChainHead | None) -> None:
        self._audit = audit
        self._where = where
        self._signed = signed
        self.head = ChainHead()

    def add(self, sequence: int, digest: str) -> None:
        """Take the next link."""
        self.head = ChainHead(sequence=sequence, digest=digest)
        if self._signed is not None and sequence == self._signed.sequence:
            self._audit.checked["signed marks"] += 1
            if digest != self._signed.digest:
                self._audit.report(
                    self._where,
                    f"number {sequence} is {digest[:12]}…, signed was {self._signed.digest[:12]}…: "
                    "what was signed was replaced",
                )

    def end(self) -> ChainHead:
        """The chain's last link, after a check that it is not before the signed one."""
        if self._signed is not None and self.head.sequence < self._signed.sequence:
            self._audit.report(
                self._where,
                f"ends at number {self.head.sequence}; there were {self._signed.sequence} when it "
                "was signed",
            )
        return self.head
