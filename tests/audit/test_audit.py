"""The audit finds what was changed behind selfheal's back, and nothing where nothing was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import AuditedRun, audit_log, audit_stored_run
from selfheal_cli.events.log import EventLog, last_digest
from selfheal_cli.events.types import BatchScored, SnapshotTaken, VersionRegistered
from selfheal_cli.records import StoredRun
from tests.conftest import Invoke
from tests.events.examples import example

Change = Callable[[], object]


def client() -> MlflowClient:
    # MLflow keeps one connection for each address: a relative one would be another test's folder
    return MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")


def the_log() -> Path:
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    return log


def lines() -> list[str]:
    return the_log().read_text().splitlines(keepends=True)


def an_edited_line() -> None:
    the_log().write_text("".join(lines()).replace('"conflicts":', '"conflicts": ', 1))


def a_removed_line() -> None:
    the_log().write_text("".join(line for place, line in enumerate(lines()) if place != 30))


def the_last_line_removed() -> None:
    the_log().write_text("".join(lines()[:-1]))


def swapped_lines() -> None:
    swapped = lines()
    swapped[20], swapped[21] = swapped[21], swapped[20]
    the_log().write_text("".join(swapped))


def a_line_appended_with_a_valid_chain() -> None:
    from datetime import UTC, datetime

    log = EventLog(the_log(), lambda: datetime.now(UTC))
    log.append(VersionRegistered(snapshot="none", version=99))
    log.close()


def the_whole_log_replaced_by_a_valid_one() -> None:
    """The same events with one figure changed, and every hash made anew."""
    from datetime import datetime

    from selfheal_cli.events.log import read

    path = the_log()
    events = list(read(path))
    path.unlink()
    times = iter([datetime.fromisoformat(event.at) for event in events])
    log = EventLog(path, lambda: next(times))
    for event in events:
        edited = isinstance(event, BatchScored) and event.batch == 3
        log.append(replace(event, conflicts=0) if edited else event)
    log.close()


def artifact(version: int = 5) -> Path:
    model_id = client().get_model_version("fraud", str(version)).source.removeprefix("models:/")
    return next(Path("mlruns").rglob(f"{model_id}/artifacts/adapter.safetensors"))


def a_changed_artifact() -> None:
    artifact().write_bytes(artifact().read_bytes()[:-1] + b"\x00")


def a_changed_tag() -> None:
    client().set_model_version_tag("fraud", "6", "selfheal.reason", "quite another")


def a_changed_hash_tag_and_file() -> None:
    """A version replaced by another one's bytes, with its recorded hash."""
    artifact(7).write_bytes(artifact(3).read_bytes())
    sha = client().get_model_version("fraud", "3").tags["selfheal.sha256"]
    client().set_model_version_tag("fraud", "7", "selfheal.sha256", sha)


def an_alias_moved_by_another_tool() -> None:
    client().set_registered_model_alias("fraud", "champion", "7")


def an_alias_deleted_by_another_tool() -> None:
    client().delete_registered_model_alias("fraud", "baseline")


def a_changed_journal() -> None:
    with sqlite3.connect("mlflow.db") as database:
        database.execute(
            "UPDATE params SET value = replace(value, 'trained on clean rows', 'nothing') "
            "WHERE key = '00000002'"
        )
    database.close()


