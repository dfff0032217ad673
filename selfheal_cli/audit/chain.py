"""Where a chain of hashes stands, and whether it still holds what was signed of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.audit.finding import Audit

GENESIS = "0" * 64
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Mark(BaseModel):
    """The number of a chain's last link, and that link's digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sequence: int = Field(default=0, ge=0)
    digest: Digest = GENESIS


class ChainWatch:
    """Looks on while a chain is walked; ``signed`` is where it stood once, by a signature."""

    def __init__(self, audit: Audit, where: str, signed: Mark | None) -> None:
        self._audit = audit
        self._where = where
        self._signed = signed
        self.mark = Mark()

    def see(self, sequence: int, digest: str) -> None:
        """The next link."""
        self.mark = Mark(sequence=sequence, digest=digest)
        if self._signed is not None and sequence == self._signed.sequence:
            self._audit.checked["signed marks"] += 1
            if digest != self._signed.digest:
                self._audit.found(
                    self._where,
                    f"number {sequence} is {digest[:12]}…, signed was {self._signed.digest[:12]}…: "
                    "what was signed was replaced",
                )

    def end(self) -> Mark:
        """Where the chain stands."""
        if self._signed is not None and self.mark.sequence < self._signed.sequence:
            self._audit.found(
                self._where,
                f"ends at number {self.mark.sequence}; there were {self._signed.sequence} when it "
                "was signed",
            )
        return self.mark
