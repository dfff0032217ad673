"""Whatever decides something of a version is held against what its run wrote down."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from selfheal_cli.events.log import last_digest
from tests.audit.test_audit import client, the_log, the_whole_log_replaced_by_a_valid_one
from tests.conftest import Invoke

Change = Callable[[], None]
BEST = 5


def model_id(version: int = BEST) -> str:
    return str(client().get_model_version("fraud", str(version)).source).removeprefix("models:/")


def file_of(name: str, version: int = BEST) -> Path:
    return next(Path("mlruns").rglob(f"{model_id(version)}/artifacts")) / name


def run_id() -> str:
    return the_log().parent.name


def by_sql(statement: str, *values: object) -> None:
    with sqlite3.connect("mlflow.db") as database:
        assert database.execute(statement, values).rowcount > 0
    database.close()


def edited(name: str, version: int, **values: object) -> None:
    path = file_of(name, version)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def the_threshold_of_a_file(version: int = BEST) -> None:
    edited("selfheal.json", version, threshold=0.01)


def the_base_of_a_file(version: int = BEST) -> None:
    edited("selfheal.json", version, base="m-00000000000000000000000000000000")


def the_loader_that_mlflow_runs(version: int = BEST) -> None:
    path = file_of("MLmodel", version)
    path.write_text(re.sub("loader_module: .*", "loader_module: of_somebody", path.read_text()))


def a_loader_behind_the_id(version: int = BEST) -> None:
    path = file_of("MLmodel", version)
    path.write_text(path.read_text().replace("model_id: m", "model_id: 'm'\rflavors: {}\rx: m"))


def a_file_beside_the_others(version: int = BEST) -> None:
    file_of("code.py", version).write_text("print('loaded')")


def the_manifest_gone(version: int = BEST) -> None:
    file_of("manifest.json", version).unlink()


def a_manifest_made_to_fit(version: int = BEST) -> None:
    the_threshold_of_a_file(version)
    from selfheal_cli.registry.manifest import file_hash

    manifest = json.loads(file_of("manifest.json", version).read_text())
    data = file_of("selfheal.json", version).read_bytes()
    edited(
        "manifest.json", version, files=manifest["files"] | {"selfheal.json": file_hash("", data)}
    )


def a_phase_by_which_versions_are_searched(version: int = BEST) -> None:
    client().set_logged_model_tags(model_id(version), {"selfheal.phase": "pre-heal"})


def a_model_by_which_versions_are_searched(version: int = BEST) -> None:
    client().set_logged_model_tags(model_id(version), {"selfheal.model": "another"})


def a_recipe(version: int = BEST) -> None:
    client().set_model_version_tag("fraud", str(version), "selfheal.recipe", "anchored")


def a_regime(version: int = BEST) -> None:
    client().set_model_version_tag("fraud", str(version), "selfheal.regime", "calm")


def a_tag_of_selfheals_that_was_not_there(version: int = BEST) -> None:
    client().set_model_version_tag("fraud", str(version), "selfheal.rejected", "it is bad")


def an_f1_behind_a_mark_of_doubles(version: int = BEST) -> None:
    client().set_model_version_tag("fraud", str(version), "selfheal.double_of", "4")
    an_f1_raised_by_the_client(version)


def an_f1_raised_by_the_client(version: int = BEST) -> None:
    client().log_metric(run_id(), "f1", 0.999, step=2, model_id=model_id(version))


def an_f1_raised_by_an_editor(version: int = BEST) -> None:
    by_sql(
        "UPDATE logged_model_metrics SET metric_value = 0.999 WHERE metric_name = 'f1' "
        "AND model_id = ?",
        model_id(version),
    )


def counts_that_make_it_sure(version: int = BEST) -> None:
    client().set_model_version_tag("fraud", str(version), "selfheal.counts", "9000,9000,1,1")


def a_figure_of_the_run() -> None:
    client().log_metric(run_id(), "live_f1", 0.999, step=3)


def a_figure_of_the_run_by_an_editor() -> None:
    by_sql("UPDATE metrics SET value = 0.999 WHERE key = 'shadow_accuracy' AND step = 2")


def a_parameter_of_the_run() -> None:
    by_sql("UPDATE params SET value = '1' WHERE key = 'seed' AND run_uuid = ?", run_id())


def the_run_deleted() -> None:
    client().delete_run(run_id())


def the_run_deleted_with_all_that_it_made() -> None:
    client().delete_run(run_id())
    for version in client().search_model_versions("name = 'fraud'"):
        client().delete_model_version("fraud", version.version)
    shutil.rmtree(Path("mlruns", "1"))
    shutil.rmtree(the_log().parent)


def a_version_in_the_clothes_of_the_best() -> None:
    best = client().get_model_version("fraud", str(BEST))
    client().create_model_version("fraud", str(best.source), best.run_id, tags=dict(best.tags))


def a_version_of_plain_mlflow() -> None:
    best = client().get_model_version("fraud", str(BEST))
    client().create_model_version("fraud", str(best.source))


def a_log_made_anew_with_the_end_that_the_run_keeps() -> None:
    the_whole_log_replaced_by_a_valid_one()
    client().set_tag(run_id(), "selfheal.log_head", last_digest(the_log()))


OF_A_VERSION: dict[Callable[[int], None], str] = {
    the_threshold_of_a_file: "file selfheal.json: the file was changed",
    the_base_of_a_file: "file selfheal.json: the file was changed",
    the_loader_that_mlflow_runs: "file MLmodel: the file was changed",
    a_loader_behind_the_id: "file MLmodel: the file was changed",
    a_file_beside_the_others: "file code.py was put in later",
    the_manifest_gone: "manifest.json is gone",
    a_manifest_made_to_fit: "manifest.json was changed",
    a_phase_by_which_versions_are_searched: "tag selfheal.phase of the logged model is 'pre-heal'",
    a_model_by_which_versions_are_searched: "tag selfheal.model of the logged model is 'another'",
    a_recipe: "tag selfheal.recipe is 'anchored'",
    a_regime: "tag selfheal.regime is 'calm'",
    a_tag_of_selfheals_that_was_not_there: "tag selfheal.rejected is 'it is bad'",
    an_f1_raised_by_the_client: "metric f1 is 0.999",
    an_f1_behind_a_mark_of_doubles: "metric f1 is 0.999",
    an_f1_raised_by_an_editor: "metric f1 is 0.999",
    counts_that_make_it_sure: "tag selfheal.counts is '9000,9000,1,1'",
}
OF_A_RUN: dict[Change, str] = {
    a_figure_of_the_run: "and 0.999 at batch 3",
    a_figure_of_the_run_by_an_editor: "metric shadow_accuracy is 0.999 at batch 2",
    a_parameter_of_the_run: "parameter seed is '1'",
    a_version_in_the_clothes_of_the_best: "its run registered snapshot",
    a_version_of_plain_mlflow: "no run of selfheal wrote it down",
    a_log_made_anew_with_the_end_that_the_run_keeps: "of the journal, and holds no such event",
    the_run_deleted: "was deleted in the registry",
}


def problems(invoke: Invoke) -> dict[str, str]:
    """What the audit finds, by where."""
    by_place: dict[str, str] = {}
    for one in json.loads(invoke("audit", "--json", expect=4).stdout)["findings"]:
        by_place[one["where"]] = f"{by_place.get(one['where'], '')}\n{one['problem']}"
    return by_place


@pytest.mark.parametrize("half", [0, 1])
def test_what_decides_of_a_version_and_was_changed_is_named_at_it_and_nowhere_else(
    short_copy: Path, invoke: Invoke, half: int
) -> None:
    changed = dict(enumerate([*OF_A_VERSION][half::2], start=2))
    for number, change in changed.items():
        change(number)
    reported = problems(invoke)
    for number, change in changed.items():
        assert OF_A_VERSION[change] in reported.pop(f"fraud v{number}"), change.__name__
    assert reported == {}


def test_what_decides_of_a_run_and_was_changed_is_named(short_copy: Path, invoke: Invoke) -> None:
    for change in OF_A_RUN:
        change()
    reported = "\n".join(problems(invoke).values())
    for change, problem in OF_A_RUN.items():
        assert problem in reported, change.__name__


def test_a_run_deleted_with_all_that_it_made_is_missed_by_the_journal(
    short_copy: Path, invoke: Invoke
) -> None:
    the_run_deleted_with_all_that_it_made()
    assert "was made champion by entry" in problems(invoke)["fraud v5"]


def test_a_held_file_does_not_make_a_cut_log_a_live_one(short_copy: Path, invoke: Invoke) -> None:
    lines = the_log().read_text().splitlines(keepends=True)
    the_log().write_text("".join(lines[:-5]))
    with FileLock(the_log().with_name("alive.lock")):
        report = json.loads(invoke("audit", "--json", expect=4).stdout)
    assert any("ends without its last event" in one["problem"] for one in report["findings"])


def test_what_others_did_is_named_and_accuses_nobody(short_copy: Path, invoke: Invoke) -> None:
    client().set_registered_model_alias("fraud", "production", "3")
    client().set_model_version_tag("fraud", "3", "reviewed", "yes")
    client().log_metric(run_id(), "business_value", 12.0)
    said = invoke("audit").stdout
    assert "Seen: fraud@production is v3: another tool's alias." in said
    assert "Everything holds. It is not signed" in said


def test_an_audit_that_checked_nothing_says_so(short_copy: Path, invoke: Invoke) -> None:
    client().create_registered_model("empty")
    report = invoke("audit", "--model-name", "empty", expect=4)
    assert "Checked of 'empty': nothing." in report.stdout
    assert "Everything holds" not in report.stdout


def test_a_log_of_a_run_that_is_not_over_is_elsewhere_and_not_gone(
    short_copy: Path, invoke: Invoke
) -> None:
    client().set_terminated(run_id(), "RUNNING")
    by_sql("UPDATE runs SET end_time = NULL, status = 'RUNNING' WHERE run_uuid = ?", run_id())
    next(Path("mlruns", "1").rglob("events.jsonl")).unlink()
    shutil.rmtree(the_log().parent)
    report = json.loads(invoke("audit", "--json").stdout)
    assert "its log is not here" in report["notes"][0]["problem"]
    assert report["holds"] is True


def test_what_an_interrupted_prune_left_is_told_as_that(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise MlflowException("the store is away", error_code=INTERNAL_ERROR)

    Path("few.yaml").write_text("retention: {keep_best: 1, keep_last: 1, keep_days: 0}\n")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_model_version", away)
        invoke("prune", "--apply", "--policy", "few.yaml", expect=4)
    report = json.loads(invoke("audit", "--json").stdout)
    assert "is left of a prune that was interrupted" in report["notes"][0]["problem"]


def test_what_a_lost_answer_made_twice_is_told_as_that(short_copy: Path, invoke: Invoke) -> None:
    a_version_in_the_clothes_of_the_best()
    client().set_model_version_tag("fraud", "10", "selfheal.double_of", str(BEST))
    report = json.loads(invoke("audit", "--json").stdout)
    assert "was made twice, beside v5" in report["notes"][0]["problem"]
