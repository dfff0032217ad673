"""``selfheal doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from selfheal_cli import DISTRIBUTION, __version__
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.errors import SelfhealError, VersionCorrupt
from selfheal_cli.installed import load, names, part_of, refused
from selfheal_cli.kinds import BUILT_IN, PartKind
from selfheal_cli.masking import masked_uri

if TYPE_CHECKING:
    from selfheal_cli.registry.base import Registry

PACKAGES = ("mlflow", "torch", "numpy", "pandas", "click")
UNWELL = 4
OLD_DISTRIBUTION, PACKAGE = "selfheal", "selfheal_cli"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check: what was looked at, whether it is well, and what is known or to be done."""

    check: str
    well: bool
    detail: str


@click.command("doctor", cls=Command)
@options.tracking_uri
@options.as_json
@click.pass_context
def command(ctx: click.Context, tracking_uri: str | None, as_json: bool) -> None:
    """Check versions, folders, policies, the store, and the files behind every alias.

    Each finding that is not well says what to do. Exit 4 if there is any.
    """
    from selfheal_cli.cli import output

    findings = list(_examine(tracking_uri))
    well = all(finding.well for finding in findings)
    if as_json:
        output.print_json({"well": well, "findings": [asdict(finding) for finding in findings]})
    else:
        rows: list[list[output.Part]] = [
            [("ok", "green") if f.well else ("NOT WELL", "red"), f.check, f.detail]
            for f in findings
        ]
        output.print_table("Doctor", ("", "check", "detail"), rows)
    if not well:
        ctx.exit(UNWELL)


def _examine(tracking_uri: str | None) -> Iterator[HealthCheck]:
    yield HealthCheck("python", well=True, detail=platform.python_version())
    yield _own_distribution()
    for name in PACKAGES:
        yield HealthCheck(name, well=True, detail=version(name))
    writable = os.access(".", os.W_OK)
    todo = "" if writable else ": not writable; run selfheal in a folder of your own"
    yield HealthCheck("this folder", writable, str(Path.cwd()) + todo)
    yield _tried("policies", _policies)
    yield from _parts()
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    try:
        registry = MlflowRegistry(tracking_uri)
    except SelfhealError as exc:
        yield HealthCheck("store", well=False, detail=str(exc))
        return
    yield HealthCheck("store", well=True, detail=masked_uri(registry.uri))
    yield _tried("store writable", lambda: _writable(registry))
    for told in registry.deleted_experiments():
        yield HealthCheck("experiment", well=False, detail=told)
    for model, aliases in sorted(registry.all_aliases().items()):
        for alias, number in sorted(aliases.items()):
            yield _tried(f"{model}@{alias}", partial(_alias, registry, model, number))


def _own_distribution() -> HealthCheck:
    """Up to 0.1.0 the distribution was called as another project on PyPI is."""
    old = [
        f"{one.name} {one.version} in {one.locate_file('')}"
        for one in distributions(name=OLD_DISTRIBUTION)
        if any(file.parts[0] == PACKAGE for file in one.files or ())
    ]
    if not old:
        return HealthCheck("selfheal", well=True, detail=__version__)
    return HealthCheck(
        "selfheal",
        well=False,
        detail=f"{old[0]} owns {PACKAGE}/ as {DISTRIBUTION} {__version__} does: 'pip uninstall "
        f"{OLD_DISTRIBUTION}', then install {DISTRIBUTION} again",
    )


def _parts() -> Iterator[HealthCheck]:
    """What other packages bring, and what of it cannot be chosen or loaded."""
    for kind in BUILT_IN:
        yield from (HealthCheck(f"{kind}s", well=False, detail=text) for text in refused(kind))
        for name in names(kind):
            yield _tried(f"{kind}s", partial(_loaded, kind, name))


def _loaded(kind: PartKind, name: str) -> str:
    load(kind, name)
    part = part_of(kind, name)
    return f"{name} of {part.distribution} {part.version}"


def _tried(check: str, look: Callable[[], str]) -> HealthCheck:
    try:
        return HealthCheck(check, well=True, detail=look())
    except SelfhealError as exc:
        return HealthCheck(check, well=False, detail=str(exc))


def _writable(registry: Registry) -> str:
    registry.require_writable()
    return "yes"


def _policies() -> str:
    from selfheal_cli.settings import policy_file

    policies = policy_file.available()
    for path in policies.values():
        policy_file.read(path)
    return ", ".join(policies)


def _alias(registry: Registry, model: str, number: int) -> str:
    from selfheal_cli.records import ForeignVersion
    from selfheal_cli.registry.carried import strangers
    from selfheal_cli.registry.layout import REQUIREMENTS_FILE
    from selfheal_cli.registry.manifest import MANIFEST_FILE
    from selfheal_cli.rollback.agreement import differences
    from selfheal_cli.rollback.files import check_files

    target = registry.any_version(model, number)
    if isinstance(target, ForeignVersion):
        return f"{target}: not looked at"
    check_files(registry, target)
    stored = registry.stored(target)
    changed = differences(stored, None, number) if MANIFEST_FILE in stored.files else []
    if changed:
        raise VersionCorrupt(f"v{number}: {changed[0]}; 'selfheal audit' names all such")
    asked = strangers(stored.files[REQUIREMENTS_FILE].decode(errors="replace"))
    if asked:
        raise VersionCorrupt(
            f"v{number}: its requirements.txt asks for '{asked[0]}', which is another project on "
            f"PyPI: make no environment of it; 'selfheal export {number} --model {model} "
            "--bundle DIR' writes the version anew ('selfheal audit' names all such)"
        )
    return f"v{number}: file, base, sha256 and manifest hold"
