"""A person's rows in what runs kept: the values go, and every other row stays as it was."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from selfheal_cli.errors import DataError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import RunStarted
from selfheal_cli.pipeline.offline.erasing import erase_kept
from selfheal_cli.registry.memory import MemoryRegistry
from tests.events.examples import example
from tests.pipeline.test_served import clock

LINES = {"partition": "p", "offset": 3, "text": '{"who": 4711, "amount": 2.5}'}


@pytest.fixture
def folder(empty_dir: Path) -> Path:
    """A run's, with its log."""
    made = run_folder("r1")
    made.mkdir(parents=True)
    with closing(EventLog(made / LOG_NAME, clock)) as log:
        log.append(
            example(RunStarted, run_id="r1", model="fraud", config={"source": {"skip_lines": 1}})
        )
    return made


def test_of_a_csv_file_every_other_line_keeps_its_bytes(folder: Path) -> None:
    text = '# March\r\n"who";amount;note\r\n4711;2.5;"two\r\nlines"\r\n17; 3.0 ;x\r\n4711;1;y\r\n'
    path = folder / "rows.csv"
    path.write_bytes(text.encode())
    registry = MemoryRegistry()
    asked = (registry, "fraud", "who", "4711")
    assert erase_kept(*asked, dry_run=True) == {"r1/rows.csv": 2}
    assert path.read_bytes() == text.encode()
    assert erase_kept(*asked) == {"r1/rows.csv": 2}
    assert path.read_bytes() == b'# March\r\n"who";amount;note\r\n;;\n17; 3.0 ;x\r\n;;\n'
    assert path.stat().st_mode & 0o777 == 0o600
    assert erase_kept(*asked) == {}


def test_of_parquet_json_lines_and_rejects_too(folder: Path) -> None:
    table = pd.DataFrame({"who": [17, 4711, 18], "amount": [1.0, 2.0, 3.0]})
    table.to_parquet(folder / "rows.parquet")
    rows = [{"who": "4711", "amount": 1}, {"who": "17", "amount": 4711}]
    (folder / "rows.ndjson").write_text("".join(json.dumps(one) + "\n" for one in rows))
    other = {**LINES, "text": "no json"}
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (LINES, other)))
    rejected = [{"place": "a", "line": "4711;x"}, {"place": "b", "line": "17;x"}]
    (folder / "rejects.ndjson").write_text("".join(json.dumps(one) + "\n" for one in rejected))
    done = erase_kept(MemoryRegistry(), "fraud", "who", "4711")
    assert done == dict.fromkeys(
        ("r1/rows.parquet", "r1/rows.ndjson", "r1/rows.jsonl", "r1/rejects.ndjson"), 1
    )
    left = pd.read_parquet(folder / "rows.parquet")
    assert left["amount"].isna().tolist() == [False, True, False]
    assert left["who"].isna().tolist() == [False, True, False]
    kept = [json.loads(one) for one in (folder / "rows.ndjson").read_text().splitlines()]
    assert kept == [{"who": None, "amount": None}, rows[1]]
    lines = [json.loads(one) for one in (folder / "rows.jsonl").read_text().splitlines()]
    assert lines == [{**LINES, "text": '{"who": null, "amount": null}'}, other]
    told = [json.loads(one) for one in (folder / "rejects.ndjson").read_text().splitlines()]
    assert [one["line"] for one in told] == ["", "17;x"]


def test_the_registrys_copy_loses_the_row_as_well_and_other_models_keep_theirs(
    folder: Path,
) -> None:
    path = folder / "rows.csv"
    path.write_text("title\nwho,amount\n4711,1\n17,2\n")
    registry = MemoryRegistry()
    registry.log_files("r1", [path])
    assert erase_kept(registry, "other", "who", "4711") == {}
    path.unlink()  # only the registry has it by now
    assert erase_kept(registry, "fraud", "who", "4711") == {"r1/rows.csv": 1}
    assert registry.files["r1", "rows.csv"] == b"title\nwho,amount\n,\n17,2\n"


def test_a_packed_file_is_named_and_left_to_a_person(folder: Path) -> None:
    pd.DataFrame({"who": [4711], "amount": [1]}).to_csv(folder / "rows.gz", index=False)
    with pytest.raises(DataError, match=r"rows\.gz: rows cannot be erased from a packed file"):
        erase_kept(MemoryRegistry(), "fraud", "who", "4711")
