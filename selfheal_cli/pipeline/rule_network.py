"""What the network that serves a model says of a table's rows, to hold rules against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfheal_cli.errors import DataError, NothingToRestore
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.snapshot import assemble
from selfheal_cli.source.encoding import Encoding
from selfheal_cli.source.whole import WholeTable

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


def served_probabilities(
    registry: Registry, model: str, table: WholeTable
) -> tuple[tuple[str, ...], FloatArray]:
    """The champion's labels, and its probabilities of the table's rows: (n,) of the positive, or
    (n, K).

    Raises `NothingToRestore` where no version serves, `VersionCorrupt` for one that fails its
    check, `DataError` where the table is not what the model was trained on.
    """
    version = serving_version(registry, model)
    if version is None:
        raise NothingToRestore(f"model '{model}' has no champion; 'selfheal run' makes one")
    weights = load_verified(registry, version)
    base = registry.base(version.base)
    document = base.describe()
    encoding = Encoding.model_validate(document["encoding"])
    labels = tuple(document["labels"])
    _require_fit(encoding, labels, model, table)
    network = assemble(base, weights, where=f"{version.model} v{version.version}")
    return labels, network.predict(encoding.encode(table.columns))


def _require_fit(
    encoding: Encoding, labels: tuple[str, ...], model: str, table: WholeTable
) -> None:
    for name in encoding.names:
        kinds = {"a number": name in table.numeric, "text": name in table.text}
        wanted = "a number" if name in encoding.numeric else "text"
        if kinds[wanted]:
            continue
        if not any(kinds.values()):
            raise DataError(f"{table.path}: model '{model}' needs a column '{name}'")
        hint = f": give --categorical {name}" if wanted == "text" else ""
        raise DataError(f"{table.path}: column '{name}' is not {wanted}, for '{model}' it is{hint}")
    if table.labels and table.labels != labels:
        raise DataError(
            f"{table.path}: its labels are {', '.join(table.labels)}, those of model '{model}' are "
            f"{', '.join(labels)}; give the same --target and --positive as the run had"
        )
