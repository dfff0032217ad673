"""The frozen records that the packages hand to one another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]
    LabelArray = NDArray[np.int8]
    Columns = Mapping[str, NDArray[Any]]
    Threshold = float | NDArray[np.float64]  # of all rows, or one for each


LEASE_TAG, STALE_TAG = "selfheal.lease", "selfheal.stale"  # on a version
PROPOSAL_TAG = "selfheal.proposal"  # on a version: what became of proposing it, as people read it
# on a version's entry in the registry; its logged model has all of its tags
SHOWN_TAGS = frozenset(
    f"selfheal.{name}"
    for name in ("phase", "batch", "recipe", "reason", "parent", "sha256", "model")
)
PRE_HEAL_TAG = "selfheal.pre_heal"  # on a version: the one that served before, such as v12
BEFORE = "pre_"  # figures of that one, as they were before the heal
READINGS = ("drift_z", "conflicts")  # figures of the batch: the same before and after
OF_THE_HEAL = tuple(  # tags that a version shares with what served before its heal
    f"selfheal.{name}"
    for name in (
        *("batch", "heal_id", "base", "run_id", "model", "recipe", "labels", "reason", "schema"),
        *("evaluation", "eval_rows", "regime"),
    )
)


class Phase(StrEnum):
    """When in its life an adapter was snapshotted."""

    BASELINE = "baseline"
    PRE_HEAL = "pre-heal"
    POST_HEAL = "post-heal"
    REJECTED = "rejected"  # healed, refused by the gate, never served


class Evaluation(StrEnum):
    """Which rows a snapshot was scored on."""

    HELD_OUT = "held-out"  # rows that nothing learned from
    PREQUENTIAL = "prequential"  # before this adapter learned from them
    IN_SAMPLE = "in-sample"  # the rows it was healed on: the article's way
    AWAITING = "awaiting-labels"  # rows whose labels have not come yet: no figures
    ESTIMATED = "estimated"  # rows without labels: the figures are estimates


# what people read beside each figure of rows without labels
ESTIMATED = "estimated if the relation of inputs and label has not moved"


def spelled(evaluation: str) -> str:
    """An `Evaluation` as people read it."""
    return ESTIMATED if evaluation == Evaluation.ESTIMATED else evaluation


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows: ``x`` (n, d) float32 as the network sees them, ``y`` (n,) each row's class.

    A class is its position in the source's labels: 0 or 1 where there are two of them; -1 is a row
    whose label is unknown. ``columns`` holds the same rows as the source gave them, by feature
    name: rules and monitors read these.
    """

    x: FloatArray
    y: LabelArray
    columns: Columns

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class LateLabels:
    """Labels of rows in earlier batches: ``y`` (n,), each with its row's batch and place in it.

    Those that are ``alone`` came while no rows did, and are learned from without any.
    """

    batch: NDArray[np.int64]
    place: NDArray[np.int64]
    y: LabelArray
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that callers got for rows scored elsewhere: probabilities (n,) or (n, K), and
    the threshold that decided: (n,) where not all rows were answered by the same version.
    """

    probabilities: FloatArray
    threshold: Threshold


@dataclass(frozen=True, slots=True)
class OtherInputs:
    """``x`` (m, d) float32 for a network with other columns, of those rows of a batch that have
    them: ``place`` (m,) says where each stands, in ascending order.
    """

    x: FloatArray
    place: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows scored together. ``index`` counts from 1.

    ``now`` is the largest time of its rows, ``at`` (n,) each row's own and ``label_at`` (n,) when
    its label comes, in the same unit, NaN for never; all None where the source knows no times.
    ``late`` are labels that came for earlier batches by now. ``answers`` is None where this stream
    scores the rows.
    ``offsets`` says, by name, up to where the source was read once the batch is taken.
    ``lots`` (n,) in [0, 1) are those that the rows' requests drew, None where none was asked.
    ``places`` (n,) says where each row stood before others were left out; None where none was.
    ``others`` are inputs for what is tried beside the champion, where it has inputs of its own.
    """

    index: int
    rows: Rows
    now: float | None = None
    label_at: NDArray[np.float64] | None = None
    late: LateLabels | None = None
    answers: Answers | None = None
    offsets: Mapping[str, int] = field(default_factory=dict)
    places: NDArray[np.intp] | None = None
    at: NDArray[np.float64] | None = None
    lots: NDArray[np.float64] | None = None
    others: OtherInputs | None = None

    @property
    def place(self) -> NDArray[np.intp]:
        """Each row's position in the batch as the source gave it."""
        import numpy as np

        return np.arange(len(self.rows)) if self.places is None else self.places


