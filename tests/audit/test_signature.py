"""What was signed is proven by the public key alone, whoever owns the machine."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from selfheal_cli.audit.finding import ChainHead
from selfheal_cli.audit.signature import Statement, private_key, public_key, sign, verified
from selfheal_cli.cli.main import main
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.events.log import read
from selfheal_cli.events.types import SnapshotTaken, VersionRegistered
from tests.audit.test_audit import client, the_log, the_whole_log_replaced_by_a_valid_one
from tests.conftest import Invoke, enter, moved

PEM, SSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
PASSWORD = b"correct horse"


def write_keys(
    name: str, key: Ed25519PrivateKey, *, ssh: bool = False, locked: bool = False
) -> None:
    """``NAME.key`` and ``NAME.pub`` in the working folder."""
    kind = serialization.PrivateFormat.OpenSSH if ssh else serialization.PrivateFormat.PKCS8
    lock = (
        serialization.BestAvailableEncryption(PASSWORD) if locked else serialization.NoEncryption()
    )
    Path(f"{name}.key").write_bytes(key.private_bytes(PEM, kind, lock))
    shape = (
        (SSH, serialization.PublicFormat.OpenSSH)
        if ssh
        else (PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    Path(f"{name}.pub").write_bytes(key.public_key().public_bytes(*shape))


@pytest.fixture(scope="module")
def once_signed(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the short run with an audit that a locked key signed, `ann`; and `bob`'s."""
    folder = tmp_path_factory.mktemp("signed")
    shutil.copytree(short_run, folder, dirs_exist_ok=True)
    moved(short_run, folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        patch.setattr("click.prompt", lambda *_, **__: PASSWORD.decode())
        write_keys("ann", Ed25519PrivateKey.generate(), locked=True)
        write_keys("bob", Ed25519PrivateKey.generate())
        said = CliRunner().invoke(main, ["audit", "--sign", "ann.key"]).stdout
        assert "Signed: audit-fraud.json" in said
    return folder


@pytest.fixture
def signed(once_signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, moved here; the signed audit's name."""
    shutil.copytree(once_signed, tmp_path, dirs_exist_ok=True)
    moved(once_signed, tmp_path)
    enter(tmp_path, monkeypatch)
    return Path("audit-fraud.json")


def findings(invoke: Invoke) -> str:
    audit = json.loads(invoke("audit", "--verify", "ann.pub", "--json", expect=4).stdout)
    return json.dumps(audit["findings"], ensure_ascii=False)


def test_what_came_after_the_signature_does_not_break_it(signed: Path, invoke: Invoke) -> None:
    invoke("rollback", "--to-best", "--yes")
    invoke("run", "--batches", "2", "--no-plots")
    audit = json.loads(invoke("audit", "--verify", "ann.pub", "--json").stdout)
    assert audit["holds"]
    assert audit["checked"]["signed versions"] == 9
    assert audit["checked"]["signed marks"] == 2  # the run's log and the journal
    assert audit["signed_at"]


def test_a_log_replaced_with_everything_that_would_show_it_is_found_by_the_signature(
    signed: Path, invoke: Invoke
) -> None:
    the_whole_log_replaced_by_a_valid_one()
    events = list(read(the_log()))
    run_id = events[0].run_id
    client().set_tag(run_id, "selfheal.log_head", events[-1].digest)
    digests = {e.id: e.digest for e in events if isinstance(e, SnapshotTaken)}
    for event in events:
        if isinstance(event, VersionRegistered):
            number, head = str(event.version), digests[event.snapshot]
            client().set_model_version_tag("fraud", number, "selfheal.log_head", head)
            model_id = client().get_model_version("fraud", number).source.removeprefix("models:/")
            client().set_logged_model_tags(model_id, {"selfheal.log_head": head})
    with closing(sqlite3.connect("mlflow.db")) as store:
        ((journal, key, text),) = store.execute(
            "SELECT run_uuid, key, value FROM params WHERE value LIKE '%log_head%'"
        )
        entry = json.loads(text)
        entry["data"]["log_head"] = events[-1].digest
        forged = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        change = "UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?"
        store.execute(change, (forged, journal, key))
        store.execute("UPDATE metrics SET value = 0 WHERE key = 'conflicts' AND step = 3")
        store.commit()
    invoke("audit")  # everything agrees with everything
    assert "what was signed was replaced" in findings(invoke)


def test_a_log_cut_back_to_before_the_signature_is_found(signed: Path, invoke: Invoke) -> None:
    lines = the_log().read_text().splitlines(keepends=True)
    the_log().write_text("".join(lines[:-5]))
    assert f"there were {len(lines)} when it was signed" in findings(invoke)


def test_a_version_deleted_since_is_found_and_a_pruned_one_is_not(
    signed: Path, invoke: Invoke
) -> None:
    Path("few.yaml").write_text("retention: {keep_best: 1, keep_last: 1, keep_days: 0}\n")
    invoke("prune", "--apply", "--policy", "few.yaml")
    assert len(client().search_model_versions("name = 'fraud'")) < 9
    invoke("audit", "--verify", "ann.pub")
    left = max(int(v.version) for v in client().search_model_versions("name = 'fraud'"))
    client().delete_model_version("fraud", str(left))
    assert f"fraud v{left}" in findings(invoke)


@pytest.mark.parametrize("part", ["statement", "signature"])
def test_a_changed_document_is_refused(signed: Path, invoke: Invoke, part: str) -> None:
    document = json.loads(signed.read_text())
    value = document[part]
    place = value.index("5") if "5" in value else len(value) // 2
    document[part] = f"{value[:place]}{'6' if value[place] != '6' else '7'}{value[place + 1 :]}"
    signed.write_text(json.dumps(document))
    said = invoke("audit", "--verify", "ann.pub", expect=4).stderr
    assert "the signature is not of this key, or what it signs was changed" in said


def test_another_key_is_refused(signed: Path, invoke: Invoke) -> None:
    assert "not of this key" in invoke("audit", "--verify", "bob.pub", expect=4).stderr


def test_what_does_not_hold_is_not_signed(short_copy: Path, invoke: Invoke) -> None:
    write_keys("ann", Ed25519PrivateKey.generate())
    client().set_registered_model_alias("fraud", "champion", "7")
    invoke("audit", "--sign", "ann.key", expect=4)
    assert not Path("audit-fraud.json").exists()


@pytest.mark.parametrize("ssh", [False, True])
def test_keys_of_ssh_sign_and_verify_and_a_locked_one_asks_for_its_password(
    empty_dir: Path, ssh: bool
) -> None:
    write_keys("its", Ed25519PrivateKey.generate(), ssh=ssh, locked=not ssh)  # ssh's needs bcrypt
    head = ChainHead()
    statement = Statement(
        model="m", at=datetime.now(UTC), by="ann", store="s", runs={}, journal=head, versions={},
        aliases={},
    )  # fmt: skip
    sign(statement, private_key(Path("its.key"), PASSWORD.decode), Path("signed.json"))
    assert verified(Path("signed.json"), public_key(Path("its.pub"))) == statement


def test_openssl_checks_the_signature_without_selfheal(signed: Path) -> None:
    import base64

    document = json.loads(signed.read_text())
    Path("text").write_text(document["statement"])
    Path("sig").write_bytes(base64.b64decode(document["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "ann.pub", "-rawin",
               "-in", "text", "-sigfile", "sig"]  # fmt: skip
    assert (
        b"Verified Successfully"
        in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )


def test_keys_that_cannot_be_used_are_exit_3_in_one_line(workdir: Path, invoke: Invoke) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    Path("ec.key").write_bytes(
        elliptic.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    Path("junk").write_bytes(b"\x00junk")
    Path("huge").write_bytes(b"x" * 20_000)
    write_keys("ann", Ed25519PrivateKey.generate())
    for arguments, what in (
        (("--verify", "junk"), "not a public key"),
        (("--verify", "huge"), "longer than"),
        (("--verify", "ann.pub"), "audit-fraud.json: No such file"),
    ):
        said = invoke("audit", *arguments, expect=3).stderr
        assert what in said
        assert len(said.splitlines()) == 1
    for name, what in (("ec.key", "not an Ed25519 key"), ("junk", "not a private key")):
        with pytest.raises(ConfigurationError, match=what):
            private_key(Path(name), str)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"null", b'{"format": "selfheal-audit-9"}', b"\xff"]
)
def test_what_is_not_a_signed_audit_is_said(workdir: Path, invoke: Invoke, text: bytes) -> None:
    write_keys("ann", Ed25519PrivateKey.generate())
    Path("other.json").write_bytes(text)
    said = invoke("audit", "--verify", "ann.pub", "--statement", "other.json", expect=4).stderr
    assert "other.json" in said
    assert len(said.splitlines()) == 1
