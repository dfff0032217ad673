"""What a run reads: settings of its sources, a class each, and what all settings have in common."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from selfheal_cli.masking import without_secrets

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$")]

NDJSON_SUFFIXES = (".ndjson", ".jsonl")


class Settings(BaseModel):
    """A frozen group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class SyntheticSettings(Settings):
    """The article's generator; ``drift_strength`` moves the normals' V14 from 0 to minus itself.

    What says "stream" holds for the stream and for the held-out drifted rows.
    """

    kind: Literal["synthetic"] = Field(default="synthetic", description="the article's stream")
    drift_strength: Annotated[float, Field(ge=-100, le=100)] = Field(
        default=2.2, description="how far the normals' V14 moves down"
    )
    train_rows: Count = Field(default=5_000, description="clean rows to train on")
    test_rows: Count = Field(default=1_000, description="held-out rows, clean and drifted each")
    positive_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.15, description="share of positives"
    )
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


class RowSettings(Settings):
    """Rows of named columns in time order: what is read of them, wherever they come from."""

    target: str = Field(description="column to predict; two or more values")
    positive: str | None = Field(
        default=None,
        description="the target's positive value; None: a word for true, else the rarer value",
    )
    drop: tuple[str, ...] = Field(default=(), description="columns that are left out")
    categorical: tuple[str, ...] = Field(
        default=(), description="columns of numbers that are categories"
    )
    unlabelled: bool = Field(default=False, description="the stream's targets may be missing")
    inputs: tuple[str, ...] = Field(
        default=(),
        description="columns that go into a wrapped model as they are, in this order; empty: every "
        "column, encoded",
    )
    missing: tuple[float | None, ...] = Field(
        default=(),
        description="what goes in for a missing value of each of the inputs; null: NaN, for a "
        "model that takes it; empty: 0",
    )
    estimator: dict[str, Any] | None = Field(
        default=None,
        description="a wrapped model that is no torch network, as 'selfheal wrap' wrote it down",
    )
    record_rows: bool = Field(default=False, description="keep the rows with the run's files")
    max_rejects: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        default=100, description="rows that are put aside before the run stops"
    )
    reject_misfits: bool = Field(
        default=True,
        description="put rows with schema violations aside too; false: they end the run",
    )

    drop_identifiers: bool = Field(
        default=False,
        description="leave out columns that name a row or a time, too; true for data without a "
        "file like this one",
    )

    _silent: ClassVar[tuple[str, ...]] = ("missing", "estimator", "drop_identifiers")

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of what came later nothing is said where it is as always: a record stays what it was."""
        values: dict[str, Any] = dump(self)
        for name in self._silent:
            if name in values and getattr(self, name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values


class BoundedSettings(RowSettings):
    """Rows that end: the first of them train, the rest stream."""

    _silent: ClassVar[tuple[str, ...]] = (
        "missing", "estimator", "max_rejects", "reject_misfits", "drop_identifiers", "sort_by",
        "decimal", "thousands", "date_format", "missing_values", "encoding", "skip_lines",
    )  # fmt: skip
    train_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.25, description="first share of the rows, which trains; the rest streams"
    )
    time: str | None = Field(default=None, description="column with the row's time")
    label_time: str | None = Field(
        default=None, description="column with the time at which the row's label came"
    )

    sort_by: str | None = Field(
        default=None, description="column whose order the rows are put in; null: as they stand"
    )
    decimal: Literal[".", ","] | None = Field(
        default=None,
        description="of numbers with signs of currency, per cent or thousands: the decimal sign",
    )
    thousands: Literal[",", ".", " ", "'"] | None = Field(
        default=None, description="what separates thousands, where decimal is given"
    )
    date_format: tuple[str, ...] = Field(
        default=(), description="of dates that are not ISO 8601, such as '%d.%m.%Y %H:%M'"
    )
    missing_values: tuple[str, ...] = Field(
        default=(), description="texts that are missing values, such as '-' or unknown"
    )

    @field_validator("thousands")
    @classmethod
    def _beside_decimal(cls, value: str | None, info: ValidationInfo) -> str | None:
        decimal = info.data.get("decimal")
        if value is not None and (decimal is None or decimal == value):
            raise ValueError("decimal, the other sign, is needed with it, and is another one")
        return value

    @field_validator("date_format")
    @classmethod
    def _has_a_day(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for form in value:
            try:
                datetime.strptime("", form)
            except ValueError as exc:
                if "does not match" in str(exc) and "%d" in form:
                    continue
            raise ValueError(f"{form!r} is no format of a day, such as %d.%m.%Y")
        return value

    @field_validator("label_time")
    @classmethod
    def _needs_time(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("time") is None:
            raise ValueError("it needs time, the column with the row's own time, as well")
        return value


class TableSettings(BoundedSettings):
    """A CSV or Parquet file."""

    kind: Literal["table"] = Field(default="table", description="a CSV or Parquet file")
    path: Path = Field(description="the file")
    separator: str | None = Field(
        default=None, description="of a CSV file; None: found in its head"
    )
    encoding: str | None = Field(
        default=None, description="of a CSV file, such as cp1252; None: UTF-8, or as it is marked"
    )
    skip_lines: Annotated[int, Field(ge=0, le=1_000)] | None = Field(
        default=None, description="lines above a CSV file's header; None: found in its head"
    )

    @field_validator("encoding")
    @classmethod
    def _of_text(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                "".encode(value)
        except (LookupError, UnicodeError, ValueError) as exc:
            raise ValueError("no encoding of that name; such as cp1252, utf-16 or latin-1") from exc
        return value


class FolderSettings(BoundedSettings):
    """A folder of Parquet files, read in the order of their names."""

    kind: Literal["folder"] = Field(default="folder", description="Parquet files in a folder")
    path: Path = Field(description="the folder")


class NdjsonSettings(BoundedSettings):
    """A file with a JSON object a line."""

    kind: Literal["ndjson"] = Field(default="ndjson", description="a JSON object a line")
    path: Path = Field(description="the file")


class SqlSettings(BoundedSettings):
    """The rows of a SQL query, in the query's order.

    ``url`` is what is shown and kept: no password is in it.
    """

    kind: Literal["sql"] = Field(default="sql", description="what a query gives")
    url: str = Field(description="the database, as SQLAlchemy names it")
    query: str = Field(description="the query, which says the order")
    _address: SecretStr = SecretStr("")

    @property
    def address(self) -> SecretStr:
        """The URL as it was given."""
        return self._address

    @model_validator(mode="wrap")
    @classmethod
    def _hide_password(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, dict) or not isinstance(values.get("url"), str):
            return build(values)
        made = build({**values, "url": without_secrets(values["url"])})
        made._address = SecretStr(values["url"])
        return made


class OwnSettings(BoundedSettings):
    """The rows that another package gives; ``options`` are written down with the run."""

    kind: Literal["own"] = Field(default="own", description="what another package gives")
    provider: str = Field(description="the package's name for it; see docs/own-parts.md")
    options: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*=")], ...] = Field(
        default=(), description="what it is called with, KEY=VALUE each; no secrets"
    )


class UnboundedSettings(RowSettings):
    """JSON objects that keep coming until the run is stopped."""

    train: Path | None = Field(
        default=None, description="labelled table to train on; None: the first rows"
    )
    train_rows: Count = Field(default=1_000, description="first rows, which train the network")
    max_wait: Positive = Field(
        default=10.0, description="seconds after which a batch that is not full is scored"
    )


class StdinSettings(UnboundedSettings):
    """A JSON object a line on standard input."""

    kind: Literal["stdin"] = Field(
        default="stdin", description="a JSON object a line on standard input"
    )


class KafkaSettings(UnboundedSettings):
    """Kafka topics of rows and, joined by ``key``, of labels; a JSON object a message."""

    kind: Literal["kafka"] = Field(default="kafka", description="topics of a Kafka broker")
    bootstrap: str = Field(description="the broker's address")
    topic: str = Field(description="of rows")
    label_topic: str | None = Field(default=None, description="of labels; key joins them")
    key: str | None = Field(default=None, description="column that rows and labels are joined by")
    group: str = Field(default="selfheal", description="consumer group whose offsets are committed")
    client: Path | None = Field(
        default=None, description="file of librdkafka settings, such as security.protocol=SSL"
    )

    @model_validator(mode="after")
    def _joined(self) -> KafkaSettings:
        if (self.label_topic is None) != (self.key is None):
            raise ValueError("label_topic and key, the column that joins the two, go together")
        if self.label_topic is not None and self.train is None:
            raise ValueError(
                "with label_topic rows come without labels: name a labelled table in train"
            )
        return self


class PushedSettings(Settings):
    """Rows that a program hands over; nothing can be read of them again."""

    kind: Literal["pushed"] = "pushed"
    inputs: tuple[str, ...]


Reference = (
    SyntheticSettings | TableSettings | FolderSettings | NdjsonSettings | SqlSettings | OwnSettings
)


class ServedSettings(Settings):
    """Rows that a server answered; ``reference`` says what is normal."""

    kind: Literal["served"] = "served"
    reference: Annotated[Reference, Field(discriminator="kind")]


AnySource = Annotated[
    SyntheticSettings
    | TableSettings
    | FolderSettings
    | NdjsonSettings
    | SqlSettings
    | OwnSettings
    | StdinSettings
    | KafkaSettings
    | PushedSettings
    | ServedSettings,
    Field(discriminator="kind"),
]
