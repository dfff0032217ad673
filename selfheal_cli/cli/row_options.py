"""Options that say where a run's rows come from, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from selfheal_cli.config import Settings

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
FILE = click.Path(path_type=Path, dir_okay=False)
STDIN = Path("-")
FOR_ROWS = ("target", "positive", "drop", "categorical", "record_rows")
FOR_TABLES = ("separator", "train_fraction", "time", "label_time")
FOR_STREAMS = ("train", "train_rows", "max_wait", "max_rejects", "reject_misfits")
FOR_SQL = ("sql", "query")
FOR_KAFKA = ("kafka", "topic", "label_topic", "key", "kafka_group", "kafka_config")
ELSEWHERE = (*FOR_STREAMS, *FOR_SQL, *FOR_KAFKA)


def group(*parts: Decorator) -> Decorator:
    """Several options as one decorator, in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for part in reversed(parts):
            command = part(command)
        return command

    return decorate


# Rows from elsewhere than a file.
elsewhere = group(
    click.option(
        "--sql", metavar="URL", help="Database whose rows --query asks for; see docs/sources.md."
    ),
    click.option("--query", metavar="SELECT|FILE", help="The query, or the file that it is in."),
    click.option("--kafka", metavar="BOOTSTRAP", help="Read rows from the --topic of a broker."),
    click.option("--topic", help="Kafka topic of rows, a JSON object a message."),
    click.option("--label-topic", metavar="TOPIC", help="Kafka topic of labels, joined by --key."),
    click.option("--key", metavar="COLUMN", help="Column that rows and labels are joined by."),
    click.option(
        "--kafka-group", metavar="GROUP",
        help="Consumer group whose offsets are committed. [default: selfheal]",
    ),
    click.option("--kafka-config", type=FILE, help="File of librdkafka settings, key=value."),
    click.option(
        "--train", type=FILE,
        help="Of a stream: labelled table to train on. [default: its first rows]",
    ),
    click.option(
        "--train-rows", type=int,
        help="Of a stream: first rows, which train the network. [default: 1000]",
    ),
    click.option(
        "--max-wait", metavar="SECONDS", type=float,
        help="Of a stream: after which a batch that is not full is scored. [default: 10]",
    ),
    click.option(
        "--max-rejects", type=int,
        help="Of a stream: broken lines that are put aside before the run stops. [default: 100]",
    ),
    click.option(
        "--reject-misfits", is_flag=True, default=None,
        help="Of a stream: put rows aside that are not as in training, instead of stopping.",
    ),
)  # fmt: skip


def named(given: Mapping[str, Any]) -> Path | None:
    """What rows come from, as a path or a name; None for the synthetic stream.

    Raises click's usage error where more than one is given.
    """
    sources = {"DATA": given["data"], "--sql": given["sql"], "--kafka": given["kafka"]}
    named = [name for name, value in sources.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")
    if given["sql"] is not None and given["query"] is None:
        raise click.UsageError("--sql needs --query 'SELECT ...' or --query FILE")
    if given["kafka"] is not None and given["topic"] is None:
        raise click.UsageError("--kafka needs --topic")
    found: Path | None = given["data"]
    if given["sql"] is not None:
        found = Path("query")
    elif given["kafka"] is not None:
        found = Path(given["topic"])
    return found


def refuse_ignored(given: Mapping[str, Any], data: Path | None) -> None:
    """Raise click's usage error for an option that the rows' origin has no use for."""
    if data is not None and given["drift_strength"] is not None:
        raise click.UsageError("--drift-strength is for the synthetic stream, not for DATA")
    stream = given["kafka"] is not None or data == STDIN
    kinds = (
        (FOR_ROWS, data is not None, "a DATA file, --sql or --kafka"),
        (FOR_TABLES, data is not None and not stream, "a DATA file"),
        (FOR_SQL, given["sql"] is not None, "--sql"),
        (FOR_KAFKA, given["kafka"] is not None, "--kafka"),
        (FOR_STREAMS, stream, "rows that keep coming: - or --kafka"),
    )
    for names, wanted, needs in kinds:
        for name in names:
            if given[name] not in (None, (), False) and not wanted:
                raise click.UsageError(f"--{name.replace('_', '-')} needs {needs}")
    if data is not None and given["target"] is None:
        where = "standard input" if data == STDIN else data
        raise click.UsageError(f"--target COLUMN is needed with {where}")


def source_settings(given: Mapping[str, Any], data: Path | None) -> Any:
    """The source's settings; raises `ConfigurationError` or click's usage error."""
    from selfheal_cli.config import SyntheticSettings, checked

    if data is None:
        values = {"drift_strength": given["drift_strength"]}
        return checked(SyntheticSettings, known(values), where="options")
    kind, own = _kind(given, data)
    names = (*FOR_ROWS, *FOR_TABLES, *FOR_STREAMS)
    values = {name: given[name] for name in names if name in kind.model_fields} | own
    later = given["label_time"] is not None or given["labels"] not in (None, "full")
    values["unlabelled"] = later or given["label_topic"] is not None
    if given["separator"] is not None and "separator" not in kind.model_fields:
        raise click.UsageError(f"--separator is for a CSV file, not for {data}")
    return checked(kind, known(values), where="options")


def _kind(given: Mapping[str, Any], data: Path) -> tuple[type[Settings], dict[str, Any]]:
    """The settings' class for what rows come from, and what it has beside other sources."""
    from selfheal_cli import inputs

    if given["sql"] is not None:
        return inputs.SqlSettings, {"url": given["sql"], "query": _query(given["query"])}
    if given["kafka"] is not None:
        own = {name.removeprefix("kafka_"): given[name] for name in FOR_KAFKA if name != "kafka"}
        return inputs.KafkaSettings, {**own, "bootstrap": given["kafka"]}
    if data == STDIN:
        return inputs.StdinSettings, {}
    if data.is_dir():
        return inputs.FolderSettings, {"path": data}
    if data.suffix.lower() in inputs.NDJSON_SUFFIXES:
        return inputs.NdjsonSettings, {"path": data}
    return inputs.TableSettings, {"path": data}


def _query(text: str) -> str:
    """The query itself, or the content of the file that is named."""
    from selfheal_cli.errors import DataError

    if any(letter.isspace() for letter in text):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(
            f"--query {text}: neither a query nor a file that can be read ({type(exc).__name__})"
        ) from exc


def model_name(data: Path) -> str:
    """A registered model's name for what rows come from."""
    data = Path("stream") if data == STDIN else data.absolute()
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in data.stem)


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was given."""
    return {name: value for name, value in values.items() if value is not None}
