"""``selfheal audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say
from selfheal_cli.cli.version_name import VersionName, version_number

if TYPE_CHECKING:
    from selfheal_cli.audit.checks import AuditCheckpoint
    from selfheal_cli.audit.finding import Audit
    from selfheal_cli.audit.signature import Statement
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

FAILED = 4
ONE = {"journal entries": "journal entry", "aliases": "alias"}  # others lose their s
NOT_SIGNED = (
    " It is not signed: anyone who may write to the store and to this folder could have made all "
    "of it; --sign lets others see that nothing was changed since."
)
KEY = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("audit", cls=Command)
@click.option(
    "--replay",
    type=VersionName(),
    help="Make this version again from its run's rows instead, and compare the bytes.",
)
@click.option(
    "--sign", "sign_key", type=KEY, metavar="KEY",
    help="If everything holds, sign where it stands (Ed25519, PEM or OpenSSH).",
)  # fmt: skip
@click.option(
    "--verify", "verify_key", type=KEY, metavar="PUB",
    help="Hold everything against what was signed, by this public key.",
)  # fmt: skip
@click.option(
    "--statement", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="The signed document.  [default: audit-MODEL.json]",
)  # fmt: skip
@click.option(
    "--folder", "folders", type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True, metavar="DIR",
    help="Working folder of another machine that healed the model, or a copy of it: its logs are "
    "of the same history; repeatable.",
)  # fmt: skip
@options.allow_module
@options.model
@options.tracking_uri
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    replay: str | None,
    sign_key: Path | None,
    verify_key: Path | None,
    statement: Path | None,
    folders: tuple[Path, ...],
    model_name: str,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Check everything that is recorded of a model against everything else.

    Event logs and the journal by their chains, versions by their manifests and the logs of their
    runs, runs by their logs, files and bases by their hashes, aliases by the journal. What others
    did, or what is under way, is named beside. A signed document proves to others that nothing of
    it was changed since: logs and journal must go on from where they stood. Exit 4 if anything
    does not hold, or nothing could be checked.
    """
    if sum(one is not None for one in (replay, sign_key, verify_key)) > 1:
        raise click.UsageError("--replay, --sign and --verify are one at a time")
    if statement is not None and sign_key is None and verify_key is None:
        raise click.UsageError("--statement goes with --sign or --verify")
    from selfheal_cli.audit.checks import audit_model
    from selfheal_cli.pipeline.prepare.lease import is_alive
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.workspace import WORKSPACE

    path = statement or Path(f"audit-{model_name}.json")
    signed = _signed(path, verify_key, model_name) if verify_key else None
    registry = MlflowRegistry(tracking_uri)
    if replay is not None:
        _replay(registry, model_name, version_number(registry, model_name, replay), as_json=as_json)
        return
    runs = WORKSPACE / "runs"
    audit, standing = audit_model(
        registry,
        model_name,
        signed=signed,
        alive=lambda held: is_alive(registry, held, runs, clock),
        others=[_workspace(folder) for folder in folders],
    )
    written = None
    if sign_key is not None and not audit.findings:
        _sign(standing, sign_key, model_name, registry.uri, path)
        written = path
    _show(audit, model_name, written, signed, as_json=as_json)
    if audit.findings:
        ctx.exit(FAILED)


def _workspace(folder: Path) -> Path:
    from selfheal_cli.workspace import WORKSPACE

    if not (folder / WORKSPACE).is_dir():  # without runs where it scored, and never healed
        raise click.BadParameter(
            f"{folder} has no {WORKSPACE}: name a folder in which selfheal worked",
            param_hint="--folder",
        )
    return folder / WORKSPACE


def _show(
    audit: Audit, model: str, written: Path | None, signed: Statement | None, *, as_json: bool
) -> None:
    from dataclasses import asdict

    from selfheal_cli.cli import output

    if as_json:
        output.print_json({"checked": dict(audit.checked), "holds": not audit.findings,
                           "findings": [asdict(one) for one in audit.findings],
                           "notes": [asdict(one) for one in audit.notes],
                           "signed": written and str(written),
                           "signed_at": signed and signed.at.isoformat()})  # fmt: skip
        return
    checked = ", ".join(
        output.counted(count, ONE.get(many, many.removesuffix("s")), many)
        for many, count in audit.checked.items()
    )
    say(f"Checked of '{model}': {checked or 'nothing'}.")
    for one in audit.notes:
        say(f"Seen: {one.where} {one.problem}.")
    if signed is not None:
        say(f"Held against what {signed.by} signed at {signed.at.isoformat()}.")
    if audit.findings:
        rows = [[one.where, one.problem] for one in audit.findings]
        title = f"{len(rows)} things do not hold"
        output.print_table(title, ("where", "what"), rows)
        return
    say(f"Everything holds.{'' if signed or written else NOT_SIGNED}")
    if written is not None:
        say(f"Signed: {written}. Give it to the auditor with the public key.")


def _sign(standing: AuditCheckpoint, key: Path, model: str, uri: str, path: Path) -> None:
    from selfheal_cli.audit import signature
    from selfheal_cli.audit.signature import Statement
    from selfheal_cli.masking import masked_uri

    statement = Statement(
        model=model,
        at=clock(),
        by=actor(),
        store=masked_uri(uri),
        runs=standing.runs,
        journal=standing.journal,
        versions=standing.versions,
        aliases=standing.aliases,
    )
    secret = signature.private_key(
        key, lambda: click.prompt("Password of the key", hide_input=True)
    )
    signature.sign(statement, secret, path)


def _signed(path: Path, key: Path, model: str) -> Statement:
    from selfheal_cli.audit import signature
    from selfheal_cli.errors import AuditFailed

    statement = signature.verified(path, signature.public_key(key))
    if statement.model != model:
        raise AuditFailed(f"{path}: is about model '{statement.model}', not '{model}'")
    return statement


def _replay(registry: MlflowRegistry, model: str, number: int, *, as_json: bool) -> None:
    import tempfile
    from dataclasses import asdict

    from selfheal_cli.cli import output
    from selfheal_cli.cli.output import log_of
    from selfheal_cli.pipeline.offline.replay import reheal

    version = registry.version(model, number)
    with tempfile.TemporaryDirectory() as folder:
        log = log_of(version.run_id, registry.uri, Path(folder))
        rerun = reheal(registry, version, log, Path(folder))
    if as_json:
        output.print_json(asdict(rerun))
        return
    say(
        f"v{number} comes out the same: sha256 {rerun.sha256[:12]}…, after {rerun.batches} batches "
        f"and {rerun.events} recorded events, each of which came out as recorded."
    )
