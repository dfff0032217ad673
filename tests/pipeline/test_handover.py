"""Labelled rows of a served model, handed over to whoever retrains it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from selfheal_cli.errors import DataError
from selfheal_cli.pipeline.offline.handover import hand_over
from selfheal_cli.records import digest
from selfheal_cli.spool.entries import Feedback
from selfheal_cli.spool.tellers import Tellers
from tests.pipeline.test_served import WORKSPACE, Server

AT = datetime(2026, 1, 31, 14, 5, tzinfo=UTC)


def test_labelled_rows_go_with_their_schema_the_reason_and_the_versions(server: Server) -> None:
    server.answer(3)
    with pytest.raises(DataError, match="none of the latest 100,000 answered rows has a label"):
        hand_over(server.registry, server.spool, "fraud", "gone", AT)
    assert not list(Path("mlruns/selfheal/handover/fraud").iterdir())
    labelled = ["r1", "r7"]
    server.label(labelled)
    done = hand_over(server.registry, server.spool, "fraud", "gone", AT)
    table = pq.read_table(done.folder / "rows.parquet")
    about = json.loads((done.folder / "handover.json").read_text())
    words = about["classes"]
    truth = [words[y] for request in labelled for y in server.truth[request]]
    assert (done.rows, table["label"].to_pylist()) == (50, truth)
    assert set(table["selfheal_request"].to_pylist()) == set(labelled)
    assert about["sha256"] == digest((done.folder / "rows.parquet").read_bytes())
    assert about["versions"]["champion"] == server.champion().version
    assert (about["reason"], about["rows"], about["target"]) == ("gone", 50, "label")
    assert [one["name"] for one in about["schema"]] == table.column_names
    assert (done.folder / "rows.parquet").stat().st_mode & 0o077 == 0
    latest = hand_over(
        server.registry, server.spool, "fraud", "gone", AT.replace(hour=15), rows=125
    )
    assert latest.rows == 25  # r7 is among the latest five requests, r1 is not


def test_labels_that_were_revoked_are_none_and_a_row_without_complaint_is_a_negative(
    server: Server,
) -> None:
    server.time = AT.timestamp() - 100.0
    server.answer(2)
    server.spool.label([Feedback(1, "r0", place) for place in (3, 4, 5)], "bad", 1.0)
    server.spool.label([Feedback(1, "r1", 7)], "ann", 1.0)
    Tellers(WORKSPACE / "serving" / "fraud" / "spool.db").revoke("bad", 0.0)
    done = hand_over(server.registry, server.spool, "fraud", "gone", AT.replace(minute=4))
    assert pq.read_table(done.folder / "rows.parquet")["label"].to_pylist() == ["fraud"]

    server.serve(server.open(labels={"negative_after": 60.0, "only_when": "V14 > 0"}))
    server.time = AT.timestamp() - 10.0
    server.answer(1)  # nobody had the time to complain
    late = hand_over(server.registry, server.spool, "fraud", "gone", AT.replace(hour=15))
    done = hand_over(server.registry, server.spool, "fraud", "gone", AT)
    rows = pq.read_table(done.folder / "rows.parquet").to_pylist()
    assert {one["selfheal_request"] for one in rows} <= {f"r{at}" for at in range(8)}
    assert [one["label"] for one in rows].count("fraud") == 1
    known = server.spool.rows_after(0, 8)
    passed = sum(int((one.columns["V14"] > 0).sum()) for one in known)
    assert len(rows) == passed + int(known[1].columns["V14"][7] <= 0) < late.rows
