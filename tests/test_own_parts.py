"""Parts of other packages and of programs: found, checked, used, told of where they fail."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import selfheal_cli
from selfheal_cli import SelfHealing, installed, testing
from selfheal_cli.config import HealSettings, recorded
from selfheal_cli.errors import ConfigurationError, HealError, PartError
from selfheal_cli.heal.recipe import KINDS, check_recipe
from selfheal_cli.heal.recipe import kind_of as recipe_kind
from selfheal_cli.kinds import ADAPTERS, BUILT_IN, MONITORS, RECIPES
from selfheal_cli.parts import FeatureReading, Lesson, NewWeights, Room
from tests.conftest import Invoke
from tests.test_api import module, rows_of

__all__ = ["module"]
ROOT = Path(__file__).parents[1]
RUN = ("run", "--source", "tickets:rows=700", "--target", "urgent", "--batches", "3",
       "--no-plots", "--quiet")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site-packages with the example package, as pip installs it."""
    folder = tmp_path_factory.mktemp("own-parts")
    shutil.copytree(ROOT / "examples/own-parts", folder / "source")
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
           "--no-build-isolation", "--target")  # fmt: skip
    subprocess.run([sys.executable, *pip, str(folder / "site"), str(folder / "source")], check=True)
    return folder / "site"


