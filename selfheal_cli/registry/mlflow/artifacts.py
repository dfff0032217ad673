"""Files from where MLflow keeps them; tells one that is gone from a store that is away."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from selfheal_cli.errors import RegistryUnreachable, VersionCorrupt
from selfheal_cli.masking import masked_uri
from selfheal_cli.model.composite import SegmentManifest, joined
from selfheal_cli.records import Base
from selfheal_cli.registry.layout import (
    ADAPTER_FILE,
    BASE_DOCUMENT_FILE,
    BASE_WEIGHTS_FILE,
    PACK_FILE,
    SEGMENTS_FILE,
)
from selfheal_cli.registry.mlflow.store import TRANSIENT, away_errors, require_driver, told

MOVED = "if its folder was moved, move it back or put a link to it there (ln -s NEW OLD)"


def fetch(uri: str, names: Set[str], into: Path | None = None) -> Path:
    """The folder with the files of ``models:/...``, fetched to ``into`` or to a folder of MLflow's.

    Raises `FileNotFoundError` with the reason where one of ``names`` is gone, and
    `RegistryUnreachable` where the store could not be asked.
    """
    into_path = str(into) if into else None
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=into_path))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"not there: {', '.join(missing)}")
    except away_errors(MlflowException, OSError, ImportError) as exc:
        if names <= _present(uri):
            raise RegistryUnreachable(f"fetch {uri}: {told(exc)}; try again") from exc
        raise FileNotFoundError(f"{told(exc)}{_recorded(uri)}") from exc
    return folder


def keep(model: LoggedModel, folder: Path) -> None:
    """Keep a folder's files with a logged model that was made just now: MLflow's own call would ask
    for it again, to know where.
    """
    files = get_artifact_repository(model.artifact_location, tracking_uri=mlflow.get_tracking_uri())
    files.log_artifacts(str(folder))  # type: ignore[no-untyped-call]


def read_base(base_id: str) -> Base:
    """Fetch a stored base from the tracking store that MLflow is set to."""
    names = {BASE_WEIGHTS_FILE, BASE_DOCUMENT_FILE}
    try:
        folder = fetch(f"models:/{base_id}", names)
    except FileNotFoundError as exc:
        store = masked_uri(mlflow.get_tracking_uri())
        raise VersionCorrupt(
            f"base {base_id}: cannot be fetched from {store} ({exc}); "
            "set MLFLOW_TRACKING_URI to the store that the version came from"
        ) from exc
    return _base(folder)


def whole_adapter(folder: Path, where: str) -> bytes:
    """The adapter's bytes of a version's folder, those of segments fetched from where they lie.

    Raises `VersionCorrupt` where one of them is gone or another one.
    """
    adapter = (folder / ADAPTER_FILE).read_bytes()
    listed = folder / SEGMENTS_FILE
    if not listed.is_file():
        return adapter
    manifest = SegmentManifest.parse(listed.read_bytes(), where)
    return joined(adapter, manifest, lambda pack: _pack(pack, where), where)


def _pack(pack: str, where: str) -> bytes:
    try:
        folder = fetch(f"models:/{pack}", {PACK_FILE})
    except FileNotFoundError as exc:
        raise VersionCorrupt(
            f"{where}: the segments' adapters {pack} are gone from the artifact store ({exc}); "
            "restore them from a backup or use another version"
        ) from exc
    return (folder / PACK_FILE).read_bytes()


def base_in(folder: Path) -> Base | None:
    """The base that lies beside a version's own files, where it was put there."""
    return _base(folder) if (folder / BASE_WEIGHTS_FILE).is_file() else None


def _base(folder: Path) -> Base:
    return Base(
        (folder / BASE_WEIGHTS_FILE).read_bytes(),
        (folder / BASE_DOCUMENT_FILE).read_text(encoding="utf-8"),
    )


def size_of(artifacts: ArtifactRepository, folder: str | None = None) -> int:
    """Bytes of the files under a folder of an artifact store."""
    return sum(
        size_of(artifacts, entry.path) if entry.is_dir else int(entry.file_size or 0)
        for entry in artifacts.list_artifacts(folder)
    )


def _recorded(uri: str) -> str:
    """Where the store says that the files are, and what to do if nothing is there at all."""
    try:
        repository = get_artifact_repository(uri)
    except MlflowException:
        return ""
    place = str(getattr(repository, "repo", repository).artifact_uri)
    local = local_path(place)
    moved = local is not None and not local.exists()
    return f"; the store says that it is in {masked_uri(place)}" + (f": {MOVED}" if moved else "")


def local_path(uri: str) -> Path | None:
    """The place of files as a path, if it is on this machine."""
    if not is_local_uri(uri):  # type: ignore[no-untyped-call]
        return None
    return Path(local_file_uri_to_path(uri))  # type: ignore[no-untyped-call]


def _present(uri: str) -> frozenset[str]:
    """Names of the files that the store has; raises `RegistryUnreachable`."""
    try:
        repository = get_artifact_repository(uri)
        require_driver(getattr(repository, "repo", repository).artifact_uri)
        return frozenset(entry.path for entry in repository.list_artifacts(None))
    except MlflowException as exc:
        if exc.error_code not in TRANSIENT:
            return frozenset()
        raise RegistryUnreachable(f"fetch {uri}: {told(exc)}") from exc
    except away_errors(OSError) as exc:
        raise RegistryUnreachable(f"fetch {uri}: {told(exc)}") from exc
