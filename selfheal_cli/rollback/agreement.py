"""Compares a version in the registry with its manifest and with the log of its run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import isclose
from typing import Any

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.events.run_record import Account
from selfheal_cli.records import (
    LEASE_TAG,
    PROPOSAL_TAG,
    SHOWN_TAGS,
    STALE_TAG,
    Evaluation,
    StoredVersion,
    digest,
)
from selfheal_cli.registry.manifest import MANIFEST_FILE, Manifest, file_hash, parse_manifest
from selfheal_cli.scores import FIGURES, AnyScores, Scores

AS_LOGGED = ("phase", "batch", "sha256", "reason", "threshold", "heal_id")
DECIDING = (*FIGURES, "rows")  # figures that may not be added to a version later
PREFIX = "selfheal."
LATE = ("evaluation", "eval_rows", "counts")  # tags that change with late scores
ENTRIES = ("", " of the logged model")


def differences(
    stored: StoredVersion, account: Account | None, number: int, *, in_flight: bool = False
) -> list[str]:
    """Differences of a version from its records, in words; none where all of it agrees.

    Without an ``account`` of the run's log only the manifest is compared. Where writes are
    ``in_flight``, late scores may not have arrived yet.
    """
    try:
        return list(_differences(stored, account, number, in_flight=in_flight))
    except VersionCorrupt as exc:
        return [str(exc)]


def _differences(
    stored: StoredVersion, account: Account | None, number: int, *, in_flight: bool
) -> Iterator[str]:
    if account is not None and account.version not in (None, number):
        yield f"its run registered snapshot {account.taken.id} as v{account.version}"
        return
    manifest = _manifest(stored, account)
    if manifest is not None:
        yield from _of_files(stored, manifest)
    tags, figures = _born(manifest, account)
    late = _late(account)
    allowed = [({**tags, **late[0]}, {**figures, **late[1]})] if late else [(tags, figures)]
    if late and in_flight:
        allowed.append((tags, figures))
    if account is None and tags.get(PREFIX + "evaluation") == Evaluation.AWAITING.value:
        unknown = (*(PREFIX + name for name in LATE), *DECIDING)  # labels may have come since
    else:
        unknown = ()
    complete = manifest is not None
    # late scores change tags and figures together: the state that fits best is the one it is in
    yield from min(
        (list(_of_entries(stored, *state, complete, unknown)) for state in allowed), key=len
    )


def _manifest(stored: StoredVersion, account: Account | None) -> Manifest | None:
    """The manifest, checked against the account; None for a version of 0.1.0.

    Raises `VersionCorrupt` where it is gone or another one.
    """
    data = stored.files.get(MANIFEST_FILE)
    if data is None:
        if account is not None and account.version is not None and not account.manifest:
            return None
        raise VersionCorrupt(f"{MANIFEST_FILE} is gone, or it was never one of selfheal's versions")
    if account is not None and account.version is not None and digest(data) != account.manifest:
        known = f"{account.manifest[:12]}…" if account.manifest else "that there was none"
        raise VersionCorrupt(
            f"{MANIFEST_FILE} was changed, or put in later: its sha256 is {digest(data)[:12]}…, "
            f"the log says {known}"
        )
    return parse_manifest(data, "the version")


def _of_files(stored: StoredVersion, manifest: Manifest) -> Iterator[str]:
    files = {name: file_hash(name, data) for name, data in stored.files.items()}
    del files[MANIFEST_FILE]
    for name in sorted(files.keys() | manifest.files.keys()):
        if name not in files:
            yield f"file {name} is gone"
        elif name not in manifest.files:
            yield f"file {name} was put in later"
        elif files[name] != manifest.files[name]:
            yield (
                f"file {name}: the file was changed (sha256 {files[name][:12]}…, the manifest says "
                f"{manifest.files[name][:12]}…)"
            )


def _born(
    manifest: Manifest | None, account: Account | None
) -> tuple[dict[str, str | None], dict[str, float]]:
    """Tags and figures when it was registered; a tag that it must not have is None."""
    tags: dict[str, str | None] = dict(manifest.tags) if manifest else {}
    figures = dict(manifest.figures) if manifest else {}
    if account is not None:
        tags |= _logged_tags(account)
        figures |= _figures(account.taken.scores)
    return tags, figures


def _logged_tags(account: Account) -> dict[str, str | None]:
    taken = account.taken
    expected: dict[str, Any] = {name: getattr(taken, name) for name in AS_LOGGED}
    expected["evaluation"] = taken.evaluation
    expected["rejected"] = taken.rejected or None
    expected["log_head"] = account.digest
    expected["base"], expected["run_id"] = account.base, account.run_id
    expected |= _scored(taken.scores)
    if account.parent is not None:
        expected["parent"] = account.parent
    return {
        PREFIX + name: None if value is None else str(value) for name, value in expected.items()
    }


def _late(account: Account | None) -> tuple[dict[str, str | None], dict[str, float]] | None:
    """Tags and figures by late scores; None where there are none."""
    if account is None or account.scored is None:
        return None
    tags = {"evaluation": Evaluation.PREQUENTIAL.value, **_scored(account.scored)}
    return {PREFIX + name: str(value) for name, value in tags.items()}, _figures(account.scored)


def _scored(scores: AnyScores | None) -> dict[str, Any]:
    tags: dict[str, Any] = {"eval_rows": scores.rows if scores else 0}
    if isinstance(scores, Scores):
        tags["counts"] = f"{scores.tp},{scores.tn},{scores.fp},{scores.fn}"
    return tags


def _figures(scores: AnyScores | None) -> dict[str, float]:
    return {**scores.figures(), "rows": float(scores.rows)} if scores else {}


def _of_entries(
    stored: StoredVersion,
    tags: Mapping[str, str | None],
    figures: Mapping[str, float],
    complete: bool,
    unknown: Collection[str],
) -> Iterator[str]:
    """Differences of both entries' tags and of the figures.

    The version's own has the tags that people read, in older releases all of them; the logged
    model has all. Where ``complete``, neither may have more than ``tags`` and ``figures``;
    ``unknown`` names are left out.
    """
    for entry, of in zip((stored.tags, stored.logged), ENTRIES, strict=True):
        own = {name for name in entry if name.startswith(PREFIX)}
        wanted = tags.keys() if of else tags.keys() & (SHOWN_TAGS | own)
        more = own if complete else set()
        more -= {LEASE_TAG, STALE_TAG, PROPOSAL_TAG}  # the journal has them
        for name in sorted((wanted | more) - set(unknown)):
            if entry.get(name) != tags.get(name):
                yield f"tag {name}{of} is {entry.get(name)!r}, the log says {tags.get(name)!r}"
    more = set(DECIDING) if complete else set()
    for name in sorted((figures.keys() | more) - set(unknown)):
        now, then = stored.figures.get(name), figures.get(name)
        if now is None and then is None:
            continue
        if now is None or then is None or not isclose(now, then, rel_tol=1e-9, abs_tol=1e-12):
            yield f"metric {name} is {now}, the log says {then}"
