"""What an audit found to hold, as a document that can be signed and held against later."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from selfheal_cli.audit.chain import Digest, Mark
from selfheal_cli.audit.finding import Audit
from selfheal_cli.errors import AuditFailed

MAX_BYTES = 64 << 20


class Statement(BaseModel):
    """Where everything of a model stood. Chains only grow, so that each later state goes on from
    these marks or something was changed.

    ``runs`` is by run id, ``versions`` the sha256 by number, ``aliases`` the version by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    at: datetime
    by: str
    store: str
    runs: Mapping[str, Mark]
    journal: Mark
    versions: Mapping[int, Digest]
    aliases: Mapping[str, int]

    def as_bytes(self) -> bytes:
        """The bytes that are signed."""
        document = self.model_dump(mode="json")
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_statement(text: bytes, where: str) -> Statement:
    """The signed bytes as a statement; raises `AuditFailed` for anything else."""
    try:
        return Statement.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise AuditFailed(f"{where}: not a statement of an audit: {place}: {first['msg']}") from exc


def audit_signed_versions(
    audit: Audit, signed: Statement, versions: Mapping[int, str], pruned: Collection[int]
) -> None:
    """Versions as they are against those that were signed."""
    for number, sha256 in signed.versions.items():
        audit.checked["signed versions"] += 1
        where = f"{signed.model} v{number}"
        found = versions.get(number)
        if found is None and number not in pruned:
            audit.found(where, f"was there when signed at {signed.at}, and was not pruned since")
        elif found is not None and found != sha256:
            audit.found(where, f"its sha256 is {found[:12]}…, signed was {sha256[:12]}…")
