"""Tables as other programs write them: taken as they are, or refused in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import NdjsonSettings, TableSettings
from selfheal_cli.pipeline.prepare.rows import open_new, open_source
from tests.conftest import Invoke


def table(rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=rows).round(4),
            "amount": (rng.normal(size=rows) * 100 + 2500).round(2),
            "country": rng.choice(["AT", "DE", "US"], rows),
        }
    )
    return frame.assign(label=(frame["a"] + (frame["country"] == "AT") > 0.5).astype(int))


def below_a_blank_line(path: Path) -> None:
    path.write_text("\n" + table().to_csv(index=False))


def named_gz(path: Path) -> None:
    table().to_csv(path, index=False, compression=None)


def with_lists(path: Path) -> None:
    member = [True, False, None, True] * 20
    table().assign(tags=[["x", "y"]] * 80, member=member).to_parquet(path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (below_a_blank_line, "t.csv"),
        (named_gz, "t.csv.gz"),
        (with_lists, "t.parquet"),
    ],
)
def test_init_takes_a_table_as_others_write_it(
    empty_dir: Path, invoke: Invoke, write: Callable[[Path], None], name: str
) -> None:
    write(Path(name))
    invoke("init", name, "--target", "label")
    assert ("tags" in Path("selfheal.yaml").read_text()) == (write is with_lists)
    if write is with_lists:
        written = Path("selfheal.yaml").read_text()
        assert "tags: nested; dropped: neither numbers nor text: give what matters" in written
        assert "member: true or false, True 66.7 %, False 33.3 %, 25.0 % missing" in written


def test_init_says_that_numbers_have_decimal_commas(empty_dir: Path, invoke: Invoke) -> None:
    frame = table()
    for name in ("a", "amount"):
        frame[name] = frame[name].map(lambda value: str(value).replace(".", ","))
    frame.to_csv("t.csv", index=False, sep=";")
    told = invoke("init", "t.csv", "--target", "label").output
    assert re.search(r"numbers as people write them, '0,\d+' is 0\.\d+: a, amount", told)


def test_init_says_that_numbers_have_separators_of_thousands(
    empty_dir: Path, invoke: Invoke
) -> None:
    table().assign(amount=table()["amount"].map("{:,.2f}".format)).to_csv("t.csv", index=False)
    told = invoke("init", "t.csv", "--target", "label")
    assert re.search(r"as people write them, '\d,\d+\.\d+' is \d{4}\.\d+: amount", told.output)


@pytest.mark.parametrize("text", ['{"a": 1, "label": 0}\n', '[{"a": 1, "label": 0}]'])
def test_json_that_is_taken_for_csv_is_named_as_what_it_is(
    empty_dir: Path, invoke: Invoke, text: str
) -> None:
    Path("t.json").write_text(text)
    told = invoke("init", "t.json", "--target", "label", expect=3).stderr
    assert "this is JSON, not CSV" in told
    assert ".ndjson" in told


def test_init_and_rules_read_a_json_object_a_line_and_the_file_runs(
    workdir: Path, invoke: Invoke
) -> None:
    table(600).to_json("t.jsonl", orient="records", lines=True)
    invoke("init", "t.jsonl", "--target", "label")
    written = Path("selfheal.yaml").read_text()
    assert "kind: ndjson" in written
    assert "separator" not in written
    invoke("rules", "suggest", "t.jsonl", "--target", "label")
    assert "2 batches" in invoke("run", "--batches", "2", "--no-plots").output


def test_the_row_numbers_that_pandas_stores_are_no_feature(empty_dir: Path) -> None:
    frame = table()
    frame[frame["amount"] > 2400].to_parquet("t.parquet")
    settings = TableSettings(path=Path("t.parquet"), target="label")
    assert open_source(RunConfig(source=settings, batch_size=5)).encoding.names == [
        "a", "amount", "country"
    ]  # fmt: skip


def test_ndjson_may_begin_with_a_mark_and_leave_numbers_empty(empty_dir: Path) -> None:
    rows = table().to_dict("records")
    for place, row in enumerate(rows):
        row["amount"] = "" if place % 9 == 3 else row["amount"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("t.ndjson").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    settings = NdjsonSettings(path=Path("t.ndjson"), target="label")
    source = open_source(RunConfig(source=settings, batch_size=20))
    assert source.encoding.numeric == ["a", "amount"]
    assert sum(len(batch.rows) for batch in source.batches()) == 60
    assert source.notes()["missing values"] == sum(place % 9 == 3 for place in range(20, 80))


@pytest.mark.parametrize("rule", [["--rule", "country == 'AT' => 1"], []])
def test_a_table_of_texts_alone_can_be_run(workdir: Path, invoke: Invoke, rule: list[str]) -> None:
    table(200)[["country", "label"]].to_csv("t.csv", index=False)
    invoke("run", "t.csv", "--target", "label", "--batch-size", "40", "--batches", "1",
           "--no-plots", *rule)  # fmt: skip


def test_a_run_reads_numbers_as_people_write_them_where_they_can_be_nothing_else(
    empty_dir: Path,
) -> None:
    rows = table()
    amounts = np.linspace(10, 99_999, len(rows))
    path = empty_dir / "t.csv"

    def opened(texts: list[str], **told: object) -> tuple[TableSettings, str]:
        rows.assign(amount=texts).to_csv(path, index=False)
        settings = TableSettings(path=path, target="label", drop_identifiers=True, **told)
        config, source = open_new(RunConfig(source=settings, batch_size=10))
        assert isinstance(config.source, TableSettings)
        assert config.source == settings or "amount" in source.encoding.numeric
        return config.source, " ".join(source.remarks)

    money = [f"${one:,.2f}" for one in amounts]
    read, said = opened(money)
    assert (read.decimal, read.thousands) == (".", ",")
    assert "read as a number, as with --decimal '.' --thousands ','; --categorical amount" in said
    assert opened(money, categorical=("amount",))[0].decimal is None
    read, said = opened([f"{n + 1},{n:03d}" for n in range(len(rows))])  # thousands, or a comma
    assert read.decimal is None
    assert "read as a text" in said
