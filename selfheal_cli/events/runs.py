"""What a run says of itself: how it began, on which network, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from selfheal_cli.events.event import FIRST_FORMAT, Event, OfBatch


class WatchedFeature(TypedDict):
    """A feature whose shift is written down with each batch."""

    name: str
    kind: str


class FeatureShare(TypedDict):
    """By how much the network uses a feature; the shares of all features sum to 1."""

    feature: str
    share: float


class HeldOutRows(TypedDict):
    """Rows that nothing learns from: the sensitive feature's mean, and the rules' share."""

    mean: float
    rule_share: float


class RunStarted(Event, kind="run-started"):
    """A run began. ``champion_move`` is the champion's last move until then, in the journal;
    ``parts`` are those of other packages, each with its distribution and version.
    """

    run_id: str
    model: str
    actor: str
    champion_move: int
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    format: int = FIRST_FORMAT
    build: Mapping[str, Any] | None = None
    parts: Sequence[Mapping[str, str]] = ()


class BaseStored(Event, kind="trained"):
    """The frozen part is in the registry, as ``base``."""

    base: str
    base_sha256: str


class ModelWrapped(BaseStored):
    """A model of somebody else's became a baseline; ``origin`` says where it was."""

    origin: str


class SegmentRestored(BaseStored):
    """A person gave a ``segment`` the adapter that it had in version ``source`` again, beside all
    else that ``version`` has, the champion then; versions call the segment by its ``code``.
    """

    segment: str
    code: str
    version: int
    source: int


class ModelTrained(BaseStored):
    """The network was trained. ``mean`` and ``sd`` are those of the sensitive feature;
    ``batches`` is None where the stream has no end; ``training`` says how long it took, where rows
    were kept to choose by.
    """

    parameters: int
    adapter_parameters: int
    labels: Sequence[str]
    rules: Sequence[str]
    rules_suggested: bool
    sensitive: str
    mean: float
    sd: float
    batches: int | None
    held_out: Mapping[str, HeldOutRows]
    sensitive_category: str | None = None
    sensitive_auto: Sequence[FeatureShare] = ()
    features: Sequence[WatchedFeature] | None = None
    features_in_all: int | None = None
    positions: Mapping[str, Mapping[str, int]] | None = None
    training: str = ""


class StreamStopped(OfBatch, kind="stream-stopped"):
    """The run was told to stop after a batch."""


class RunFinished(Event, kind="run-finished"):
    """A run ended: FINISHED, KILLED or FAILED; all else only where it came to a conclusion.

    ``ended_by`` names who wrote this down of a run that had died. ``stages`` are the lines of the
    results table; ``costs`` per 100 rows by the ratio of a miss to a false alarm; ``departures``
    count, by column, values that training had not the like of; ``compared`` are the figures of the
    stream with intervals, as `report.gains` has them.
    """

    outcome: str
    ended_by: str = ""
    stages: Sequence[Mapping[str, Any]] | None = None
    evaluation: str | None = None
    verdict: Mapping[str, str] | None = None
    costs: Mapping[str, Sequence[float]] | None = None
    base_unchanged: bool | None = None
    serving_sha256: str | None = None
    notes: Mapping[str, int] | None = None
    departures: Mapping[str, Mapping[str, int]] | None = None
    compared: Sequence[Mapping[str, Any]] = ()


class RunResumed(Event, kind="run-resumed"):
    """An interrupted run goes on: its ``events`` until ``batch`` are gone through again."""

    actor: str
    batch: int
    events: int