@pytest.fixture
def brought(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example package is installed."""
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("own_parts", None)


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, **points: str) -> None:
    """Install a package with this code; entry points by ``recipe_steep='steep'``."""
    info = folder / "shop_parts-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-parts\nVersion: 2.0\n")
    lines = []
    for key, target in points.items():
        kind, _, name = key.partition("_")
        lines.append(f"[selfheal.{kind}s]\n{name.replace('_', '-')} = shop_parts:{target}")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "shop_parts.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shop_parts", raising=False)


def test_the_names_of_built_in_parts_are_those_of_their_kinds() -> None:
    from selfheal_cli.drift.kinds import KINDS as OF_MONITORS
    from selfheal_cli.model.adapters import KINDS as OF_ADAPTERS
    from selfheal_cli.settings.schema import KINDS as OF_SOURCES

    assert set(BUILT_IN["recipe"]) == set(KINDS)
    assert set(MONITORS) == set(OF_MONITORS)
    assert set(BUILT_IN["adapter"]) == set(OF_ADAPTERS)
    assert set(OF_SOURCES) <= set(BUILT_IN["source"])


@pytest.mark.parametrize("name", RECIPES)
def test_built_in_recipes_pass_the_check_of_others(name: str) -> None:
    testing.check_recipe(name)


@pytest.mark.parametrize("name", MONITORS)
def test_built_in_monitors_pass_the_check_of_others(name: str) -> None:
    testing.check_monitor(name)


@pytest.mark.parametrize("name", ADAPTERS)
def test_built_in_adapters_pass_the_check_of_others(name: str) -> None:
    testing.check_adapter(name)


def test_a_built_in_rule_passes_the_check_of_others() -> None:
    columns = {"a": np.array([1.0, np.nan, 3.0]), "kind": np.array(["x", None, "y"], dtype=object)}
    testing.check_rule("a > 2 or kind is missing => 1", columns)


@pytest.mark.usefixtures("brought")
def test_the_example_package_passes_every_check() -> None:
    testing.check_recipe("steepest")
    testing.check_recipe("shifted")
    testing.check_monitor("tails")
    testing.check_adapter("shift")
    testing.check_source("tickets", rows="50")
    testing.check_rule("by-night", {"hour": np.arange(24.0)})


@pytest.mark.slow
@pytest.mark.usefixtures("brought", "workdir")
def test_a_run_with_parts_of_a_package_is_replayed_rolled_back_and_needs_the_package(
    invoke: Invoke, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ("--recipe", "shifted", "--monitor", "tails", "--rule", "by-night() => 1")
    invoke(*RUN, *named)
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    parts = json.loads(log.read_text().splitlines()[0])["data"]["parts"]
    assert [(one["kind"], one["name"]) for one in parts] == [
        ("source", "tickets"), ("recipe", "shifted"), ("monitor", "tails"), ("rule", "by-night"),
        ("adapter", "shift"),
    ]  # fmt: skip
    assert {(one["distribution"], one["version"]) for one in parts} == {
        ("selfheal-own-parts", "1.0")
    }
    needed = [path.read_text() for path in Path().rglob("requirements.txt")]
    assert needed
    assert {"selfheal-own-parts==1.0" in text.splitlines() for text in needed} == {True}, needed
    assert "comes out the same" in invoke("audit", "--model", "tickets", "--replay", "2").stdout
    invoke("rollback", "--model", "tickets", "--to", "1", "--yes")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(site)])
    gone = invoke("audit", "--model", "tickets", "--replay", "2", expect=3)
    assert "of selfheal-own-parts 1.0 is needed and not installed here" in gone.stderr
    back = invoke("rollback", "--model", "tickets", "--to", "2", "--yes", expect=3)
    assert "adapter 'shift' of selfheal-own-parts 1.0 is needed" in back.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("brought", "workdir")
def test_a_heal_worker_loads_the_recipe_of_a_package(invoke: Invoke) -> None:
    assert "heals" in invoke(*RUN, "--recipe", "steepest", "--set", "heal.mode=async").stdout


@pytest.mark.usefixtures("brought", "workdir")
def test_what_is_installed_stands_in_help_and_in_errors(invoke: Invoke) -> None:
    told = " ".join(invoke("run", "--help").stdout.split())
    for text in ("ensemble|shifted|steepest]", "Installed: tails.", "Installed: tickets."):
        assert text in told
    wrong = invoke("run", "--recipe", "steepst", expect=2)
    assert "unknown recipe 'steepst'; did you mean 'steepest'?" in wrong.stderr
    assert "installed: shifted, steepest" in wrong.stderr
    shown = invoke("config", "show", "--recipe", "steepest", "--json").stdout
    assert json.loads(shown)["values"]["heal.recipe"]["value"] == "steepest"


def test_a_name_that_a_built_in_part_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, monkeypatch, "def heal(lesson): return {}", recipe_anchored="heal")
    assert installed.names("recipe") == ()
    assert list(installed.refused("recipe")) == [
        "recipe 'anchored' of shop-parts 2.0 is refused: a built-in one has that name"
    ]
    assert recipe_kind("anchored") is KINDS["anchored"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("other = 1", "AttributeError: module 'shop_parts' has no attribute 'heal'"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    offer(tmp_path, monkeypatch, code, recipe_broken="heal")
    HealSettings(recipe="broken")  # its name is known; nothing of it was imported
    with pytest.raises(ConfigurationError) as caught:
        installed.load("recipe", "broken")
    assert str(caught.value) == f"recipe 'broken' of shop-parts 2.0 cannot be loaded: {said}"


def test_a_record_names_the_package_that_is_not_here() -> None:
    part = {"kind": "monitor", "name": "tail", "distribution": "shop-parts", "version": "2.0"}
    with pytest.raises(ConfigurationError, match=r"pip install shop-parts==2\.0"):
        recorded({}, where="log", parts=[part])


class Broken:
    """Heals as it is told to."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def heal(self, lesson: Lesson) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given(lesson)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (KeyError("a"), "raised KeyError: 'a'; the old weights stay"),
        (lambda lesson: None, "gave NoneType, and tensors by name are needed"),
        (lambda lesson: {"scale": 1.0}, "weight 'scale' is float, and a tensor is needed"),
        (lambda lesson: {"other": torch.ones(1)}, "unexpected weight 'other'"),
        (lambda lesson: {"scale": torch.ones(3)}, "size mismatch: 'scale'"),
        (lambda lesson: {"scale": torch.tensor(torch.nan)}, "scale is not finite"),
        (lambda lesson: NewWeights({}, figures={"gain": float("nan")}), "figure 'gain' is nan"),
    ],
)
def test_what_a_recipe_may_not_give_refuses_the_heal(given: Any, said: str) -> None:
    name = installed.hand_over("recipe", Broken(given))
    with pytest.raises(HealError) as caught:
        testing._heals(name, testing._network("reflexive", 2), 2)
    assert said in str(caught.value)
    assert "Broken" in str(caught.value)


