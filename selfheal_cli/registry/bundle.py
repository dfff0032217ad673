"""A version as a folder that scores without any store."""

from __future__ import annotations

from pathlib import Path

from selfheal_cli.errors import ConfigurationError, StorageError
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.layout import BASE_DOCUMENT_FILE, BASE_WEIGHTS_FILE
from selfheal_cli.registry.mlflow.format import write_version


def write_bundle(registry: Registry, version: VersionRecord, folder: Path) -> None:
    """Write a version anew with its base beside it, in the form that versions have today.

    ``mlflow.pyfunc.load_model(folder)`` checks adapter and base by their recorded hashes. Raises
    `ConfigurationError` for a folder that holds something, and `StorageError`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder}: is there and not empty; name a folder that is not")
    base = registry.base(version.base)
    adapter = registry.adapter(version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_version(
            folder,
            adapter=adapter,
            adapter_sha256=version.sha256,
            base_id=version.base,
            base_sha256=base.sha256,
            document=base.document,
            threshold=version.threshold,
            model_id=None,
            run_id=version.run_id,
        )
        (folder / BASE_WEIGHTS_FILE).write_bytes(base.weights)
        (folder / BASE_DOCUMENT_FILE).write_text(base.document, encoding="utf-8")
    except OSError as exc:
        raise StorageError(
            f"{exc.filename or folder}: cannot be written ({exc.strerror or exc}); make room or "
            "give the rights"
        ) from exc
