"""The commands that look back and move back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from selfheal_cli.cli.main import COMMANDS, main
from selfheal_cli.events.log import read
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke, enter
from tests.registry.test_mlflow_registry import artifact


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_has_help(name: str) -> None:
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help


def test_best_is_restored_and_then_what_served_before(short_copy: Path, invoke: Invoke) -> None:
    result = invoke("rollback", "--yes", "--to-best", "--reason", "the last ones are worse")
    assert "champion of 'fraud' moved from v9 to v5: the last ones are worse" in result.stdout
    registry = MlflowRegistry()
    assert registry.alias("fraud", "champion") == 5
    assert registry.alias("fraud", "baseline") == 1
    invoke("rollback", "--yes", "--to-previous")
    assert registry.alias("fraud", "champion") == 9
    invoke("rollback", "--yes", "--to", "7")
    invoke("rollback", "--yes", "--to-previous")
    assert registry.alias("fraud", "champion") == 9


def test_a_dry_run_shows_the_target_and_moves_nothing(in_article_run: Path, invoke: Invoke) -> None:
    result = invoke("rollback", "--to-best", "--dry-run")
    assert re.search(r"serves now\s.*v51.*0\.242", result.stdout)
    assert re.search(r"target\s.*v21.*0\.408.*100", result.stdout)
    assert MlflowRegistry().alias("fraud", "champion") == 51
    assert not Path("mlruns/selfheal/models").exists()


def test_a_version_that_does_not_hold_is_not_made_champion(
    short_copy: Path, invoke: Invoke
) -> None:
    artifact(5, "adapter.safetensors").unlink()
    assert "v5" in invoke("rollback", "--yes", "--to", "5", expect=4).stderr
    assert MlflowRegistry().alias("fraud", "champion") == 9
    assert "gone" in invoke("show", "5", expect=4).stderr
    moved = invoke("rollback", "--yes", "--to-best")
    assert "v5" in moved.stdout
    assert MlflowRegistry().alias("fraud", "champion") == 3  # the best one that holds


def test_a_move_by_hand_is_in_the_history_with_who_and_why(
    short_copy: Path, invoke: Invoke
) -> None:
    invoke("rollback", "--yes", "--to-best", "--reason", "audit me")
    entries = json.loads(invoke("history", "--json").stdout)
    last = entries[-1]
    assert (last["kind"], last["source"], last["target"]) == ("alias-moved", 9, 5)
    assert last["reason"] == "audit me"
    assert "@" in last["actor"]
    kinds = [entry["kind"] for entry in entries]
    assert kinds.count("heal") == 4
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)


def test_history_shows_heals_with_f1_before_and_after(in_article_run: Path, invoke: Invoke) -> None:
    output = invoke("history", "--run", "latest", "--wide").stdout
    assert "0.228 to 0.226" in output
    assert "5 conflicts >= 5" in output
    assert "2 of 57 entries" in invoke("history", "--limit", "2").stdout


def test_an_edited_log_is_not_told_as_history(short_copy: Path, invoke: Invoke) -> None:
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    log.write_text(log.read_text().replace('"recall"', '"rekall"', 1))
    assert "its hash does not fit" in invoke("history", expect=4).stderr


def test_snapshots_sort_and_filter(in_article_run: Path, invoke: Invoke) -> None:
    versions = json.loads(
        invoke("snapshots", "--sort", "f1", "--phase", "post-heal", "--limit", "3", "--json").stdout
    )
    assert [version["version"] for version in versions] == [21, 27, 49]
    assert "3 of 51 versions, newest" in invoke("snapshots", "--limit", "3").stdout
    table = invoke("snapshots", "--phase", "baseline", "--wide").stdout
    assert re.search(r"v1 .*baseline.*0\.754.*0\.929.*1,000.*held-out.*baseline", table)


def test_show_tells_tags_figures_and_that_the_file_holds(
    in_article_run: Path, invoke: Invoke
) -> None:
    shown = json.loads(invoke("show", "21", "--json").stdout)
    assert shown["verified"] is True
    assert shown["tags"]["selfheal.evaluation"] == "in-sample"
    assert shown["tags"]["selfheal.parent"] == "20"
    assert "its sha256 holds" in invoke("show", "21").stdout


def test_export_makes_the_same_files_again_from_the_log_alone(
    article_copy: Path, invoke: Invoke
) -> None:
    before = {path.name: path.read_bytes() for path in Path("monitoring_export").rglob("*.*")}
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    invoke("export", run.name[:6], "--export-dir", "again")
    after = {path.name: path.read_bytes() for path in Path("again").rglob("*.*")}
    assert len(after) == 14
    assert after == before


def test_export_fetches_a_log_that_is_elsewhere(short_copy: Path, invoke: Invoke) -> None:
    import shutil

    (run,) = Path("mlruns/selfheal/runs").iterdir()
    shutil.rmtree("mlruns/selfheal")
    before = Path("monitoring_export/metrics.csv").read_bytes()
    invoke("export", run.name, "--export-dir", "again", "--no-plots")
    assert Path("again/metrics.csv").read_bytes() == before


def test_the_drill_proves_the_net_and_leaves_no_model(workdir: Path, invoke: Invoke) -> None:
    proof = json.loads(invoke("drill", "--json").stdout)
    assert (proof["passed"], proof["batch"], proof["restored_version"]) == (True, 22, 21)
    assert MlflowRegistry().models() == []
    assert not Path("monitoring_export").exists()


def test_a_drill_without_a_rollback_fails_with_exit_6(workdir: Path, invoke: Invoke) -> None:
    result = invoke("drill", "--policy", "default", "--batches", "2", expect=6)
    assert "no rollback fired in 2 batches" in result.stderr


def test_the_doctor_is_content_with_a_whole_run(short_copy: Path, invoke: Invoke) -> None:
    report = json.loads(invoke("doctor", "--json").stdout)
    assert report["well"] is True
    checks = {finding["check"] for finding in report["findings"]}
    assert {"mlflow", "store", "store writable", "fraud@champion", "fraud@baseline"} <= checks


def test_the_doctor_names_an_alias_whose_threshold_was_edited_or_whose_file_is_gone(
    short_copy: Path, invoke: Invoke
) -> None:
    def told() -> str:
        report = json.loads(invoke("doctor", "--json", expect=4).stdout)
        (bad,) = (finding for finding in report["findings"] if not finding["well"])
        assert bad["check"] == "fraud@champion"
        return str(bad["detail"])

    MlflowClient().set_model_version_tag("fraud", "9", "selfheal.threshold", "0.9")
    assert "threshold" in told()
    artifact(9, "adapter.safetensors").unlink()
    assert "v9" in told()


def test_policies_are_listed_shown_and_validated(workdir: Path, invoke: Invoke) -> None:
    listed = json.loads(invoke("policy", "list", "--json").stdout)
    assert set(listed) == {"default", "strict", "lenient", "drill"}
    assert (
        json.loads(invoke("policy", "show", "drill", "--json").stdout)["rollback_f1_drop"] == 0.03
    )
    Path("registry_policies").mkdir()
    Path("registry_policies/ours.yaml").write_text("rollback_f1_drop: 0.2\n")
    assert "ours" in invoke("policy", "list").stdout
    assert "a valid policy" in invoke("policy", "validate", "registry_policies/ours.yaml").stdout
    assert "0.2" in invoke("policy", "show", "ours").stdout


def test_the_interface_is_not_started_on_a_store_out_of_reach(workdir: Path) -> None:
    result = CliRunner().invoke(main, ["ui", "--tracking-uri", "http://127.0.0.1:9"])
    assert result.exit_code == 4


def test_rollbacks_of_a_run_are_events_with_reason_from_and_to(
    workdir: Path, invoke: Invoke
) -> None:
    invoke("run", "--drift-strength", "3.5", "--rollback-f1-drop", "0.03", "--batches", "6",
           "--no-plots")  # fmt: skip
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    rollbacks = [event.as_dict() for event in read(log) if event.kind == "rollback"]
    assert [(event["batch"], event["version"]) for event in rollbacks] == [(5, 3), (6, 3)]
    assert "below the first heal's" in rollbacks[0]["reason"]
    assert MlflowRegistry().alias("fraud", "champion") == 3
    assert re.search(r"rollback .* to v3 ", invoke("history").stdout)


def test_the_interface_is_told_by_the_page_of_the_models(
    short_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.execv", lambda program, arguments: None)
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    said = CliRunner().invoke(main, ["ui"]).stdout
    (run,) = MlflowClient().search_runs(["1"])
    assert "http://127.0.0.1:5000/#/experiments/1/models?workflowType=machine_learning" in said
    assert re.fullmatch(r"synthetic, \d{4}-\d\d-\d\d \d\d:\d\d", run.data.tags["mlflow.runName"])


def test_a_runs_description_holds_verdict_table_and_where_the_report_is(
    article_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(article_run, monkeypatch)
    (run,) = MlflowClient().search_runs(["1"])
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("**Healing helped accuracy")
    assert "| Under drift, self-healed | 1,000 | 0.724 |" in note
    assert f"run_uuid={run.info.run_id}" in note
