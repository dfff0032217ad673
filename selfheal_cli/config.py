"""What a run is told: defaults, checks and units, in one place.

Defaults are the article's. Every model refuses unknown keys, so that a typo is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from selfheal_cli.errors import ConfigurationError

T = TypeVar("T", bound="Settings")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$")]

WORKSPACE = Path("mlruns") / "selfheal"


class Settings(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Retention(Settings):
    """Which versions 'selfheal prune' keeps beside those that something still needs."""

    keep_best: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=10, description="post-heal versions with the highest F1"
    )
    keep_last: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=50, description="latest versions"
    )
    keep_days: NotNegative = Field(default=30.0, description="versions younger than this")


class Policy(Settings):
    """Thresholds that operations own; one YAML file in ``registry_policies/`` each."""

    description: str = ""
    fidi_threshold: NotNegative = Field(
        default=1.0, description="drift when the window's mean is further from training, in its sd"
    )
    fidi_window: Count = Field(default=10, description="batch means in the drift window")
    fidi_min_batches: Count = Field(default=3, description="batches before the first drift reading")
    conflict_min: Count = Field(default=5, description="conflicts in a batch that start a heal")
    conflict_probability: Share = Field(
        default=0.30, description="a rule's positive scored below this is a conflict"
    )
    rollback_f1_drop: Share = Field(
        default=0.08, description="roll back when mean F1 falls by more"
    )
    rollback_acc_drop: Share = Field(
        default=0.10, description="roll back when mean accuracy falls by more"
    )
    health_window: Count = Field(default=5, description="heals in the rolling means")
    health_min_heals: Count = Field(default=3, description="heals before a rollback can fire")
    rollback_candidates: Literal["run", "model"] = Field(
        default="run", description="restore from this run's versions, or from all of the model's"
    )
    cooldown: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=10, description="batches without a heal or a further rollback after a rollback"
    )
    gate_tolerance: NotNegative = Field(
        default=2.0, description="standard errors by which a heal may be worse on held-out rows"
    )
    label_rate_z: Positive = Field(
        default=6.0, description="a batch whose label rate is further away is quarantined"
    )
    quarantine_limit: Count = Field(
        default=8, description="quarantined batches in a row after which the new rate is believed"
    )
    rule_rate_z: Positive = Field(
        default=4.0, description="a rule whose firing rate is further from training is stale"
    )
    stale_rules: Literal["drop", "reanchor", "keep"] = Field(
        default="drop", description="what a stale rule does: teach nothing, move, or go on"
    )
    four_eyes: bool = Field(
        default=False, description="a rollback by hand needs a second person's approval"
    )
    retention: Retention = Field(default=Retention(), description="what 'selfheal prune' keeps")

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        if (
            isinstance(value, bool) and info.field_name != "four_eyes"
        ):  # YAML reads yes and on as true, and Python true as 1
            raise ValueError("a number is expected, not true or false")
        return value


class NetworkSettings(Settings):
    """Architecture and training on clean data."""

    hidden: Count = 64
    epochs: Count = 20
    train_batch_size: Count = 100
    learning_rate: Positive = 0.001
    shadow: Literal["plain", "frozen"] = Field(
        default="frozen", description="what doing nothing is: a plain network, or this one unhealed"
    )


class LabelSettings(Settings):
    """When labels come: with the batch, ``delay`` batches later, at times that are known before,
    ``arriving`` by themselves in whatever order, never.
    """

    regime: Literal["full", "delayed", "timed", "arriving", "none"] = "full"
    delay: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    keep: Count = Field(
        default=100_000, description="rows that wait for labels that arrive by themselves"
    )

    def __str__(self) -> str:
        return f"delayed:{self.delay}" if self.regime == "delayed" else self.regime


class Objective(Settings):
    """What a decision is good for: sets the probability from which on a row is flagged.

    ``fn`` and ``fp`` are the costs of a missed positive and of a false alarm.
    """

    kind: Literal["accuracy", "f1", "cost"] = "accuracy"
    fn: Positive = 1.0
    fp: Positive = 1.0

    def __str__(self) -> str:
        return f"cost:{self.fn:g},{self.fp:g}" if self.kind == "cost" else self.kind


class HealSettings(Settings):
    """One heal: a recipe and its figures. ``steps`` to ``entropy_weight`` are for gradients."""

    recipe: Literal["article", "gradient", "anchored"] = "article"
    mode: Literal["sync", "async"] = "sync"
    steps: Annotated[int, Field(ge=1, le=10_000)] = 5
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.003
    label_weight: NotNegative = 0.70
    rule_weight: NotNegative = 0.24
    entropy_weight: NotNegative = 0.03
    window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=25, description="labelled batches that gradient and anchored learn from"
    )
    held_out: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.2, description="share of each batch that they never learn from"
    )
    ridge: Positive = Field(default=5.0, description="penalty of leaving the trained network")
    assume: Literal["positives-stable", "negatives-stable", "inputs-shifted"] | None = Field(
        default=None, description="what heals without labels rest on; None: there are none"
    )


class SyntheticSettings(Settings):
    """The article's generator; ``drift_strength`` moves the normals' V14 from 0 to minus itself.

    What says "stream" holds for the stream and for the held-out drifted rows.
    """

    kind: Literal["synthetic"] = "synthetic"
    drift_strength: Annotated[float, Field(ge=-100, le=100)] = 2.2
    train_rows: Count = 5_000
    test_rows: Count = 1_000
    positive_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    fresh: bool = Field(
        default=False, description="draw every batch anew, not from the drifted rows"
    )
    phases: tuple[tuple[Count, Annotated[float, Field(ge=-100, le=100)]], ...] = Field(
        default=(), description="(batches, drift) one after the other; the stream is fresh"
    )
    positive_shift: Annotated[float, Field(ge=-100, le=100)] = Field(
        default=0.0, description="added to the positives' mean V14 in the stream"
    )
    stream_positive_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of positives in the stream; None: positive_share"
    )


class TableSettings(Settings):
    """A CSV or Parquet file whose rows are in time order."""

    kind: Literal["table"] = "table"
    path: Path
    target: str
    positive: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    separator: str | None = None
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    unlabelled: bool = Field(default=False, description="the stream's targets may be missing")
    time: str | None = Field(default=None, description="column with the row's time")
    label_time: str | None = Field(
        default=None, description="column with the time at which the row's label came"
    )

    inputs: tuple[str, ...] = Field(
        default=(),
        description="columns that go into a wrapped model as they are, in this order; empty: every "
        "column, encoded",
    )
    record_rows: bool = Field(default=False, description="keep the table with the run's files")

    @field_validator("label_time")
    @classmethod
    def _needs_time(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("time") is None:
            raise ValueError("it needs time, the column with the row's own time, as well")
        return value


class MonitorSettings(Settings):
    """A monitor by name. Left out, the threshold is the kind's own and the warning half of it.

    ``on``: features, or one of "all", "scores" and "errors"; empty for the kind's own choice.
    """

    name: Literal[
        "fidi", "adwin", "kswin", "page-hinkley", "psi", "two-sample", "prediction-rate",
        "missing", "category", "conflicts",
    ]  # fmt: skip
    on: tuple[str, ...] = ()
    threshold: Positive | None = Field(default=None, description="effect from which it alarms")
    warning: Positive | None = Field(default=None, description="effect from which it warns")
    alpha: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=1e-4, description="chance at which a batch without drift may look significant"
    )
    window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=10, description="batches that are looked at together"
    )
    triggers: Literal["nothing", "diagnosis", "heal"] = Field(
        default="nothing", description="what an alarm starts; a heal comes with a diagnosis"
    )
    weights: Literal["gradient", "equal"] = Field(
        default="gradient", description="of features in fidi: the network's gradients, or equal"
    )

    @model_validator(mode="after")
    def _warns_first(self) -> Self:
        if self.warning and self.threshold and self.warning > self.threshold:
            raise ValueError(
                f"warning {self.warning:g} is above threshold {self.threshold:g}: "
                "it must not be higher"
            )
        return self

    @property
    def key(self) -> str:
        """What it is called in events and columns."""
        return ":".join([self.name, "+".join(self.on)]) if self.on else self.name

    def __str__(self) -> str:
        """As on the command line; what is left out is the default."""
        set_here = {
            name: "+".join(value) if name == "on" else value
            for name, value in self.model_dump(exclude_defaults=True).items()
            if name != "name"
        }
        options = ",".join(f"{name}={value}" for name, value in set_here.items())
        return f"{self.name}:{options}" if options else self.name


class PushedSettings(Settings):
    """Rows that a program hands over; nothing can be read of them again."""

    kind: Literal["pushed"] = "pushed"
    inputs: tuple[str, ...]


class ServedSettings(Settings):
    """Rows that a server answered; ``reference`` says what is normal."""

    kind: Literal["served"] = "served"
    reference: Annotated[SyntheticSettings | TableSettings, Field(discriminator="kind")]


class RunConfig(Settings):
    """Everything that decides a run's result."""

    source: SyntheticSettings | TableSettings | PushedSettings | ServedSettings = (
        SyntheticSettings()
    )
    network: NetworkSettings = NetworkSettings()
    heal: HealSettings = HealSettings()
    labels: LabelSettings = LabelSettings()
    objective: Objective = Objective()
    policy: Policy = Policy()
    model: str | None = Field(
        default=None, description="a wrapped model to heal, models:/NAME/VERSION; None: train one"
    )
    sensitive: str | None = None
    rules: tuple[str, ...] = ()
    monitors: tuple[MonitorSettings, ...] = ()
    batches: Count | None = None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42
    model_name: Name = "fraud"
    experiment: Name = "selfheal"
    export_dir: Path = Path("monitoring_export")
    plots: bool = True

    @field_validator("monitors")
    @classmethod
    def _told_apart(cls, value: tuple[MonitorSettings, ...]) -> tuple[MonitorSettings, ...]:
        keys = [monitor.key for monitor in value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is there twice; each needs features of its own (on)")
        return value

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without monitors nothing is said of them: a run's record stays what it always was."""
        values: dict[str, Any] = dump(self)
        if not self.monitors:
            values.pop("monitors", None)
        return values

    def parameters(self) -> dict[str, str]:
        """Flat name to text, as logged in the registry's run."""
        values = self.model_dump(mode="json")
        if self.monitors:
            values["monitors"] = "; ".join(map(str, self.monitors))
        return dict(_flatten("", values))


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in _flatten(f"{prefix}.{key}" if prefix else key, inner)
        ]
    return [(prefix, "" if value is None else str(value))]


def checked(model: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build settings from outside values, or say in one line what is wrong with them.

    Raises `ConfigurationError` naming ``where``, the key, the value and what is allowed.
    """
    try:
        return model(**values)
    except ValidationError as exc:
        raise ConfigurationError(f"{where}: {explain(exc, model)}") from exc


def explain(error: ValidationError, model: type[Settings]) -> str:
    """The first complaint of a pydantic error, for the person who wrote the value."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = f"; known: {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
        return f"unknown key '{key}'{known}"
    message = str(first["msg"]).removeprefix("Value error, ")
    what = f"{message[0].lower()}{message[1:]}"
    return f"{key} = {first['input']!r}: {what}" if key else what
