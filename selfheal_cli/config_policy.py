"""What operations decide for a model: thresholds, what a heal may do, what is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from selfheal_cli.config_labels import Period
from selfheal_cli.config_sources import Count, NotNegative, Positive, Settings, Share

WHOLE = 1e-6  # how far from a whole number one may be that is meant


class Retention(Settings):
    """Which versions 'selfheal prune' keeps beside those that something still needs."""

    keep_best: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=1, description="post-heal versions with the highest F1"
    )
    keep_last: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=20, description="latest versions"
    )
    keep_days: NotNegative = Field(default=0.0, description="versions younger than this")


class SegmentPolicy(Settings):
    """Which segments are named as drifted, where a run watches any (``segments.by``)."""

    false_discovery_rate: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.05,
        description="share of the named segments and columns that chance may have, expected",
    )
    level: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        default=0.95,
        description="chance that the interval of what a segment gains by its own heal holds, at "
        "all looks together; for segments.heal",
    )


class Policy(Settings):
    """Thresholds that operations own; one YAML file in ``registry_policies/`` each."""

    description: str = Field(default="", description="what the policy is for")
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
    when_worse: Literal["roll-back", "pause"] = Field(
        default="roll-back",
        description="what follows where heals did harm: a better version is restored, or healing "
        "pauses and what serves stays, until somebody decides",
    )
    rollback_candidates: Literal["run", "model"] = Field(
        default="run", description="restore from this run's versions, or from all of the model's"
    )
    brake_level: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=1e-6,
        description="chance at which a version that is no worse is rolled back at once; for "
        "heal.better_by paired",
    )
    brake_to: Literal["before", "best"] = Field(
        default="before",
        description="whereto: the version before; or that or the frozen baseline, whichever lost "
        "less, and neither while the stream breaks, when it would not halve the loss and loses "
        "more than who knows the label rate alone; best on own data",
    )
    cooldown: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=10, description="batches without a heal or a further rollback after a rollback"
    )
    cooldown_until: Literal["over", "drift"] = Field(
        default="over",
        description="whether such a pause lasts, or ends where drift begins in it; drift on own "
        "data",
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
    label_rate_of: Literal["recent", "recent-or-training"] = Field(
        default="recent",
        description="a batch's label rate is held against that of recent batches, or is plausible "
        "as well where it is that of training; recent-or-training on own data",
    )
    rule_rate_z: Positive = Field(
        default=4.0, description="a rule whose firing rate is further from training is stale"
    )
    stale_rules: Literal["drop", "reanchor", "keep"] = Field(
        default="drop", description="what a stale rule does: teach nothing, move, or go on"
    )
    publish_change: NotNegative = Field(
        default=0.0,
        description="a heal that changes decisions by less is learned and not published: mean "
        "Kullback-Leibler divergence; 0.003 for own data; 0: any",
    )
    publish_share: Share = Field(
        default=1.0,
        description="share of recent heals that are published at most, those that change most",
    )
    mode: Literal["auto", "recommend", "shadow", "off"] | None = Field(
        default=None,
        description="of a served model: heals serve within the budget, are proposed, are only "
        "registered, or are not made; None: as was ordered, auto at first",
    )
    budget_moves: Annotated[int, Field(ge=0, le=10_000_000)] | None = Field(
        default=None,
        description="heals of a served model that are published an hour, at most; what is beyond "
        "becomes a proposal; None: 6 behind a server",
    )
    budget_change: Share | None = Field(
        default=None,
        description="share of decisions that one of them may change; None: 0.1 behind a server",
    )
    budget_change_in_all: Share | None = Field(
        default=None,
        description="share of decisions that they may have changed since a person approved a "
        "version, or else since the baseline; None: 0.25 behind a server",
    )
    proposal_hours: Annotated[float, Field(gt=0, le=8_760)] = Field(
        default=24.0, description="hours after which a heal's proposal can no longer be approved"
    )
    canary_share: Annotated[float, Field(gt=0, le=0.9)] | None = Field(
        default=None,
        description="share of requests that a healed version of a served model answers while it is "
        "held against what serves; it serves all once it is better; None: it serves all at once",
    )
    canary_by: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="column whose values decide by their hash which requests those are, so that a "
        "caller stays where it is; None: the request's id",
    )
    canary_delay: Period | None = Field(
        default=None,
        description="how late labels come, such as 7d: rows are compared in the order of their "
        "scoring, once they are so old or all their labels are there; None: labels.negative_after",
    )
    canary_margin: NotNegative = Field(
        default=0.0, description="log loss a row by which a canary may be worse and is promoted"
    )
    canary_level: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        default=0.95,
        description="chance that the interval of the difference holds, at all looks together",
    )
    canary_limit: Period | None = Field(
        default=None,
        description="time after which a canary is withdrawn that nothing was decided of, such as "
        "14d; None: a week more than canary_delay",
    )
    explore: Share = Field(
        default=0.0,
        description="share of the rows without a label by labels.only_when that is let through by "
        "lot, to be labelled: 0, or one over a whole number, such as 0.02",
    )
    four_eyes: bool = Field(
        default=False, description="a rollback by hand needs a second person's approval"
    )
    retention: Retention = Field(default=Retention(), description="what 'selfheal prune' keeps")
    segments: SegmentPolicy = Field(
        default=SegmentPolicy(), description="which segments are named as drifted"
    )

    @field_validator("explore")
    @classmethod
    def _one_of_many(cls, value: float) -> float:
        if value and abs(1 / value - round(1 / value)) > WHOLE:
            raise ValueError("one over a whole number is expected, such as 0.02, 0.05 or 0.1")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        if value is False and info.field_name == "mode":
            return "off"  # as YAML reads it
        if (
            isinstance(value, bool) and info.field_name != "four_eyes"
        ):  # YAML reads yes and on as true, and Python true as 1
            raise ValueError("a number is expected, not true or false")
        return value
