"""Monitors of other packages: what they are shown, what they say, and what holds of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.drift.merging import InOrder
from selfheal_cli.drift.monitor import (
    ERRORS,
    SCORES,
    BatchView,
    FeatureReading,
    MonitorSetup,
    Reading,
    read,
)
from selfheal_cli.errors import PartError
from selfheal_cli.installed import made, part_of

if TYPE_CHECKING:
    from selfheal_cli.records import Columns


class MonitorPart(Protocol):
    """What notices that the data moved: a class without arguments, or an object.

    Deterministic: the same batches give the same readings. ``threshold`` is the effect from which
    it alarms where nobody says another one, 0.2 where it is not there; ``reads`` what its ``on``
    may name: of "numeric features", "text features", "scores" and "errors", the first two where it
    is not there.
    """

    def fit(self, reference: BatchView, features: Sequence[str]) -> None:
        """See training rows, and which features, scores or errors it is to look at."""

    def update(self, view: BatchView) -> Iterable[FeatureReading]:
        """Take a batch: for each feature (or "scores", "errors") an effect size, from 0, that rows
        do not enlarge, and a p-value.
        """


class OwnMonitor(InOrder):
    """A monitor of another package as one of ours: alarms by the rule that holds for all."""

    _why = "is another package's, and only it knows what it counts"

    def __init__(self, name: str, setup: MonitorSetup) -> None:
        self.limits, self._of = setup.limits, str(setup.settings)
        self._part = part_of("monitor", name)
        self._monitor: Any = deepcopy(made("monitor", name))
        sample = setup.sample
        self._known = {*setup.targets, *sample.rows.columns, SCORES, ERRORS}
        reference = BatchView(
            sample.rows.columns, sample.scores, sample.classes, sample.conflicts, np.empty(0)
        )
        try:
            self._monitor.fit(_locked(reference), setup.targets)
        except Exception as exc:
            raise self._part.failed(exc) from exc

    def update(self, view: BatchView) -> Reading:
        """Take a batch; raises `PartError` where the monitor does, or says what is no reading."""
        try:
            said = list(self._monitor.update(_locked(view)))
            for one in said:
                self._require_sound(one)
        except Exception as exc:
            text = str(exc) if isinstance(exc, PartError) else exc
            raise self._part.failed(text) from exc
        return read([FeatureReading(r.feature, float(r.effect), float(r.p)) for r in said],
                    self.limits)  # fmt: skip

    def _require_sound(self, one: FeatureReading) -> None:
        if not isinstance(one, FeatureReading):
            raise PartError(f"gave {type(one).__name__}, and FeatureReading is needed")
        if one.feature not in self._known:
            raise PartError(f"speaks of '{one.feature}', which is no feature, scores or errors")
        if not (0 <= one.effect < np.inf and 0 <= one.p <= 1):
            raise PartError(
                f"says effect {one.effect} and p {one.p} of '{one.feature}': an effect from 0 and "
                "a p from 0 to 1 are needed"
            )


def _locked(view: BatchView) -> BatchView:
    """The same values, which nobody can change."""
    columns: Columns = {name: _read_only(values) for name, values in view.columns.items()}
    return replace(
        view, columns=columns, scores=_read_only(view.scores),
        classes=_read_only(view.classes), errors=_read_only(view.errors),
    )  # fmt: skip


def _read_only(values: Any) -> Any:
    locked = values.view()
    locked.flags.writeable = False
    return locked
