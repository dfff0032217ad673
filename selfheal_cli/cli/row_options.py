"""Options that say where a run's rows come from, and which of them go together."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from selfheal_cli.cli import options

FILE = click.Path(path_type=Path, dir_okay=False)
STDIN = Path("-")
WHERE = {"data": "DATA", "sql": "--sql", "kafka": "--kafka"}  # of which one says where rows are

# Rows from elsewhere than a file.
elsewhere = options.group(
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
        "--reject-misfits/--no-reject-misfits", default=None,
        help="Of a stream: put rows aside that are not as in training, or stop at the first. "
        "[default: put aside]",
    ),
)  # fmt: skip


def as_keys(name: str, value: Any) -> dict[str, Any]:
    """What an option that says where rows come from means for the source, by key."""
    if name == "sql":
        return {"kind": "sql", "url": value}
    if name == "kafka":
        return {"kind": "kafka", "bootstrap": value}
    if name == "query":
        return {"query": _query(value)}
    return _of_data(value)


def refuse_two(given: Collection[str]) -> None:
    """Raise click's usage error where more than one option says where rows come from."""
    named = [shown for name, shown in WHERE.items() if name in given]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")


def _of_data(data: Path) -> dict[str, Any]:
    from selfheal_cli.inputs import NDJSON_SUFFIXES

    if data == STDIN:
        return {"kind": "stdin"}
    if data.is_dir():
        return {"kind": "folder", "path": data}
    kind = "ndjson" if data.suffix.lower() in NDJSON_SUFFIXES else "table"
    return {"kind": kind, "path": data}


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
