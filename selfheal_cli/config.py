"""What a run is told: defaults, checks and units, in one place.

Defaults are the article's. Every model refuses unknown keys, so that a typo is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from selfheal_cli.config_labels import LabelSettings
from selfheal_cli.config_policy import Policy
from selfheal_cli.config_sources import (
    AnySource,
    Count,
    Name,
    NotNegative,
    Positive,
    PushedSettings,
    ServedSettings,
    Settings,
    SyntheticSettings,
    TableSettings,
)
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.installed import known, require_recorded
from selfheal_cli.kinds import MONITORS, RECIPES
from selfheal_cli.masking import masked_value

# settings of sources, labels and the policy are part of a run's, and are imported from here
__all__ = [
    "LabelSettings",
    "Policy",
    "PushedSettings",
    "ServedSettings",
    "Settings",
    "SyntheticSettings",
    "TableSettings",
]

T = TypeVar("T", bound="Settings")


def _offered(names: tuple[str, ...]) -> WithJsonSchema:
    """What editors offer; other names may be those of installed parts."""
    return WithJsonSchema({"anyOf": [{"enum": [*names]}, {"type": "string"}]})


RecipeName = Annotated[str, AfterValidator(known("recipe")), _offered(RECIPES)]
MonitorName = Annotated[str, AfterValidator(known("monitor")), _offered(MONITORS)]


class NetworkSettings(Settings):
    """Architecture and training on clean data."""

    hidden: Count = Field(default=64, description="width of the hidden layers")
    epochs: Count = Field(default=20, description="passes over the training rows")
    train_batch_size: Count = Field(default=100, description="rows a training step")
    learning_rate: Positive = Field(default=0.001, description="of training")
    shadow: Literal["plain", "frozen"] = Field(
        default="frozen", description="the frozen baseline: a plain network, or this one unhealed"
    )
    validation: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0,
        description="share of the training rows, the latest: half ends training, half is held out",
    )
    patience: Count = Field(
        default=3, description="epochs without gain after which training ends, with validation"
    )


class Objective(Settings):
    """What a decision is good for: sets the probability from which on a row is flagged.

    ``fn`` and ``fp`` are the costs of a missed positive and of a false alarm.
    """

    kind: Literal["accuracy", "f1", "cost"] = Field(
        default="accuracy", description="what a decision is to maximise, or cost, to minimise"
    )
    fn: Positive = Field(default=1.0, description="cost of a missed positive, for cost")
    fp: Positive = Field(default=1.0, description="cost of a false alarm, for cost")

    def __str__(self) -> str:
        return f"cost:{self.fn:g},{self.fp:g}" if self.kind == "cost" else self.kind


class HealSettings(Settings):
    """One heal: a recipe and its figures. ``steps`` to ``entropy_weight`` are for gradients."""

    recipe: RecipeName = Field(
        default="article", description="how to heal; ensemble unless the stream is synthetic"
    )
    mode: Literal["sync", "async"] = Field(
        default="sync", description="in place and replayable, or in a process beside scoring"
    )
    engine: Literal["local", "ray"] = Field(
        default="local",
        description="where adapters of segments learn (segments.heal): here, or in actors of the "
        "Ray cluster that RAY_ADDRESS names; the bytes are the same",
    )
    steps: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=5, description="gradient steps a heal"
    )
    learning_rate: Annotated[float, Field(gt=0, le=100)] = Field(
        default=0.003, description="of a gradient step"
    )
    label_weight: NotNegative = Field(default=0.70, description="of the labels in the loss")
    rule_weight: NotNegative = Field(default=0.24, description="of the rules in the loss")
    entropy_weight: NotNegative = Field(default=0.03, description="of the entropy in the loss")
    window: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=25,
        description="labelled batches that gradient and anchored learn from; 12 for ensemble, "
        "which is judged on them",
    )
    held_out: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.2,
        description="share of each batch that none of them learns from; 0.1 for ensemble",
    )
    ridge: Positive = Field(default=5.0, description="penalty of leaving the trained network")
    progressive: bool = Field(
        default=False,
        description="whether anchored goes through labels that come together batch by batch, so "
        "that one heal on them does what several would; true on own data",
    )
    trees: bool = Field(
        default=False,
        description="whether ensemble has boosted trees among its experts; true on own data where "
        "LightGBM can be loaded",
    )
    filter_steps: Annotated[int, Field(ge=2, le=1_000)] = Field(
        default=2,
        description="most Newton steps by which a filter of ensemble learns 100 rows; beyond two "
        "where they bring much, and shortened; 25 on own data",
    )
    trees_after: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=0,
        description="labelled batches from the one in which trees begin to be fitted, beside the "
        "stream, to the one in which they take effect; 0: fitted and in effect at once; 1 on own "
        "data",
    )
    network_steps: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=0,
        description="gradient steps, for each 100 labelled rows, of a small network among the "
        "experts of ensemble; 0: there is none; 10 on own data",
    )
    charged: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=0,
        description="labelled rows that experts of ensemble are charged for before they learn from "
        "them; 0: all that came together; 100 on own data",
    )
    verdict: Literal["window", "change"] = Field(
        default="window",
        description="what a diagnosis looks at: the window of labelled batches; or the rows since "
        "something moved, of more than two classes as well, and with heal.trees whether trees on "
        "the columns reach more; change on own data",
    )
    pre_heal: Literal["version", "figures"] = Field(
        default="version",
        description="what was measured before a heal: a version of its own, or figures of the "
        "version that it gave; figures unless the recipe is article",
    )
    assume: Literal["positives-stable", "negatives-stable", "inputs-shifted"] | None = Field(
        default=None, description="what heals without labels rest on; None: there are none"
    )
    assume_strictly: bool = Field(
        default=False,
        description="heal without labels only where inputs moved, and not where rows of the class "
        "that is assumed to be as in training are missing; true unless it is said",
    )
    better_by: Literal["f1", "paired"] = Field(
        default="f1",
        description="a version is better by the F1 it had, or row by row against what served; "
        "paired on own data unless the recipe is article",
    )


class MonitorSettings(Settings):
    """A monitor by name. Left out, the threshold is the kind's own and the warning half of it.

    ``on``: features, or one of "all", "scores" and "errors"; empty for the kind's own choice.
    """

    name: MonitorName = Field(description="which monitor; see docs/monitors.md")
    on: tuple[str, ...] = Field(
        default=(), description="features, or one of all, scores, errors; empty: the kind's choice"
    )
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


class SegmentSettings(Settings):
    """Segments of the rows, each watched, and healed, by itself; see docs/segments.md."""

    by: str | None = Field(
        default=None, description="column whose values are the segments; None: there are none"
    )
    heal: bool = Field(
        default=False,
        description="each segment has a small adapter of its own, beside the one for all rows",
    )
    window: Annotated[int, Field(ge=20, le=1_000_000)] = Field(
        default=500, description="rows of a segment's own that are looked at together"
    )
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1,
        description="effect from which a segment is named: Kolmogorov-Smirnov distance of numbers, "
        "share of rows that would have to move of texts",
    )
    most: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=5_000, description="segments that are told apart; rows of further ones count apart"
    )


# what records of selfheal 0.1.0 do not name; the defaults are as it did
SINCE_0_1_0 = {
    "network": ("validation", "patience"),
    "heal": (
        "engine",
        "trees",
        "pre_heal",
        "better_by",
        "assume_strictly",
        "progressive",
        "filter_steps",
        "trees_after",
        "charged",
        "network_steps",
        "verdict",
    ),
    "policy": (
        "brake_level",
        "brake_to",
        "cooldown_until",
        "label_rate_of",
        "publish_change",
        "publish_share",
        "mode",
        "budget_moves",
        "budget_change",
        "budget_change_in_all",
        "proposal_hours",
        "explore",
        "when_worse",
        "canary_share",
        "canary_by",
        "canary_delay",
        "canary_margin",
        "canary_level",
        "canary_limit",
    ),
}


class RunConfig(Settings):
    """Everything that decides a run's result."""

    source: AnySource = Field(
        default=SyntheticSettings(), description="where rows come from; kind says what it is"
    )
    network: NetworkSettings = Field(
        default=NetworkSettings(), description="the network that a run trains"
    )
    heal: HealSettings = Field(default=HealSettings(), description="how a heal is done")
    labels: LabelSettings = Field(default=LabelSettings(), description="when labels come")
    objective: Objective = Field(default=Objective(), description="what decisions are for")
    policy: Policy = Field(default=Policy(), description="thresholds that operations own")
    model: str | None = Field(
        default=None, description="a wrapped model to heal, models:/NAME/VERSION; None: train one"
    )
    sensitive: str | None = Field(
        default=None,
        description="numeric feature whose drift is watched, or auto; None: the first rule's",
    )
    rules: tuple[str, ...] = Field(
        default=(), description="domain rules, see docs/rules.md; empty: the best one-split rule"
    )
    monitors: tuple[MonitorSettings, ...] = Field(
        default=(), description="further monitors, see docs/monitors.md"
    )
    segments: SegmentSettings = Field(
        default=SegmentSettings(), description="segments that are watched each by itself"
    )
    drift_by: Literal["sensitive", "monitors"] = Field(
        default="sensitive",
        description="whose alarm is drift: the sensitive feature's, or every monitor's as well, "
        "and then what moved is written down; monitors unless the stream is synthetic",
    )
    batches: Count | None = Field(
        default=None, description="batches to stream; None: 25, or all of the data"
    )
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        default=100, description="rows scored together"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        default=42, description="of data, initialisation and training"
    )
    model_name: Name = Field(default="fraud", description="registered model")
    experiment: Name = Field(default="selfheal", description="MLflow experiment")
    export_dir: Path = Field(
        default=Path("monitoring_export"), description="folder of the monitoring files"
    )
    plots: bool = Field(default=True, description="draw pictures")
    row_contract: Literal[1, 2] = Field(
        default=2, description="what values mean, see docs/sources.md; 1: as in selfheal 0.1.0"
    )

    @field_validator("monitors")
    @classmethod
    def _told_apart(cls, value: tuple[MonitorSettings, ...]) -> tuple[MonitorSettings, ...]:
        keys = [monitor.key for monitor in value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is there twice; each needs features of its own (on)")
        return value

    @model_serializer(mode="wrap")
    def _without_none(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Without monitors nothing is said of them: a run's record stays what it always was.

        So does one of selfheal 0.1.0 when the run is gone through again.
        """
        values: dict[str, Any] = dump(self)
        if self.segments.by is None:
            values.pop("segments", None)
            values.get("policy", {}).pop("segments", None)
        # own data has monitors unless it says that it has none
        if self.source.kind == "synthetic" or self.row_contract == 1:
            if not self.monitors:
                values.pop("monitors", None)
            if self.drift_by == "sensitive":
                values.pop("drift_by", None)
        if self.row_contract == 1 and info.mode == "json":
            del values["row_contract"]
            for group, names in SINCE_0_1_0.items():
                for name in names:
                    values[group].pop(name, None)
        return values

    @property
    def is_served(self) -> bool:
        """Whether its rows are what a server, or a program, answered as they came."""
        return self.source.kind in ("served", "pushed")

    def parameters(self) -> dict[str, str]:
        """Flat name to text, as logged in the registry's run."""
        values = self.model_dump(mode="json")
        if self.monitors:
            values["monitors"] = "; ".join(map(str, self.monitors))
        return flattened(values)


def flattened(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as a registry's run has them: flat name to text."""
    return dict(_flatten("", values))


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in _flatten(f"{prefix}.{key}" if prefix else key, inner)
        ]
    return [(prefix, "" if value is None else masked_value(str(value)))]


def recorded(
    values: Mapping[str, Any], *, where: str, parts: Sequence[Mapping[str, str]] = ()
) -> RunConfig:
    """A run's configuration as its log has it; what a log does not name is as in selfheal 0.1.0.

    ``parts`` are those of other packages that made it. Raises `ConfigurationError` naming
    ``where``, or the package that is not here.
    """
    require_recorded(parts)
    return checked(RunConfig, {"row_contract": 1, **values}, where=where)


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
