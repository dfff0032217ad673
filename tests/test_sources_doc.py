"""The commands of docs/sources.md, run as they are written."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from tests.cli.test_run import make_table
from tests.conftest import PATIENCE
from tests.sources.kinds import records

TEXT = (Path(__file__).parents[1] / "docs/sources.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)\n```", TEXT, re.DOTALL)
SHORT = ("--batches", "2", "--no-plots", "--batch-size", "50")


@pytest.fixture(scope="module")
def broker() -> Iterator[Any]:
    from confluent_kafka import Producer

    yield Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})


@pytest.fixture
def rows(workdir: Path) -> list[dict[str, Any]]:
    """Every file that the page names."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    frame = make_table(Path("labelled.csv"), 600)
    Path("parts").mkdir()
    frame[:300].to_parquet("parts/1.parquet")
    frame[300:].to_parquet("parts/2.parquet")
    objects = records(frame)
    Path("rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in objects))
    engine = create_engine("sqlite:///shop.db", poolclass=NullPool)
    frame.assign(id=frame.index).to_sql("payments", engine, index=False)
    return objects


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: text[:50])
def test_a_command_of_the_page_runs(command: str, rows: list[dict[str, Any]], broker: Any) -> None:
    before, _, after = command.rpartition("| ")
    stdin = Path(before.split()[1]).read_text() if before else None
    if "--kafka" in after:
        (node,) = broker.list_topics(timeout=PATIENCE).brokers.values()
        after = after.replace("localhost:9092", f"{node.host}:{node.port}")
        for number, row in enumerate(rows):
            broker.produce("payments", json.dumps(row | {"id": number}), partition=0)
        broker.produce("chargebacks", json.dumps({"id": 1, "label": "yes"}), partition=0)
        assert broker.flush(PATIENCE) == 0
    program, *arguments = shlex.split(after)
    assert program == "selfheal"
    done = CliRunner().invoke(main, [*arguments, *SHORT], input=stdin)
    assert done.exit_code == 0, f"{done.output}\n{done.stderr}"
    assert "Live (healing)" in done.output