def a_changed_base() -> None:
    path = next(Path("mlruns").rglob("base.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


OF_LOGS: dict[Change, str] = {
    an_edited_line: "its hash does not fit",
    a_removed_line: "does not follow event",
    the_last_line_removed: "ends without its last event",
    swapped_lines: "does not follow event",
    a_line_appended_with_a_valid_chain: "put in or taken away at the end",
    the_whole_log_replaced_by_a_valid_one: "the whole log was replaced",
}
OF_VERSIONS: dict[Change, tuple[str, str]] = {
    a_changed_artifact: ("fraud v5", "the file was changed"),
    lambda: artifact(2).unlink(): ("fraud v2", "is gone from the artifact store"),
    a_changed_tag: ("fraud v6", "tag selfheal.reason is 'quite another'"),
    a_changed_hash_tag_and_file: ("fraud v7", "tag selfheal.sha256"),
    lambda: client().delete_model_version("fraud", "8"): (
        "fraud v8", "is gone; no 'selfheal prune' removed it",
    ),
    an_alias_moved_by_another_tool: ("fraud@champion", "another tool moved it"),
    an_alias_deleted_by_another_tool: ("fraud@baseline", "is gone; the last move"),
}  # fmt: skip


def test_a_run_that_nobody_touched_holds(in_short_run: Path, invoke: Invoke) -> None:
    audit = json.loads(invoke("audit", "--json").stdout)
    assert audit["findings"] == []
    assert audit["holds"] is True
    assert audit["checked"]["versions"] == 9
    assert audit["checked"]["files"] > 6 * 9  # of each version, the code that it carries too
    assert audit["checked"]["event logs"] == 1


def findings(invoke: Invoke) -> list[tuple[str, str]]:
    audit = json.loads(invoke("audit", "--json", expect=4).stdout)
    return [(one["where"], one["problem"]) for one in audit["findings"]]


def test_every_change_of_versions_and_aliases_is_found(short_copy: Path, invoke: Invoke) -> None:
    for change in OF_VERSIONS:
        change()
    reported = findings(invoke)
    for place, problem in OF_VERSIONS.values():
        assert any(place == where and problem in said for where, said in reported), problem


def test_a_changed_journal_and_a_changed_base_are_found(short_copy: Path, invoke: Invoke) -> None:
    a_changed_journal()
    a_changed_base()
    reported = findings(invoke)
    assert any("does not follow entry" in said for _, said in reported)
    assert any("base" in said and "journal" not in where for where, said in reported)


@pytest.mark.parametrize("change", OF_LOGS, ids=lambda change: change.__name__)
def test_a_changed_log_is_found(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    logs = Path("mlruns/selfheal/runs")
    shutil.copytree(short_run / logs, tmp_path / logs)
    monkeypatch.chdir(tmp_path)
    stored = StoredRun({}, {"selfheal.log_head": last_digest(the_log())}, {}, "FINISHED")
    change()
    audit, record = Audit(), AuditedRun()
    audit_log(audit, record, the_log(), "r", alive=False)
    audit_stored_run(audit, record, stored, "r", arriving=False)
    assert any(OF_LOGS[change] in one.problem for one in audit.findings), audit.findings


def test_a_rollback_by_hand_leaves_everything_whole(short_copy: Path, invoke: Invoke) -> None:
    invoke("rollback", "--to-best", "--yes")
    invoke("rollback", "--to-previous", "--yes")
    assert "Everything holds" in invoke("audit").stdout


def test_readings_of_a_heal_hold_though_the_run_was_killed_before_its_batch_ended() -> None:
    record = AuditedRun()
    record.apply(example(BatchScored, batch=2))
    record.apply(example(SnapshotTaken, batch=3))

    def problems(*more: tuple[int, float]) -> list[str]:
        figures = {name: list(steps.items()) for name, steps in record.steps.items()}
        figures["drift_z"] += more
        audit = Audit()
        audit_stored_run(audit, record, StoredRun({}, {}, figures, "KILLED"), "r", arriving=False)
        return [one.problem for one in audit.findings]

    assert problems((3, 0.6)) == []
    assert problems((3, 0.6), (4, 0.6)) == ["metric drift_z is 0.6 at batch 4, the log has none"]


def test_an_unknown_model_is_exit_4(workdir: Path, invoke: Invoke) -> None:
    assert "no registered model" in invoke("audit", "--model-name", "nobody", expect=4).stderr


def test_logs_of_other_machines_are_of_the_same_history_and_one_that_is_gone_is_the_registrys(
    short_copy: Path, invoke: Invoke
) -> None:
    run = the_log().parent
    other = Path("machine-2") / run
    other.parent.mkdir(parents=True)
    run.rename(other)
    scored = ("--folder", "machine-3")  # there, and never healed
    Path("machine-3/mlruns/selfheal").mkdir(parents=True)
    assert "Everything holds" in invoke("audit", "--folder", "machine-2", *scored).stdout
    log = other / "events.jsonl"
    log.write_text(log.read_text().replace('"conflicts":', '"conflicts": ', 1))
    assert run.name in invoke("audit", "--folder", "machine-2", expect=4).stdout
    assert "Everything holds" in invoke("audit").stdout  # by the registry's copy
    said = invoke("audit", "--folder", "machine-2/mlruns", expect=2).stderr
    assert "name a folder in which selfheal worked" in " ".join(said.split())
