"""The same row is the same row by every way it can come: the same inputs, byte for byte."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import date, datetime
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.pyfunc import PyFuncModel

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import FolderSettings, NdjsonSettings, SqlSettings, TableSettings
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.registry.mlflow.format import describe
from selfheal_cli.registry.scoring import ScoringContract
from selfheal_cli.serve.http import tables
from selfheal_cli.serve.http import v2 as inference
from selfheal_cli.sources.encoding import Encoding, QuickEncoding
from selfheal_cli.sources.ndjson import NdjsonTable
from tests.sources.kinds import stream

NAMES = ("amount", "count", "country", "flag", "day", "at", "merchant")
TEXTS = ("merchant",)
ID = 12345678901234567
DAY, AT = date(2026, 1, 31), datetime(2026, 1, 31, 8, 30)
STRANGE: list[tuple[Any, ...]] = [
    (1.5, 1, "AT", True, DAY, AT, ID),
    (None, 2, "NA", False, None, None, ID + 1),
    (-0.0, None, "", None, DAY, AT, None),
    (1.25e-7, 3, None, True, None, AT, ID + 2),
    (0.1 + 0.2, 2**40, " DE ", False, date(2026, 2, 1), datetime(2026, 1, 1), ID),
    (1e300, None, "true", True, DAY, AT, ID + 3),
    (12345678.9012345, 0, "FALSE", None, DAY, AT, 7),
]
TRAINING = [
    (float(n) / 3 - 5, n, ("AT", "DE", "NA", "True")[n % 4], n % 3 == 0, DAY, AT, ID + n % 3)
    for n in range(30)
]


def as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def objects(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Rows as JSON has them, with a target."""
    return [
        dict(zip(NAMES, map(as_json, row), strict=True)) | {"y": n % 2}
        for n, row in enumerate(rows)
    ]


