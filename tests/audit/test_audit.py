"""The audit finds what was changed behind selfheal's back, and nothing where nothing was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import AuditedRun, audit_stored_run
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import BatchScored, SnapshotTaken, VersionRegistered
from selfheal_cli.records import StoredRun
from tests.conftest import Invoke
from tests.events.examples import example

Change = Callable[[], None]


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


def artifact(version: int) -> Path:
    model_id = client().get_model_version("fraud", str(version)).source.removeprefix("models:/")
    return next(Path("mlruns").rglob(f"{model_id}/artifacts/adapter.safetensors"))


def a_changed_artifact() -> None:
    path = artifact(5)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def a_removed_artifact() -> None:
    artifact(5).unlink()


def a_changed_tag() -> None:
    client().set_model_version_tag("fraud", "5", "selfheal.reason", "quite another")


def a_changed_hash_tag_and_file() -> None:
    """A version replaced by another one's bytes, with its recorded hash."""
    artifact(5).write_bytes(artifact(3).read_bytes())
    sha = client().get_model_version("fraud", "3").tags["selfheal.sha256"]
    client().set_model_version_tag("fraud", "5", "selfheal.sha256", sha)


def a_changed_metric() -> None:
    with sqlite3.connect("mlflow.db") as database:
        database.execute(
            "UPDATE logged_model_metrics SET metric_value = 0.99 WHERE metric_name = 'f1' AND "
            "model_id = ?",
            (client().get_model_version("fraud", "5").source.removeprefix("models:/"),),
        )
    database.close()


def a_deleted_version() -> None:
    client().delete_model_version("fraud", "5")


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


FOUND = {
    an_edited_line: "its hash does not fit",
    a_removed_line: "does not follow event",
    the_last_line_removed: "ends without its last event",
    swapped_lines: "does not follow event",
    a_line_appended_with_a_valid_chain: "put in or taken away at the end",
    the_whole_log_replaced_by_a_valid_one: "the whole log was replaced",
    a_changed_artifact: "the file was changed",
    a_removed_artifact: "is gone from the artifact store",
    a_changed_tag: "tag selfheal.reason is 'quite another'",
    a_changed_hash_tag_and_file: "tag selfheal.sha256",
    a_changed_metric: "metric f1 is 0.99",
    a_deleted_version: "is gone; no 'selfheal prune' removed it",
    an_alias_moved_by_another_tool: "another tool moved it",
    an_alias_deleted_by_another_tool: "is gone; the last move",
    a_changed_journal: "does not follow entry",
    a_changed_base: "base",
}


def test_a_run_that_nobody_touched_holds(in_article_run: Path, invoke: Invoke) -> None:
    audit = json.loads(invoke("audit", "--json").stdout)
    assert audit["findings"] == []
    assert audit["holds"] is True
    assert audit["checked"]["versions"] == 51
    assert audit["checked"]["files"] > 6 * 51  # of each version, the code that it carries too
    assert audit["checked"]["event logs"] == 1
    assert "Everything holds" in invoke("audit").stdout


@pytest.mark.parametrize("change", FOUND, ids=lambda change: change.__name__)
def test_what_was_changed_is_found(short_copy: Path, invoke: Invoke, change: Change) -> None:
    change()
    audit = json.loads(invoke("audit", "--json", expect=4).stdout)
    assert any(FOUND[change] in one["problem"] for one in audit["findings"]), audit["findings"]


def test_a_rollback_by_hand_leaves_everything_whole(short_copy: Path, invoke: Invoke) -> None:
    invoke("rollback", "--to-best", "--yes")
    invoke("rollback", "--to-previous", "--yes")
    assert "Everything holds" in invoke("audit").stdout


def test_a_log_that_is_not_here_is_read_from_the_registry(short_copy: Path, invoke: Invoke) -> None:
    the_log().unlink()
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


def test_logs_of_other_machines_are_of_the_same_history(short_copy: Path, invoke: Invoke) -> None:
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
    invoke("audit")  # the registry's copy is whole
    said = invoke("audit", "--folder", "machine-2/mlruns", expect=2).stderr
    assert "name a folder in which selfheal worked" in " ".join(said.split())
