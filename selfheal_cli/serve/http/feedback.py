"""Labels that come later: which row a label is for, and which class it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from selfheal_cli.errors import RequestRefused
from selfheal_cli.labels.words import classes_by_word
from selfheal_cli.serve.http.extent import require_rows
from selfheal_cli.serve.http.tables import as_key
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.spool.entries import Feedback

Label = StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
MOST_KEY = 512
REQUEST_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowLabel(_Said):
    """The label of one row (``label``), or of every row of a request in its order (``labels``,
    null where it is not known). Rows by ``request_id`` (and ``place``, from 0), or one by ``key``.
    """

    request_id: Annotated[str, Field(pattern=REQUEST_ID)] | None = None
    place: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    key: (
        Annotated[str, Field(max_length=MOST_KEY)]
        | Annotated[int, Field(ge=-(2**63), lt=2**63)]
        | None
    ) = None
    label: Label | None = None
    labels: list[Label | None] | None = None

    @model_validator(mode="after")
    def _names_rows_once(self) -> Self:
        if (self.request_id is None) == (self.key is None):
            raise ValueError("exactly one of request_id and key is needed")
        if (self.label is None) == (self.labels is None):
            raise ValueError("exactly one of label and labels is needed")
        if self.labels is not None and (self.key is not None or self.place):
            raise ValueError("labels are for a whole request: give request_id alone")
        return self


class Labels(_Said):
    """Labels in any order; one that was told before is counted as repeated."""

    labels: list[RowLabel]


class Outcome(_Said):
    """Labels that were joined to their rows, of rows that have one, and of rows that nobody knows;
    of the repeated ones, ``corrected`` say another class and count from now on, since whoever told
    the first label told these; ``contradicting`` say another class and do not.
    """

    joined: int
    repeated: int
    unknown: int
    contradicting: int
    corrected: int


def as_feedback(told: Labels, classes: Sequence[str], most: int) -> list[Feedback]:
    """Every label with its class; raises `RequestRefused` for a value that the target has not."""
    require_rows(sum(len(one.labels or (None,)) for one in told.labels), most)
    known = classes_by_word(classes)
    feedback: list[Feedback] = []
    for at, one in enumerate(told.labels):
        values = [one.label] if one.labels is None else one.labels
        for place, value in enumerate(values, start=one.place):
            if value is None:
                continue
            y = known.get(one_text(value).casefold())
            if y is None:
                raise RequestRefused(
                    f"labels.{at}: the target has no such value; allowed: {', '.join(classes)}",
                    code="INVALID_PARAMETER_VALUE", reason="label",
                )  # fmt: skip
            key = None if one.key is None else as_key(one.key)
            feedback.append(Feedback(y, one.request_id, place if key is None else 0, key))
    return feedback