@dataclass(frozen=True, slots=True)
class Limit:
    """Expected figures of the Bayes-optimal model; ``recall`` is the one at the best F1."""

    accuracy: float
    f1: float
    recall: float
    roc_auc: float
    pr_auc: float


@dataclass(frozen=True, slots=True)
class DriftReading:
    """A detector's reading of a batch: distance ``z`` in training standard deviations."""

    feature: str
    z: float
    drifting: bool


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Rows where rule and network disagree; ``positive_share`` of them are true positives."""

    count: int
    positive_share: float


@dataclass(frozen=True, slots=True)
class LabelVerdict:
    """Whether a batch's labels are plausible, by the class that is furthest from its expectation.

    ``z`` counts standard deviations on the logit scale. ``believed`` batches would have been
    implausible, but so many came in a row that theirs is taken for the new base rate.
    """

    implausible: bool
    label: int
    share: float
    expected: float
    z: float
    believed: bool
    reason: str


class Advice(StrEnum):
    """Whether to heal: the frozen features may lack what the columns have, the information may be
    gone, or the rows too few to say.
    """

    UNDECIDED = "undecided"
    HOLDS = "holds"
    HEAL = "heal"
    RETRAIN = "retrain"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class MovedInput:
    """The mean of input ``name`` in rows of class ``label``: ``shift`` in that class's sd."""

    label: str
    name: str
    shift: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What moved and whether healing can help, with the advice in words.

    ``base_rate`` is (in training, in the window), of more than two classes that of the one that
    moved furthest; ``positives`` are then the rows that are not of the commonest. ``auc`` and
    ``skill`` are the best refit's on rows that it did not learn from; ``ceiling_accuracy`` is that
    of always naming the largest class.
    """

    rows: int
    positives: int
    advice: Advice
    base_rate: tuple[float, float]
    base_rate_moved: bool
    inputs_moved: bool
    relation_moved: bool
    moved: tuple[MovedInput, ...]
    auc: float | None
    skill: float | None
    ceiling_accuracy: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An adapter's weights (by hash) with what was measured of them.

    ``id`` is unique in the run; ``parent`` is the snapshot whose weights these came from;
    ``threshold`` is the probability from which on it flags a row. ``scores`` is None until labels
    come. ``rejected`` says why it was not published; ``log_head`` is the digest of its event,
    and ``probe`` holds its decisions on the probe rows. One before a heal may be the ``same_as``
    what served, byte for byte; the one after it then ``carries`` its figures as ``pre_`` ones.
    """

    id: str
    phase: Phase
    batch: int
    sha256: str
    scores: AnyScores | None
    evaluation: Evaluation
    reason: str
    threshold: float
    parent: str | None = None
    heal_id: str | None = None
    rejected: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    log_head: str = ""
    probe: str = ""
    same_as: str = ""
    carries: bool = False


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A snapshot as the registry has it."""

    model: str
    version: int
    phase: Phase
    batch: int
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    created_ms: int
    aliases: tuple[str, ...] = ()

    @property
    def f1(self) -> float | None:
        """F1 as measured when the snapshot was taken."""
        return self.metrics.get("f1")

    @property
    def sha256(self) -> str:
        """Hash of the adapter's bytes."""
        return self.tags["selfheal.sha256"]

    @property
    def base(self) -> str:
        """Id of the stored base that the adapter belongs to."""
        return self.tags["selfheal.base"]

    @property
    def run_id(self) -> str:
        """Run that made the version."""
        return self.tags["selfheal.run_id"]

    @property
    def lease(self) -> int:
        """The number of the lease that it was registered under; 0 where there was none."""
        return int(self.tags.get(LEASE_TAG, "0"))

    @property
    def stale(self) -> bool:
        """Whether it was registered by a run that had lost its lease by then."""
        return STALE_TAG in self.tags

    @property
    def eval_rows(self) -> int:
        """Rows behind the metrics."""
        return int(self.tags["selfheal.eval_rows"])

    @property
    def counts(self) -> tuple[int, int, int, int] | None:
        """True and false positives and negatives behind the metrics: tp, tn, fp, fn.

        None where there are more than two classes, no labels yet, or an older version.
        """
        tag = self.tags.get("selfheal.counts")
        return None if tag is None else read_counts(tag)

    @property
    def regime(self) -> str:
        """Whether the sensitive feature drifted when it was made; empty where not measured."""
        return self.tags.get("selfheal.regime", "")

    @property
    def threshold(self) -> float:
        """Probability from which on it flags a row."""
        return float(self.tags.get("selfheal.threshold", "0.5"))

    @property
    def pre_heal(self) -> VersionRecord | None:
        """The version that served before the heal, with what was measured of it there; None where
        that is a version of its own, or this one is of no heal.
        """
        of = self.tags.get(PRE_HEAL_TAG)
        if of is None or not re.fullmatch(r"v\d+", of):
            return None
        figures = {n: value for n, value in self.metrics.items() if n in READINGS}
        figures |= {
            n.removeprefix(BEFORE): v for n, v in self.metrics.items() if n.startswith(BEFORE)
        }
        tags = {n: v for n, v in self.tags.items() if n in OF_THE_HEAL} | {
            "selfheal.phase": Phase.PRE_HEAL.value
        }
        if tags.get("selfheal.evaluation") == Evaluation.IN_SAMPLE.value:
            tags["selfheal.evaluation"] = Evaluation.PREQUENTIAL.value
        number = int(of.removeprefix("v"))
        return VersionRecord(
            self.model, number, Phase.PRE_HEAL, self.batch, figures, tags, self.created_ms
        )

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON."""
        return asdict(self)


def read_counts(text: str) -> tuple[int, int, int, int]:
    """Counts from the tag that holds them; raises ValueError for anything else."""
    tp, tn, fp, fn = map(int, text.split(","))
    return tp, tn, fp, fn


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a registry keeps of a run: ``figures`` are the (step, value) pairs of each."""

    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    figures: Mapping[str, Sequence[tuple[int, float]]]
    status: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """All that a registry keeps of a version: the tags of both of its entries, figures, files.

    ``logged`` are the tags of MLflow's logged model, by which versions are searched.
    """

    tags: Mapping[str, str]
    logged: Mapping[str, str]
    figures: Mapping[str, float]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class ForeignVersion:
    """A version that another tool registered: an alias may point to it, but selfheal knows
    neither its weights nor its figures.
    """

    model: str
    version: int
    source: str
    created_ms: int

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"v{self.version}, which selfheal did not register"


AnyVersion = VersionRecord | ForeignVersion


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias: who, when, from, to, why.

    ``sequence`` is its place in the model's journal; ``run`` the run that moved it, empty for a
    person; ``key`` tells a repeated write from a new one; ``proposal`` the proposal that it
    carries out.
    """

    model: str
    alias: str
    source: int | None
    target: int
    actor: str
    at: str
    reason: str
    sequence: int = 0
    run: str = ""
    key: str = ""
    proposal: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The move as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen part: safetensors of backbone and head, and a JSON document that says how rows
    become inputs, what the labels are called and how large the network is.
    """

    weights: bytes
    document: str

    @property
    def sha256(self) -> str:
        """Hash over weights and document."""
        return digest(self.weights + self.document.encode())

    def describe(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = json.loads(self.document)
        return document


def digest(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()
