"""A rollback takes a version at its word only where that is what its run wrote down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.healer.commands import carry_out
from tests.audit import test_attacks as attacks
from tests.audit.test_attacks import BEST, by_sql, client, run_id
from tests.audit.test_audit import the_log
from tests.conftest import Invoke

Change = Callable[[int], None]
UNTRUE = (
    attacks.the_threshold_of_a_file,
    attacks.the_loader_that_mlflow_runs,
    attacks.the_manifest_gone,
    attacks.a_manifest_made_to_fit,
    attacks.a_recipe,
    attacks.an_f1_raised_by_the_client,
    attacks.counts_that_make_it_sure,
)


def plan(invoke: Invoke, *wanted: str) -> dict[str, Any]:
    return dict(json.loads(invoke("rollback", *wanted, "--dry-run", "--json").stdout))


def test_a_version_that_is_not_what_was_written_down_is_passed_over_and_refused(
    short_copy: Path, invoke: Invoke
) -> None:
    untrue = dict(enumerate(UNTRUE, start=2))
    for number, change in untrue.items():
        change(number)
    best = plan(invoke, "--to-best")
    assert best["target"]["version"] not in untrue
    assert any(f"v{BEST} was passed over" in note for note in best["notes"])
    for number, change in untrue.items():
        refused = invoke("rollback", "--to", str(number), "--yes", expect=4).stderr
        assert attacks.OF_A_VERSION[change] in refused
        assert "--unverified" in refused
    assert MlflowRegistry().alias("fraud", CHAMPION) not in untrue


def test_a_version_that_was_hidden_from_the_search_is_not_gone_to_by_its_name_either(
    short_copy: Path, invoke: Invoke
) -> None:
    attacks.a_phase_by_which_versions_are_searched()
    assert plan(invoke, "--to-best")["target"]["version"] != BEST
    assert "of the logged model" in invoke("rollback", "--to", "5", "--yes", expect=4).stderr


def test_a_version_in_the_clothes_of_the_best_is_not_taken_for_it(
    short_copy: Path, invoke: Invoke
) -> None:
    attacks.a_version_in_the_clothes_of_the_best()
    assert plan(invoke, "--to-best")["target"]["version"] == BEST
    refused = invoke("rollback", "--to", "10", "--yes", expect=4).stderr
    assert f"as v{BEST}" in refused
    assert "did not register" in _refused_plain(invoke)


def _refused_plain(invoke: Invoke) -> str:
    attacks.a_version_of_plain_mlflow()
    return invoke("rollback", "--to", "11", "--yes", expect=4).stderr


def test_what_nobody_counted_is_taken_only_when_that_is_said_and_is_sure_of_nothing(
    short_copy: Path, invoke: Invoke
) -> None:
    attacks.an_f1_raised_by_the_client()
    attacks.counts_that_make_it_sure()
    taken = plan(invoke, "--to-best", "--unverified")
    assert (taken["target"]["version"], taken["target"]["metrics"]["f1"]) == (BEST, 0.999)
    assert taken["target"]["f1_lower_bound"] is None
    assert "its record was not looked at" in " ".join(taken["notes"])
    moved = json.loads(
        invoke("rollback", "--to", str(BEST), "--unverified", "--yes", "--json").stdout
    )
    assert moved["move"]["target"] == BEST


def test_what_serves_shows_no_interval_where_its_figures_were_edited(
    short_copy: Path, invoke: Invoke
) -> None:
    assert plan(invoke, "--to-best")["serving"]["f1_lower_bound"] is not None
    client().set_model_version_tag("fraud", "9", "selfheal.counts", "9000,9000,1,1")
    assert plan(invoke, "--to-best")["serving"]["f1_lower_bound"] is None


def test_where_none_is_what_was_written_down_nothing_is_chosen(
    short_copy: Path, invoke: Invoke
) -> None:
    for number in range(1, 10):
        client().set_model_version_tag("fraud", str(number), "selfheal.schema", "2")
    refused = invoke("rollback", "--to-best", "--yes", expect=5).stderr
    assert "none is what its run wrote down" in refused


def test_a_server_plans_by_the_same_check(short_copy: Path) -> None:
    attacks.an_f1_raised_by_the_client()
    registry = MlflowRegistry()
    best = carry_out(registry, "fraud", "plan", {"to": "best"})["plan"]
    assert best["to"] != BEST
    named = carry_out(registry, "fraud", "plan", {"to": BEST})
    assert "metric f1 is 0.999" in named["error"]


def test_beside_a_run_elsewhere_a_version_is_held_against_its_own_manifest(
    short_copy: Path, invoke: Invoke
) -> None:
    by_sql("UPDATE runs SET end_time = NULL, status = 'RUNNING' WHERE run_uuid = ?", run_id())
    next(Path("mlruns", "1").rglob("events.jsonl")).unlink()
    run = run_id()
    shutil.rmtree(the_log().parent)
    best = plan(invoke, "--to-best")
    assert best["target"]["version"] == BEST
    assert "was held against its own manifest alone" in " ".join(best["notes"])
    assert best["target"]["f1_lower_bound"] is None
    client().set_terminated(run, "FINISHED")
    refused = invoke("rollback", "--to", str(BEST), "--yes", expect=4).stderr
    assert "is neither here nor in the registry" in refused


def test_versions_of_0_1_0_are_named_as_made_before_manifests_and_need_no_override(
    stored_by_0_1_0: Path, invoke: Invoke
) -> None:
    back = plan(invoke, "--to-previous", "--model-name", "fraud")
    assert "was made before manifests" in " ".join(back["notes"])
    assert back["target"]["f1_lower_bound"] is not None
    number = back["target"]["version"]
    client().set_model_version_tag("fraud", str(number), "selfheal.counts", "9000,9000,1,1")
    refused = invoke("rollback", "--to-previous", "--yes", "--model-name", "fraud", expect=4)
    assert "tag selfheal.counts is '9000,9000,1,1'" in refused.stderr


def test_tags_that_are_no_numbers_pass_a_version_over_and_are_no_fault_of_ours(
    short_copy: Path, invoke: Invoke
) -> None:
    odd = {2: ("phase", "none"), 3: ("batch", "x"), 5: ("eval_rows", "many"),
           6: ("counts", "1,2"), 7: ("threshold", "low")}  # fmt: skip
    for number, (name, value) in odd.items():
        client().set_model_version_tag("fraud", str(number), f"selfheal.{name}", value)
    assert plan(invoke, "--to-best")["target"]["version"] not in odd
    for number, (name, _) in odd.items():
        refused = invoke("rollback", "--to", str(number), "--yes", expect=4).stderr
        assert f"selfheal.{name}" in refused
