"""When labels come, what a row without one means, and how far back a correction reaches."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from selfheal_cli.config_sources import Count, Positive, Settings

UNITS = {"s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
PERIOD = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(UNITS)})")
HORIZON = 100  # batches of labels back to which a correction is learned anew, where there are any


def period(value: Any) -> Any:
    """``60d``, ``12h``, ``30min`` or ``90s`` as seconds; anything but such a text as it is.

    >>> period("60d"), period(7)
    (5184000.0, 7)
    """
    if isinstance(value, bool):  # YAML reads yes as true, and Python true as 1
        raise ValueError("a time such as 60d is expected, not true or false")
    if not isinstance(value, str):
        return value
    match = PERIOD.fullmatch(value.strip())
    if match is None:
        try:
            return float(value)
        except ValueError:
            raise ValueError(
                f"a time such as 60d, 12h or 30min is expected (units: {', '.join(UNITS)}), or a "
                "number in the unit of the rows' times"
            ) from None
    return float(match[1]) * UNITS[match[2]]


Period = Annotated[
    Positive,
    BeforeValidator(period),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]


def share(value: Any) -> Any:
    """``4%`` as 0.04; anything else as it is.

    >>> share("4%"), share(0.04)
    (0.04, 0.04)
    """
    if not isinstance(value, str) or not value.strip().endswith("%"):
        return value
    try:
        return float(value.strip().removesuffix("%")) / 100
    except ValueError:
        raise ValueError("a share such as 4% or 0.04 is expected") from None


AskedShare = Annotated[
    float,
    Field(gt=0, le=1),
    BeforeValidator(share),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                              {"type": "string"}]}),
]  # fmt: skip


class LabelSettings(Settings):
    """When labels come: with the batch, ``delay`` batches later, at times that are known before,
    ``arriving`` by themselves in whatever order, never.
    """

    regime: Literal["full", "delayed", "timed", "arriving", "none"] = Field(
        default="full",
        description="with their batch, delay batches later, at label_time, by themselves, never",
    )
    delay: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="batches after which a delayed label comes"
    )
    keep: Count = Field(
        default=100_000, description="rows that wait for labels that arrive by themselves"
    )
    negative_after: Period | None = Field(
        default=None,
        description="a row without a positive label so long is a negative, such as 60d; rows "
        "count from then on; see docs/label-regimes.md",
    )
    horizon: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="batches of labels back to which a corrected label is learned anew; 0: a row "
        "keeps its first label; 100 behind a server and with negative_after",
    )

    only_when: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="which rows may get a label, such as 'decision = 0' where what is flagged is "
        "declined: a condition as in rules; decision and score beside the columns",
    )

    ask: AskedShare | None = Field(
        default=None,
        description="share of the rows whose labels are asked for by lot, such as 4%: others of a "
        "table are not read, heals of a served model wait for no more; see docs/label-regimes.md",
    )

    # a record that was written before they were there stays what it was
    _silent: ClassVar[tuple[str, ...]] = ("negative_after", "horizon", "only_when", "ask")

    @model_validator(mode="after")
    def _selects_once(self) -> Self:
        if self.ask is not None and self.only_when is not None:
            raise ValueError("ask and only_when exclude each other: both say which rows get labels")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name in self._silent:
            if name in values and getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name)
        return values

    def __str__(self) -> str:
        name = f"delayed:{self.delay}" if self.regime == "delayed" else self.regime
        name += "" if self.negative_after is None else f", negative after {self.told}"
        name += "" if self.ask is None else f", {self.ask:g} of the rows asked for"
        return name if self.only_when is None else f"{name}, only when {self.only_when}"

    @property
    def told(self) -> str:
        """``negative_after`` as a person writes it, in the largest unit that it is whole in."""
        after = self.negative_after or 0.0
        for unit, size in reversed(UNITS.items()):
            if unit != "w" and after >= size and after % size == 0:
                return f"{after / size:g}{unit}"
        return f"{after:g}"