def test_a_recipe_that_learns_from_held_out_rows_or_by_chance_fails_the_check() -> None:
    def chance(lesson: Lesson) -> Mapping[str, torch.Tensor]:
        return {"scale": torch.tensor(float(np.random.default_rng().normal()))}

    with pytest.raises(AssertionError, match="heals the same rows to other weights"):
        testing.check_recipe(chance)


def test_an_object_that_a_worker_cannot_import_heals_in_place_only() -> None:
    from selfheal_cli.config import LabelSettings

    name = installed.hand_over("recipe", Broken(lambda lesson: {}))
    check_recipe(HealSettings(recipe=name, mode="sync"), LabelSettings(), 2)
    with pytest.raises(ConfigurationError, match="cannot be imported by the process that heals"):
        check_recipe(HealSettings(recipe=name, mode="async"), LabelSettings(), 2)
    assert installed.importable("recipe", installed.hand_over("recipe", Broken))


class Mute:
    """A monitor that says what it is told to."""

    said: Any = ()

    def fit(self, reference: Any, features: Any) -> None:
        pass

    def update(self, view: Any) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ValueError("no"), "raised ValueError: no"),
        ([1.0], "gave float, and FeatureReading is needed"),
        ([FeatureReading("elsewhere", 0.1, 0.5)], "speaks of 'elsewhere'"),
        ([FeatureReading("a", float("nan"), 0.5)], "says effect nan"),
    ],
)
def test_what_a_monitor_may_not_say_is_told_with_its_name(said: Any, told: str) -> None:
    monitor = Mute()
    monitor.said = said
    with pytest.raises(AssertionError, match=f"Mute.*{told}"):
        testing.check_monitor(monitor)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (lambda room: nn.Linear(room.width, room.width), "does not start as identity"),
        (lambda room: nn.BatchNorm1d(room.width), "float32 parameters alone are stored"),
        (lambda room: None, "is NoneType, not a torch module"),
        (lambda room: nn.Identity(), "no parameter that a gradient moves"),
    ],
)
def test_what_is_no_adapter_fails_the_check(part: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        testing.check_adapter(part)


def unsteady(path: str = "") -> Iterator[dict[str, float]]:
    yield {"a": float(np.random.default_rng().normal())}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (unsteady, "gives other rows when it is asked again"),
        (lambda: iter([{"a": 1}, {"b": 1}]), "row 2 has other columns than the first one: a"),
        (lambda: iter(()), "gives no rows"),
        (lambda: [1], "gave int, and no mapping or DataFrame"),
        (lambda: [{"a": b"x"}], "it holds bytes"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_what_is_no_source_fails_the_check(part: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        testing.check_source(part)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (lambda columns: columns["a"], "gave float64 of shape"),
        (lambda columns: columns["nowhere"] > 1, "raised KeyError"),
        (lambda columns: columns["a"] > columns["a"].mean(), "when other rows stand beside it"),
        (lambda columns: columns["a"].__setitem__(0, 1.0), "read-only"),
    ],
)
def test_what_is_no_rule_fails_the_check(part: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        testing.check_rule(part, {"a": np.arange(5.0)})


def test_a_class_that_wants_arguments_is_no_part() -> None:
    with pytest.raises(PartError, match="raised TypeError"):
        installed.made("recipe", installed.hand_over("recipe", Room))


FAILING = """
class Tail:
    def fit(self, reference, features):
        self.batches = 0
    def update(self, view):
        self.batches += 1
        if self.batches == 2:
            raise OSError("the disk is gone")
        return []

def heal(lesson):
    raise ZeroDivisionError("no rows of class 1")

def late(columns):
    if len(columns["hour"]) == 100:
        raise LookupError("calendar")
    return columns["hour"] > 20
"""


@pytest.mark.slow
@pytest.mark.usefixtures("brought", "workdir")
def test_parts_that_fail_are_told_of_once_and_scoring_goes_on(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    offer(folder, monkeypatch, FAILING, monitor_tail="Tail", recipe_none="heal", rule_late="late")
    said = invoke(
        *RUN[:-1], "--recipe", "none", "--monitor", "tail", "--rule", "late() => 1", "--batches",
        "4", "--set", "source.train_fraction=0.3", "--wide",
    )  # fmt: skip
    assert "monitor 'tail' of shop-parts 2.0 raised OSError: the disk is gone" in said.output
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    reasons = {
        kind: [one["data"]["reason"] for one in events if one["kind"] == kind]
        for kind in ("part-failed", "heal-failed", "batch")
    }
    assert reasons["part-failed"] == [
        "rule 'late' of shop-parts 2.0 raised LookupError: calendar",
        "monitor 'tail' of shop-parts 2.0 raised OSError: the disk is gone",
    ]
    assert len(reasons["batch"]) == 4
    assert set(reasons["heal-failed"]) == {
        "recipe 'none' of shop-parts 2.0 raised ZeroDivisionError: no rows of class 1; the old "
        "weights stay"
    }


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's own code as a module; its checks have passed."""
    text = (ROOT / "docs/own-parts.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (tmp_path / "parts_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parts_of_the_page", raising=False)
    return importlib.import_module("parts_of_the_page")


@pytest.mark.slow
def test_the_pages_parts_pass_their_checks_and_heal_in_a_program(
    page: Any, workdir: Path, module: nn.Module
) -> None:
    page.just_before_noon.label = 0
    x, y = rows_of(400, 1)
    names = ["hour", "b", "c", "d"]
    with SelfHealing(
        module, x, y, name="own", columns=names, recipe=page.one_step, adapter=page.Gain,
        monitors=[page.Shapes(), "psi"], rules=[page.just_before_noon], mode="sync",
    ) as healing:  # fmt: skip
        for seed in (2, 3):
            rows, labels = rows_of(100, seed)
            healing.predict(rows)
            healing.observe(rows, labels)
    logs = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    firsts = [json.loads(log.read_text().splitlines()[0])["data"] for log in logs]
    (started,) = (one for one in firsts if len(one["parts"]) > 1)  # the other wrapped the module
    assert started["config"]["heal"]["recipe"] == "parts_of_the_page.one_step"
    assert started["config"]["rules"] == ["parts_of_the_page.just_before_noon() => 0"]
    assert {one["kind"] for one in started["parts"]} == {"recipe", "monitor", "adapter", "rule"}


@pytest.mark.slow
def test_an_adapter_that_nobody_could_load_is_refused(workdir: Path, module: nn.Module) -> None:
    class Here(nn.Identity):
        pass

    x, y = rows_of(100, 1)
    with pytest.raises(ConfigurationError, match="nobody could load its versions"):
        SelfHealing(module, x, y, name="own", adapter=Here)


@pytest.mark.slow
@pytest.mark.usefixtures("brought", "workdir")
def test_a_run_from_a_program_takes_objects_as_they_are() -> None:
    parts = importlib.import_module("own_parts")
    told = selfheal_cli.run(
        lambda: parts.tickets("700"), target="urgent", recipe=parts.ShiftedByLabels,
        rules=[parts.by_night], monitors=[parts.Tails(), "psi"], batches=3, plots=False,
    )  # fmt: skip
    started = told.view.config
    assert started["heal"]["recipe"] == "shifted"  # as the package that is installed names it
    assert started["rules"] == ["by-night() => 1"]
    assert [one["name"] for one in started["monitors"]] == ["own_parts.Tails-1", "psi"]
