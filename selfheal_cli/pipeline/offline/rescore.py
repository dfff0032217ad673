"""The latest labelled rows of a run, read again from its source, to score versions on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import DataError, NoCandidateError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.state import RunState
from selfheal_cli.events.types import BatchScored, LabelsArrived
from selfheal_cli.metrics import score
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.pipeline.prepare.rows import open_kept
from selfheal_cli.records import Rows, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.scores import AnyScores
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.table import WholeTable

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


BATCHES = 10


@dataclass(frozen=True, slots=True)
class RecentRows:
    """Rows of a run from its batch ``first`` on."""

    rows: Rows
    run_id: str
    first: int

    def are_new_to(self, version: VersionRecord) -> bool:
        """Whether a version was made before these rows came, so that it learned from none."""
        return version.run_id != self.run_id or version.batch < self.first


@dataclass(frozen=True, slots=True)
class Rescored:
    """A version's scores on the recent rows, and whether they were new to it."""

    version: VersionRecord
    scores: AnyScores
    new: bool


def recent_rows(log: Path, registry: Registry, into: Path) -> RecentRows:
    """Rows of the last ten batches whose labels had come by the log's end.

    A table that only the registry has is fetched to ``into``.
    Raises `DataError` where the source is gone, or no label had come.
    """
    run = walked(log)
    chosen = sorted(run.labelled)[-BATCHES:]
    if not chosen:
        raise DataError(
            f"{log}: no labels had come by batch {run.batch}; there is nothing to score on"
        )
    parts = []
    source = open_kept(run.config, log.parent, registry, run.run_id, into)
    for batch in source.batches(chosen[0]):
        if batch.index > chosen[-1]:
            break
        if batch.index in run.labelled:
            parts.append(batch.rows)
    if not parts:
        raise DataError(f"{log}: its source has no batch {chosen[0]} any more")
    x = np.concatenate([part.x for part in parts])
    y = np.concatenate([part.y for part in parts])
    known = y >= 0
    return RecentRows(Rows(x[known], y[known], {}), run.run_id, chosen[0])


def rescore(
    registry: Registry, versions: Iterable[VersionRecord], recent: RecentRows
) -> list[Rescored]:
    """Each version on the same rows, the best first; each is checked before it is asked.

    The earlier-ranked comes first among equals.
    """
    rescored = []
    for version in versions:
        weights = load_verified(registry, version)
        where = f"{version.model} v{version.version}"
        network = assemble(registry.base(version.base), weights, where=where)
        scores = score(network.predict(recent.rows.x), recent.rows.y, version.threshold)
        rescored.append(Rescored(version, scores, recent.are_new_to(version)))
    return sorted(rescored, key=lambda one: -one.scores.f1)


@dataclass
class _Labels(RunState):
    """Rows by batch, and how many labels of them came."""

    rows: dict[int, int] = field(default_factory=dict)
    came: Counter[int] = field(default_factory=Counter)

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        if isinstance(event, BatchScored):
            self.rows[event.batch] = event.rows
            self.came[event.batch] += event.rows if event.live is not None else 0
        elif isinstance(event, LabelsArrived):
            self.came[event.batch] += event.rows

    @property
    def labelled(self) -> set[int]:
        """Batches most of whose labels came: those that never come keep none from counting."""
        return {batch for batch, rows in self.rows.items() if 2 * self.came[batch] > rows}


@dataclass(frozen=True, slots=True)
class WalkedRun:
    """What a run's log says of it: ``batch`` is its last, and ``labelled`` those whose labels had
    come.
    """

    run_id: str
    model: str
    config: RunConfig
    batch: int
    labelled: set[int]


def walked(log: Path) -> WalkedRun:
    """Read a run's log; raises `DataError` for one that does not say how the run was begun."""
    state = _Labels.of(read(log))
    if state.started is None:
        raise DataError(f"{log}: it does not say how the run was begun")
    config = recorded(state.config, where=str(log), parts=state.parts)
    last = max(state.rows, default=0)
    return WalkedRun(state.run_id, state.model, config, last, state.labelled)


def served_probabilities(
    registry: Registry, model: str, table: WholeTable
) -> tuple[tuple[str, ...], FloatArray]:
    """The champion's labels, and its probabilities of the table's rows: (n,) of the positive, or
    (n, K).

    Raises `NoCandidateError` where no version serves, `VersionCorrupt` for one that fails its
    check, `DataError` where the table is not what the model was trained on.
    """
    version = serving_version(registry, model)
    if version is None:
        raise NoCandidateError(f"model '{model}' has no champion; 'selfheal run' makes one")
    weights = load_verified(registry, version)
    base = registry.base(version.base)
    document = base.describe()
    encoding = encoding_of(base)
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
