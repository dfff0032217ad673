"""A champion that another tool registered: named, rolled back from, and put back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests

from selfheal_cli.errors import ConflictError, NoCandidateError
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.plan import By, execute, plan_best, plan_version
from selfheal_cli.rollback.trust import Unverified
from selfheal_cli.serve.healer.commands import carry_out
from selfheal_cli.serve.healer.status import registry_facts
from selfheal_cli.serve.operator.status import ModelStatus, StatusSnapshot
from selfheal_cli.serve.operator.verdict import warnings
from tests.conftest import PATIENCE, Invoke
from tests.rollback.test_prune import AT, filled
from tests.serve.operating import FACTS, channel_with, operator_app, serving


class Doubled(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined,misc]
    """Anybody's model."""

    def predict(self, context: Any, model_input: list[float], params: Any = None) -> list[float]:
        return [2 * value for value in model_input]


@pytest.fixture
def foreign(article_copy: Path) -> int:
    """A version made with MLflow alone, which is the champion; v51 served before."""
    with mlflow.start_run():
        made = mlflow.pyfunc.log_model(
            name="m", python_model=Doubled(), registered_model_name="fraud", pip_requirements=[]
        )
    number = int(made.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias("fraud", CHAMPION, str(number))
    return number


pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_is_named_as_what_it_is(foreign: int, invoke: Invoke) -> None:
    told = json.loads(invoke("champion", "--json").stdout)
    assert told["version"] == foreign == 52
    assert told["registered"].startswith("by another tool, from models:/")
    assert told["moved"].startswith("by another tool")
    said = invoke("status", "--model-name", "fraud").stdout
    assert "Champion: v52, which selfheal did not register" in said
    checks = json.loads(invoke("doctor", "--json").stdout)["findings"]
    check = next(one for one in checks if one["check"] == "fraud@champion")
    assert check["detail"] == "v52, which selfheal did not register: not looked at"


def test_every_way_back_from_it_works_and_the_alias_can_be_put_back(
    foreign: int, invoke: Invoke
) -> None:
    def back(*wanted: str) -> dict[str, Any]:
        told = json.loads(invoke("rollback", *wanted, "--reason", "odd", "--json").stdout)
        return dict(told)

    registry = MlflowRegistry()
    shown = back("--to", "7", "--dry-run")
    assert f"the champion is v{foreign}, which selfheal did not register" in shown["notes"][1]
    moved = back("--to-best", "--yes")["move"]
    assert (moved["source"], moved["target"]) == (foreign, 21)
    assert moved["reason"] == f"odd (in place of v{foreign}, which selfheal did not register)"
    assert "--unverified" in invoke("rollback", "--to-previous", "--yes", expect=4).stderr
    shown = back("--to-previous", "--yes", "--unverified")
    assert (shown["move"]["target"], shown["verified"]) == (foreign, False)
    assert "its record was not looked at" in " ".join(shown["notes"])
    assert registry.alias("fraud", CHAMPION) == foreign
    assert back("--to", str(foreign), "--yes")["move"] is None
    assert back("--to", "7", "--yes")["move"]["target"] == 7


def test_the_status_of_a_server_says_that_it_does_not_serve(foreign: int, tmp_path: Path) -> None:
    known = registry_facts(MlflowRegistry(), "fraud")
    standing = ModelStatus(**known)
    assert standing.champion is not None
    assert (standing.champion.version, standing.champion.foreign) == (foreign, True)
    assert {one.version for one in standing.candidates} >= {21}
    seen = StatusSnapshot(server=FACTS, standing=standing, age=1.0, at=0.0)
    assert (
        f"The alias champion points to v{foreign}, which selfheal did not register and does not "
        "serve: v12 answers; a rollback puts the alias right."
    ) in warnings(seen)
    channel = channel_with(tmp_path, standing)
    with serving(operator_app(channel)) as url:
        page = requests.get(url, timeout=PATIENCE).text
        figures = requests.get(f"{url}/metrics", timeout=PATIENCE).text
    assert "The alias points to v52, which selfheal did not register" in page
    assert "selfheal_champion_foreign 1.0" in figures


def test_an_operator_behind_the_server_gets_back_from_it(foreign: int) -> None:
    registry = MlflowRegistry()
    plan = carry_out(registry, "fraud", "plan", {"to": "previous"})["plan"]
    assert plan["to"] == 51
    plan = carry_out(registry, "fraud", "plan", {"to": "best"})["plan"]
    assert plan["lines"][0] == f"serves now: v{foreign}, which selfheal did not register"
    order = {"to": "best", "digest": plan["digest"], "actor": "ann"}
    assert carry_out(registry, "fraud", "rollback", order)["move"]["source"] == foreign
    again = carry_out(registry, "fraud", "plan", {"to": "best"})["plan"]["digest"]
    assert carry_out(registry, "fraud", "rollback", order | {"digest": again})["move"] is None


def test_a_model_that_only_another_tool_filled_has_nothing_to_restore() -> None:
    registry = MemoryRegistry()
    number = registry.add_foreign("m")
    registry.set_alias("m", CHAMPION, number)
    with pytest.raises(NoCandidateError):
        plan_best(registry, "m")


def test_a_run_takes_the_champion_from_no_other_tool_and_a_person_may() -> None:
    registry = filled(MemoryRegistry())
    registry.set_alias("m", CHAMPION, registry.add_foreign("m"))
    of_run = Move("m", CHAMPION, 8, "ann", AT, "heal", run="r", key="r:1", after=2)
    with pytest.raises(ConflictError, match="a run takes nothing from another tool"):
        move_alias(registry, of_run)
    move = execute(registry, plan_best(registry, "m", trust=Unverified()), By("ann", AT, "back"))
    assert move is not None
    assert (move.source, move.target) == (9, 8)
    assert move_alias(registry, replace(of_run, target=7, after=move.sequence)).target == 7
    assert (
        execute(registry, plan_version(registry, "m", 9, Unverified()), By("ann", AT, "theirs"))
        is not None
    )
    with pytest.raises(ConflictError, match="selfheal rollback --to 8"):
        move_alias(registry, replace(of_run, after=99))  # put back by hand: theirs all the same