def arrow(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    types = (pa.float64(), pa.int64(), pa.string(), pa.bool_(), pa.date32(), pa.timestamp("us"),
             pa.int64())  # fmt: skip
    held = {n: pa.array(c, t) for n, c, t in zip(NAMES, columns, types, strict=True)}
    return pa.table(held | {"y": pa.array([n % 2 for n in range(len(rows))])})


def as_csv(rows: list[tuple[Any, ...]], *, target: bool = True) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    names = [*NAMES, *(["y"] if target else [])]
    writer.writerow(names)
    for row in objects(rows):
        held = [row[name] for name in names]
        writer.writerow(["" if value is None else value for value in held])
    return text.getvalue()


# --- rows that a run reads: the first of them train, the others stream


def from_file(settings: Any) -> bytes:
    source = open_source(RunConfig(source=settings, batch_size=len(STRANGE)))
    (batch,) = source.batches()
    return bytes(batch.rows.x.tobytes())


def settled(kind: Any, **values: Any) -> Any:
    share = (len(TRAINING) + 0.5) / (len(TRAINING) + len(STRANGE))
    return kind(target="y", categorical=TEXTS, train_fraction=share, **values)


def by_csv(folder: Path) -> bytes:
    (folder / "t.csv").write_text(as_csv(TRAINING + STRANGE))
    return from_file(settled(TableSettings, path=folder / "t.csv"))


def by_parquet(folder: Path) -> bytes:
    pq.write_table(arrow(TRAINING + STRANGE), folder / "t.parquet")
    return from_file(settled(TableSettings, path=folder / "t.parquet"))


def by_folder(folder: Path) -> bytes:
    parts = folder / "parts"
    parts.mkdir()
    pq.write_table(arrow(TRAINING + STRANGE[:3]), parts / "a.parquet")
    pq.write_table(arrow(STRANGE[3:]), parts / "b.parquet")
    return from_file(settled(FolderSettings, path=parts))


def by_ndjson(folder: Path) -> bytes:
    lines = [json.dumps(one) + "\n" for one in objects(TRAINING + STRANGE)]
    (folder / "t.ndjson").write_text("".join(lines))
    return from_file(settled(NdjsonSettings, path=folder / "t.ndjson"))


def by_sql(folder: Path) -> bytes:
    import sqlite3

    with sqlite3.connect(folder / "t.db") as database:
        database.execute(f"CREATE TABLE t ({', '.join([*NAMES, 'y'])})")
        rows = [
            # SQLite has no truth values and no times: they go in as it writes them itself
            [str(v) if isinstance(v, bool) else v for v in one.values()]
            for one in objects(TRAINING + STRANGE)
        ]
        marks = ", ".join("?" * (len(NAMES) + 1))
        database.executemany(f"INSERT INTO t VALUES ({marks})", rows)  # noqa: S608
    database.close()
    url = f"sqlite:///{folder}/t.db"
    return from_file(settled(SqlSettings, url=url, query="SELECT * FROM t ORDER BY rowid"))


def by_lines(folder: Path) -> bytes:
    """What comes on standard input, and Kafka's payload."""
    lines = [json.dumps(one) for one in objects(TRAINING + STRANGE)]
    source = stream(
        [lines[: len(TRAINING)], lines[len(TRAINING) :]], categorical=TEXTS, batch_size=7
    )
    (batch,) = source.batches()
    return bytes(batch.rows.x.tobytes())


# --- rows that a version is asked about


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Encoding:
    path = tmp_path_factory.mktemp("trained") / "t.csv"
    path.write_text(as_csv(TRAINING + STRANGE))
    source = open_source(RunConfig(source=settled(TableSettings, path=path), batch_size=7))
    return source.encoding


def document(encoding: Encoding) -> dict[str, Any]:
    described = encoding.model_dump(mode="json")
    return {"encoding": described, "labels": ["0", "1"], "network": {}}


def scored(encoding: Encoding, body: bytes, content_type: str) -> bytes:
    """What MLflow's way hands to a version."""
    handed: list[bytes] = []

    def score(frame: pd.DataFrame, given: Any) -> Any:
        x = encoding.encode(encoding.raw(frame))
        handed.append(x.tobytes())
        return np.zeros(len(x), dtype=np.float32), ("0", "1"), 0.5

    ScoringContract(document(encoding)).answer(body, content_type, score)
    return handed[0]


def asked(encoding: Encoding, frame: Any) -> bytes:
    """What `mlflow.pyfunc` hands to a version."""
    handed: list[bytes] = []

    class Model:
        def predict(self, model_input: pd.DataFrame, params: Any = None) -> Any:
            x = encoding.encode(encoding.raw(model_input))
            handed.append(x.tobytes())
            return np.zeros(len(x))

    PyFuncModel(describe(document(encoding)), Model()).predict(frame)
    return handed[0]


def quick(encoding: Encoding, table: tables.Table | None) -> bytes:
    assert table is not None, "left to MLflow"
    return bytes(QuickEncoding(encoding).encode(table.columns, table.matrix).tobytes())


def bare(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [{name: one[name] for name in NAMES} for one in objects(rows)]


def by_records(encoding: Encoding) -> bytes:
    body = json.dumps({"dataframe_records": bare(STRANGE)}).encode()
    return quick(encoding, tables.read(body, encoding, None))


def by_split(encoding: Encoding) -> bytes:
    names = list(reversed(NAMES))
    data = [[one[name] for name in names] for one in bare(STRANGE)]
    body = json.dumps({"dataframe_split": {"columns": names, "data": data}}).encode()
    return quick(encoding, tables.read(body, encoding, None))


def by_csv_body(encoding: Encoding) -> bytes:
    return scored(encoding, as_csv(STRANGE, target=False).encode(), "text/csv")


def by_parquet_body(encoding: Encoding) -> bytes:
    body = io.BytesIO()
    pq.write_table(arrow(STRANGE).drop_columns(["y"]), body)
    return scored(encoding, body.getvalue(), "application/vnd.apache.parquet")


def by_tensors(encoding: Encoding) -> bytes:
    types = {"amount": "FP64", "count": "INT64", "flag": "BOOL", "merchant": "INT64"}
    inputs = [
        inference.Tensor(name=name, shape=[len(STRANGE)], datatype=types.get(name, "BYTES"),
                         data=[one[name] for one in bare(STRANGE)])  # type: ignore[arg-type]
        for name in NAMES
    ]  # fmt: skip
    served: Any = SimpleNamespace(quick=QuickEncoding(encoding))
    columns, _ = inference._columns(served, inputs, b"", None, 100)
    return bytes(QuickEncoding(encoding).encode(columns, None).tobytes())


def by_numpy(encoding: Encoding) -> bytes:
    """Plain dtypes: floats, objects; whole numbers beside missing ones as Python's own."""
    columns = zip(NAMES, zip(*STRANGE, strict=True), strict=True)
    frame = pd.DataFrame({name: pd.Series(list(held), dtype="object") for name, held in columns})
    frame["amount"] = frame["amount"].astype("float64")
    frame["count"] = frame["count"].astype("float64")
    frame["at"] = frame["at"].astype("datetime64[us]")
    frame["merchant"] = frame["merchant"].astype("Int64").astype("string").astype("object")
    return asked(encoding, frame)


def by_nullable(encoding: Encoding) -> bytes:
    kinds = {"count": "Int64", "flag": "boolean", "country": "string", "merchant": "Int64",
             "amount": "Float64"}  # fmt: skip
    columns = zip(NAMES, zip(*STRANGE, strict=True), strict=True)
    held = {name: pd.Series(list(values), dtype=kinds.get(name)) for name, values in columns}
    return asked(encoding, pd.DataFrame(held))


def by_arrow(encoding: Encoding) -> bytes:
    return asked(encoding, arrow(STRANGE).drop_columns(["y"]).to_pandas(types_mapper=pd.ArrowDtype))


READ: list[Callable[[Path], bytes]] = [by_csv, by_parquet, by_folder, by_ndjson, by_sql, by_lines]
ASKED: list[Callable[[Encoding], bytes]] = [
    by_records, by_split, by_csv_body, by_parquet_body, by_tensors, by_numpy, by_nullable, by_arrow
]  # fmt: skip


@pytest.fixture(scope="module")
def inputs(trained: Encoding, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the network gets, by way; None where the way failed."""
    by_way: dict[str, Any] = {}
    for read in READ:
        by_way[read.__name__] = read(tmp_path_factory.mktemp(read.__name__))
    for ask in ASKED:
        by_way[ask.__name__] = ask(trained)
    return {
        name: np.frombuffer(data, dtype=np.float32).reshape(len(STRANGE), -1)
        for name, data in by_way.items()
    }


@pytest.mark.parametrize(
    ("one", "other"), [*combinations([way.__name__ for way in (*READ, *ASKED)], 2)]
)
def test_a_row_is_the_same_row_by_both_ways(one: str, other: str, inputs: dict[str, Any]) -> None:
    differing = [
        (row, STRANGE[row])
        for row in range(len(STRANGE))
        if inputs[one][row].tobytes() != inputs[other][row].tobytes()
    ]
    assert not differing


def test_each_value_means_what_the_table_in_the_docs_says(
    trained: Encoding, inputs: dict[str, Any]
) -> None:
    """By hand: the one input that is 1 among those of each text, and 0 for a missing number."""
    x, places, start = inputs["by_csv"], {}, 0
    for column in trained.columns:
        places[column.name] = slice(start, start + column.width)
        start += column.width

    def text(row: int, name: str) -> str | None:
        (column,) = [one for one in trained.columns if one.name == name]
        assert column.kind == "categorical"
        held = x[row, places[name]]
        if not held.any():
            return "unseen"
        at = int(held.argmax())
        return column.categories[at] if at < len(column.categories) else None

    assert [text(row, "country") for row in range(7)] == [
        "AT", "NA", None, None, "DE", "True", "unseen"
    ]  # fmt: skip
    assert [text(row, "merchant") for row in range(4)] == [str(ID), str(ID + 1), None, str(ID + 2)]
    assert [text(row, "flag") for row in range(3)] == ["True", "False", None]
    assert text(0, "day") == "2026-01-31"
    assert text(0, "at") == "2026-01-31T08:30:00"
    amount = x[:, places["amount"]][:, 0]
    assert amount[1] == amount[5] == 0.0  # missing, and too large for any input
    assert not np.signbit(amount[1])


def test_a_base_of_the_first_contract_scores_as_it_was_registered() -> None:
    """What selfheal 0.1.0 wrote of an encoding: no contract, no fills."""
    columns = [
        {"kind": "numeric", "name": "a", "mean": 2.0, "sd": 2.0, "constant": False},
        {"kind": "categorical", "name": "c", "categories": ["", "1e3", "NA"]},
    ]
    old = Encoding.model_validate({"columns": columns})
    assert old.contract == 1
    assert old.model_dump(mode="json") == {"columns": columns}
    frame = pd.DataFrame({"a": [np.inf, 1e39, np.nan], "c": ["", "NA", None]})
    x = old.encode(old.raw(frame))
    assert x.tolist() == [[10.0, 1.0, 0.0, 0.0, 0.0], [10.0, 0.0, 0.0, 1.0, 0.0],
                          [0.0, 0.0, 0.0, 0.0, 1.0]]  # fmt: skip
    body = json.dumps({"dataframe_records": [{"a": 4, "c": ""}, {"a": None, "c": "NA"}]}).encode()
    table = tables.read(body, old, None)
    assert table is not None
    assert old.encode(table.columns).tolist() == [[1.0, 1.0, 0, 0, 0], [0.0, 0, 0, 1.0, 0]]
    text = json.dumps({"dataframe_records": [{"a": 4, "c": True}]}).encode()
    assert tables.read(text, old, None) is None  # MLflow refuses it, as it did


def test_a_table_of_the_first_contract_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "t.ndjson").write_text('{"a": "", "c": "NA"}\n')
    frame = next(NdjsonTable(tmp_path / "t.ndjson", contract=1).chunks(None))
    assert frame["a"].tolist() == [""]
