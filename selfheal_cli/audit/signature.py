"""Signed statements of an audit: Ed25519, with keys that `openssl` or `ssh-keygen` make."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from selfheal_cli.audit.finding import Audit, ChainHead, Digest
from selfheal_cli.errors import AuditFailed, ConfigurationError

MAX_BYTES = 64 << 20


class Statement(BaseModel):
    """The state of a model's records at one time. Chains only grow: a later state that does not
    continue these was changed.

    ``runs`` is by run id, ``versions`` the sha256 by number, ``aliases`` the version by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    at: datetime
    by: str
    store: str
    runs: Mapping[str, ChainHead]
    journal: ChainHead
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
    """Compare the sha256 of versions with the signed ones."""
    for number, sha256 in signed.versions.items():
        audit.checked["signed versions"] += 1
        where = f"{signed.model} v{number}"
        current = versions.get(number)
        if current is None and number not in pruned:
            audit.report(where, f"was there when signed at {signed.at}, and was not pruned since")
        elif current is not None and current != sha256:
            audit.report(where, f"its sha256 is {current[:12]}…, signed was {sha256[:12]}…")


FORMAT = "selfheal-audit-1"
MAX_KEY = 16_384
MAKE_KEY = "make one with 'openssl genpkey -algorithm ed25519 -out key.pem'"
MAKE_PUBLIC = "make it with 'openssl pkey -in key.pem -pubout -out public.pem'"


def sign(statement: Statement, key: Ed25519PrivateKey, path: Path) -> None:
    """Write a statement with its signature."""
    text = statement.as_bytes()
    document = {
        "format": FORMAT,
        "statement": text.decode(),
        "signature": base64.b64encode(key.sign(text)).decode(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def verified(path: Path, key: Ed25519PublicKey) -> Statement:
    """The statement in a file, after its signature was verified.

    Raises `AuditFailed` for another key's or a changed one, `ConfigurationError` for no such file.
    """
    try:
        document = json.loads(_read(path, MAX_BYTES))
        if document["format"] != FORMAT:
            raise AuditFailed(f"{path}: format is {document['format']!r}, known is {FORMAT!r}")
        text = document["statement"].encode()
        key.verify(base64.b64decode(document["signature"], validate=True), text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as exc:
        raise AuditFailed(f"{path}: not a signed audit ({exc})") from exc
    except InvalidSignature as exc:
        raise AuditFailed(
            f"{path}: the signature is not of this key, or what it signs was changed"
        ) from exc
    return parse_statement(text, str(path))


def private_key(path: Path, ask_password: Callable[[], str]) -> Ed25519PrivateKey:
    """A key to sign with, PEM or OpenSSH; ``ask_password`` is called where it has a password.

    Raises `ConfigurationError` for another file.
    """
    data = _read(path, MAX_KEY)
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH PRIVATE KEY" in data
        else serialization.load_pem_private_key
    )
    try:
        try:
            key = load(data, password=None)
        except TypeError:  # it has a password
            key = load(data, password=ask_password().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(
            f"{path}: not a private key that can be read ({exc}); {MAKE_KEY}"
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: not an Ed25519 key; {MAKE_KEY}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """A key to verify with, PEM or OpenSSH; raises `ConfigurationError` for another file."""
    data = _read(path, MAX_KEY)
    load = (
        serialization.load_ssh_public_key
        if data.startswith(b"ssh-")
        else serialization.load_pem_public_key
    )
    try:
        key = load(data)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(f"{path}: not a public key ({exc}); {MAKE_PUBLIC}") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path}: not an Ed25519 key; {MAKE_KEY}, {MAKE_PUBLIC}")
    return key


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror}") from exc
    if len(data) > limit:
        raise ConfigurationError(f"{path}: longer than {limit:,} bytes")
    return data
