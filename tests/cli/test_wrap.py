"""A model trained elsewhere: wrapped, drifted, healed, rolled back, audited."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from torch import nn

from selfheal_cli.cli.main import main
from selfheal_cli.config import Policy, RunConfig, TableSettings
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.runs import wrap
from selfheal_cli.pipeline.runs.run import RunContext
from selfheal_cli.pipeline.runs.serving import ServingOptions, heal_served, open_served
from selfheal_cli.records import Base
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.spool.entries import Cursor, Feedback, LoggedRequest
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Spool
from selfheal_cli.workspace import WORKSPACE
from tests.conftest import Invoke, enter, moved
from tests.forked import in_fork

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = ("--from", "digits:DigitNet", "--shape", "1,8,8")
STORED = (*DIGITS, "--weights", "digits.safetensors")
DATA = ("--data", "digits_train.csv", "--drop", "digit")
STREAM = ("run", "digits_stream.csv", "--target", "digit", "--from", "digits", "--no-plots",
          "--train-fraction", "0.5", "--batch-size", "50")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example leaves in its folder, of fewer rows: the camera ages after a batch."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(EXAMPLES))
        patch.delitem(sys.modules, "digits", raising=False)
        import digits

        known, stream = digits.rows()
        save_file(digits.fitted(known, 10).state_dict(), "digits.safetensors")
        first, then = ([part[rows] for part in of] for of, rows in (
            (known, slice(400)), (stream, slice(224, 624)),
        ))  # fmt: skip
        digits.write("digits_train.csv", *first)
        both = (np.concatenate(parts) for parts in zip(first, then, strict=True))
        digits.write("digits_stream.csv", *both)
    return folder


@pytest.fixture
def digits_dir(trained: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the example's files; its class can be imported."""
    for path in trained.iterdir():
        (workdir / path.name).write_bytes(path.read_bytes())
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return workdir


@pytest.fixture(scope="module")
def once_wrapped(
    trained: Path, store_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the example leaves, and its network wrapped."""
    folder = tmp_path_factory.mktemp("wrapped")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        patch.syspath_prepend(str(EXAMPLES))
        wrap = ["wrap", *STORED, *DATA, "--as", "digits"]
        assert CliRunner().invoke(main, wrap).exit_code == 0
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return folder


@pytest.fixture
def wrapped_dir(once_wrapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, moved here."""
    shutil.copytree(once_wrapped, tmp_path, dirs_exist_ok=True)
    moved(once_wrapped, tmp_path)
    enter(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return tmp_path


@pytest.mark.usefixtures("forked_worker")
def test_a_convolutional_network_is_healed_beside_scoring_served_and_its_log_holds(
    wrapped_dir: Path, invoke: Invoke
) -> None:
    # how many heals a slow machine gets done is its own: each of them is published
    run = (*STREAM, "--set=heal.mode=async", "--set=policy.publish_change=0", "--json")
    assert json.loads(invoke(*run).stdout)["versions"] >= 2  # the baseline, and one healed
    of = ("--model-name", "digits")
    assert "comes out the same" in invoke("audit", "--replay", "2", *of).stdout
    assert "Everything holds" in invoke("audit", *of).stdout
    given = pd.read_csv("digits_train.csv").drop(columns="digit")[:5]
    served = mlflow.pyfunc.load_model("models:/digits@champion").predict(given)
    assert served.shape == (5, 10)


def test_auto_takes_the_layer_that_gives_the_logits_and_lora_has_rank_4(
    digits_dir: Path, invoke: Invoke
) -> None:
    wrap = ("wrap", *STORED, *DATA, "--as", "digits", "--at", "auto", "--adapter", "lora", "--json")
    told = json.loads(invoke(*wrap).stdout)
    assert (told["at"], told["adapter"]) == ("out", "lora:4")


def test_an_adapter_of_another_kind_at_another_layer_heals_and_is_audited(
    digits_dir: Path, invoke: Invoke
) -> None:
    of = ("--model-name", "digits")
    placed = ("--at", "hidden", "--adapter", "lora:2")
    told = json.loads(invoke("wrap", *STORED, *DATA, "--as", "digits", *placed, "--json").stdout)
    assert told["adapter"] == "lora:2"
    healing = ("--recipe", "gradient", "--heal-lr", "0.02", "--heal-steps", "20")
    document = json.loads(invoke(*STREAM, *healing, "--json").stdout)
    stages = {one["title"]: one for one in document["results"]["stages"]}
    assert stages["Live (healing)"]["accuracy"] > stages["Shadow (frozen)"]["accuracy"] + 0.1
    assert "comes out the same" in invoke("audit", "--replay", "2", *of).stdout
    given = pd.read_csv("digits_stream.csv").drop(columns="digit")[:9]
    served = mlflow.pyfunc.load_model("models:/digits@champion").predict(given)
    assert np.allclose(served.to_numpy().sum(axis=1), 1, atol=1e-5)


def test_a_recipe_that_does_not_fit_the_place_is_refused_with_the_one_that_does(
    digits_dir: Path, invoke: Invoke
) -> None:
    invoke("wrap", *STORED, *DATA, "--as", "digits", "--at", "hidden")
    said = invoke(*STREAM, expect=3).stderr
    assert "wrapped with reflexive at layer 'hidden': use --recipe gradient" in said
    again = ("--as", "digits", "--adapter", "affine", "--promote")
    assert "champion (was v1)" in invoke("wrap", *STORED, *DATA, *again).stdout
    said = invoke(*STREAM, "--recipe", "article", expect=3).stderr
    assert "binary" in said  # ten classes come first
    invoke(*STREAM, "--batches", "1", "--json")  # a mixture stands where an affine one does


def test_layers_are_listed_and_nothing_is_registered(digits_dir: Path, invoke: Invoke) -> None:
    layers = json.loads(invoke("wrap", *STORED, "--list", "--json").stdout)
    fits = {one["name"]: one["adapters"] for one in layers}
    assert fits["convolutions.0"] == ["reflexive"]
    assert fits["hidden"] == ["reflexive", "lora"]
    assert fits["out"] == ["reflexive", "affine", "lora"]
    recipes = {one["name"]: one["recipes"] for one in layers}
    assert recipes["hidden"] == ["gradient", "article"]
    assert recipes["out"] == ["anchored", "ensemble", "gradient", "article"]
    assert "n x 16 x 8 x 8" in invoke("wrap", *STORED, "--list", "--wide").stdout
    assert not MlflowClient().search_registered_models()


def log_model(form: str) -> str:
    import digits

    network = digits.DigitNet()
    network.load_state_dict(load_file("digits.safetensors"))
    network.eval()
    example = np.zeros((2, 1, 8, 8), dtype=np.float32)
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            network, name="m", registered_model_name="camera", serialization_format=form,
            pip_requirements=["torch"], input_example=example if form == "pt2" else None,
        )  # fmt: skip
    return "models:/camera/1"


@pytest.mark.filterwarnings("ignore")
def test_mlflows_graph_gives_its_weights_without_a_pickle(digits_dir: Path, invoke: Invoke) -> None:
    uri = log_model("pt2")
    assert "--from package.module:Class" in invoke("wrap", uri, "--as", "d", expect=3).stderr
    wrapped = json.loads(invoke("wrap", uri, *DIGITS, *DATA, "--as", "d", "--json").stdout)
    same = json.loads(invoke("wrap", *STORED, *DATA, "--as", "e", "--json").stdout)
    assert (wrapped["at"], same["at"]) == ("out", "out")
    digests = [
        json.loads(invoke("show", "1", "--model-name", name, "--json").stdout)["tags"]
        for name in ("d", "e")
    ]
    assert digests[0]["selfheal.sha256"] == digests[1]["selfheal.sha256"]


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_is_loaded_only_where_that_is_allowed(digits_dir: Path, invoke: Invoke) -> None:
    uri = log_model("pickle")
    said = invoke("wrap", uri, "--shape", "1,8,8", "--as", "d", expect=3).stderr
    assert "runs whatever its author put into it" in said
    invoke("wrap", uri, "--shape", "1,8,8", "--as", "d", "--allow-pickle")


class Planted:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("mark", "w")


def test_weights_that_are_a_pickle_are_refused_and_nothing_runs(
    digits_dir: Path, invoke: Invoke
) -> None:
    torch.save(Planted(), "digits.safetensors")
    said = invoke("wrap", *STORED, "--as", "d", expect=3).stderr
    assert "not a safetensors file" in said
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("models:/nobody/1", "--as", "d"), 4, "models:/nobody/1: no such model"),
        (("--as", "d"), 2, "give MODEL, or --from"),
        (("--weights", "digits.safetensors", "--as", "d"), 2, "--weights needs --from"),
        (STORED, 2, "--as NAME is needed"),
        ((*STORED, "--as", "d", "--init", "{"), 2, "--init"),
        ((*STORED, "--as", "d", "--init", '{"width": 8}'), 3, "the weights do not fit"),
        ((*STORED, "--as", "d", "--init", '{"depth": 8}'), 3, "cannot be built with"),
        ((*STORED, "--as", "d", "--data", "digits_train.csv"), 3, "65 columns are left"),
        ((*STORED, *DATA, "--as", "d", "--drop", "no"), 3, "no column 'no'"),
        ((*STORED, *DATA, "--as", "d", "--labels", "a,b"), 3, "tells 10 classes apart"),
        ((*STORED, *DATA, "--as", "d", "--at", "nowhere"), 3, "no layer 'nowhere'"),
        ((*STORED, *DATA, "--as", "d", "--adapter", "lora:0"), 3, "from 1 to 4,096"),
        ((*STORED, *DATA, "--as", "d", "--adapter", "prefix"), 3, "built in: reflexive, affine"),
        ((*STORED, *DATA, "--as", "d", "--adapter", "affine:2"), 3, "affine has no rank"),
        ((*STORED, *DATA, "--as", "d", "--adapter", "affine", "--at", "hidden"), 3,
         "the linear layer that gives the logits, 'out'"),
        ((*STORED, *DATA, "--as", "d", "--adapter", "lora", "--at", "dropout"), 3,
         "'dropout' is a Dropout; linear: hidden, out"),
        (("--from", "os:getcwd", "--weights", "digits.safetensors", "--as", "d"), 3,
         "a str is no torch.nn.Module and holds none"),
    ],
)  # fmt: skip
def test_what_cannot_be_wrapped_is_said_in_one_line(
    digits_dir: Path, invoke: Invoke, arguments: tuple[str, ...], code: int, message: str
) -> None:
    said = invoke("wrap", *arguments, expect=code).stderr
    assert message in said
    if code != 2:
        assert len(said.splitlines()) == 1


def test_a_run_on_a_model_that_was_not_wrapped_or_on_other_columns_is_refused(
    digits_dir: Path, invoke: Invoke
) -> None:
    assert "no alias 'wrapped'" in invoke(*STREAM, expect=3).stderr
    invoke("wrap", *STORED, *DATA, "--as", "digits")
    text = Path("digits_stream.csv").read_text()
    Path("digits_stream.csv").write_text(text.replace("p00", "q00", 1))
    assert "no column 'p00'; did you mean 'q00'?" in invoke(*STREAM, expect=3).stderr
    rows = text.splitlines()
    few = [rows[0], *(row for row in rows[1:] if row[-1] in "01")]
    Path("digits_stream.csv").write_text("\n".join(few) + "\n")
    assert "tells apart 0, 1, 2" in invoke(*STREAM, expect=3).stderr


@pytest.fixture
def small(workdir: Path) -> str:
    """A registered model of torch's own layers that its team serves by two aliases."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            network, name="m", registered_model_name="small", serialization_format="pickle",
            pip_requirements=["torch"],
        )  # fmt: skip
    for alias in ("champion", "prod"):
        MlflowClient().set_registered_model_alias("small", alias, "1")
    return "models:/small/1"


@pytest.mark.filterwarnings("ignore")
def test_a_module_of_torchs_own_layers_needs_no_class(small: str, invoke: Invoke) -> None:
    said = invoke("wrap", small, "--allow-pickle", "--as", "small-healed").stdout
    assert "before layer '2'" in said
    assert "Aliases moved to v1: champion, wrapped, baseline." in said


@pytest.mark.filterwarnings("ignore")
def test_a_run_of_a_wrapped_model_without_from_trains_nothing_and_names_both_options(
    small: str, invoke: Invoke
) -> None:
    invoke("wrap", small, "--allow-pickle", "--as", "small-healed")
    before = MlflowRegistry().versions("small-healed")
    runs = list(Path("mlruns/selfheal").glob("*/*"))
    for model in ("small-healed", "models:/small-healed/1"):
        said = invoke("run", "--model", model, expect=2).stderr
        assert f"--from {model}" in said
        assert "--model NAME" in said
    both = invoke("run", "--model", "small-healed", "--model-name", "other", expect=2).stderr
    assert "name the wrapped one with --from, the registered one with --model" in both
    assert MlflowRegistry().versions("small-healed") == before
    assert list(Path("mlruns/selfheal").glob("*/*")) == runs


@pytest.mark.filterwarnings("ignore")
def test_wrapping_as_a_name_that_exists_moves_nothing_unless_it_is_promoted(
    small: str, invoke: Invoke
) -> None:
    wrap, registry = ("wrap", small, "--allow-pickle", "--as", "small"), MlflowRegistry()
    said = invoke(*wrap).stdout
    assert "no alias was moved: v1 serves on" in said
    assert "selfheal rollback --to 2 --model small" in said
    assert "--from models:/small/2" in said
    assert registry.aliases("small") == {"champion": 1, "prod": 1}

    invoke("hold", "--reason", "an inquiry", "--model-name", "small")
    refused = invoke(*wrap, "--promote", expect=4).stderr
    assert "(an inquiry): no new network becomes its champion until 'selfheal release'" in refused
    assert len(registry.versions("small")) == 1  # refused before it was registered
    invoke("release", "--model-name", "small")

    told = json.loads(invoke(*wrap, "--promote", "--json").stdout)
    assert {one["alias"]: (one["source"], one["target"]) for one in told["moved"]} == {
        "champion": (1, 3), "wrapped": (None, 3), "baseline": (None, 3)
    }  # fmt: skip
    assert {one["run"] for one in told["moved"]} == {""}  # a person's moves
    assert registry.aliases("small")["prod"] == 1
    invoke("rollback", "--to-previous", "--yes", "--unverified", "--model-name", "small")
    assert registry.aliases("small")["champion"] == 1

    invoke("four-eyes", "--on", "--model-name", "small")
    assert "wants two people" in invoke(*wrap, "--promote", expect=4).stderr
    assert len(registry.versions("small")) == 2


def test_a_model_that_was_wrapped_here_runs_here_and_elsewhere_by_name(
    wrapped_dir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*more: str, expect: int = 0) -> str:
        monkeypatch.delitem(sys.modules, "digits", raising=False)
        monkeypatch.delenv("SELFHEAL_ALLOW_MODULE", raising=False)
        return invoke(*STREAM, "--batches", "1", *more, expect=expect).stderr

    run()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another user"))
    assert "give --allow-module digits or set SELFHEAL_ALLOW_MODULE=digits" in run(expect=3)
    run("--allow-module", "digits")


def test_the_code_that_a_model_was_logged_with_comes_along_and_shadows_nothing(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, away = workdir / "made", workdir / "away"
    made.mkdir()
    away.mkdir()
    (made / "shipped_layers.py").write_text("from torch import nn\nLAST = nn.Linear\n")
    (made / "shipped.py").write_text(
        "from torch import nn\nfrom shipped_layers import LAST\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.out = LAST(4, 1)\n"
        "    def forward(self, x):\n        return self.out(x)\n"
    )
    store = f"sqlite:///{workdir}/mlflow.db"
    at = ("--tracking-uri", store)
    known = {**os.environ, "MLFLOW_TRACKING_URI": store}

    def log() -> None:
        os.chdir(made)
        sys.path.insert(0, str(made))
        mlflow.set_tracking_uri(store)
        mlflow.pytorch.log_model(
            importlib.import_module("shipped").Net(), name="m", registered_model_name="own",
            code_paths=["shipped.py", "shipped_layers.py"], serialization_format="pickle",
            pip_requirements=["torch"],
        )  # fmt: skip

    assert in_fork(log) == 0
    monkeypatch.chdir(away)
    wrapped = invoke("wrap", "models:/own/1", "--as", "w", "--allow-pickle", *at)
    assert "bit for bit" in wrapped.stdout
    for name in ("shipped", "shipped_layers"):
        del sys.modules[name]
    asked = (
        "import mlflow, pandas as pd; m = mlflow.pyfunc.load_model('models:/w/1');\n"
        "print(m.predict(pd.DataFrame([[0.0] * 4], columns=['x0', 'x1', 'x2', 'x3'])).shape)"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", asked], cwd=away, check=False, capture_output=True, text=True,
        env=known,
    )  # fmt: skip
    assert elsewhere.stdout.strip() == "(1,)", elsewhere.stderr[-2000:]
    # a base that is not the user's own may bring whatever it likes: nothing of it runs
    monkeypatch.setenv("XDG_CONFIG_HOME", str(away / "nobody"))
    monkeypatch.delenv("SELFHEAL_ALLOW_MODULE", raising=False)
    Path("rows.csv").write_text("x0,x1,x2,x3,y\n" + "1,2,3,4,0\n4,3,2,1,1\n" * 60)
    run = invoke("run", "rows.csv", "--target", "y", "--from", "w", *at, expect=3)
    assert "give --allow-module code-" in run.stderr


def test_a_wrapped_model_that_is_served_as_it_is_heals_as_on_own_data(wrapped_dir: Path) -> None:
    registry, spool = MlflowRegistry(), Spool(spool_path("digits", WORKSPACE))
    reference = TableSettings(path=Path("digits_train.csv"), target="digit")
    pace = Pace(100, 1e9, lambda: 0.0, lambda seconds: True)
    # the camera broke: a heal changes more decisions than may be changed without a person's word
    wide = {"budget_change": 1.0, "budget_change_in_all": 1.0}
    given = {"batch_size": 50, "policy": wide}
    wanted = ServingOptions("digits", given, reference, WORKSPACE)
    served = open_served(registry, wanted, spool, pace)
    heal = served.config.heal
    assert (heal.recipe, heal.better_by, served.config.drift_by) == (
        "ensemble",
        "paired",
        "monitors",
    )
    stream = pd.read_csv("digits_stream.csv").tail(300)
    columns = {name: stream[name].to_numpy() for name in served.source.encoding.names}
    rows = served.source.encoding.encode(columns)
    snapshot = served.champion.tags["selfheal.snapshot"]
    for at in range(0, 300, 50):
        part = slice(at, at + 50)
        told = {name: values[part] for name, values in columns.items()}
        p = served.prepared.network.predict(rows[part])
        spool.append([LoggedRequest(f"r{at}", told, p, snapshot, 0.5, at)])
        truth = enumerate(stream["digit"].iloc[part])
        spool.label([Feedback(int(y), request=f"r{at}", place=place) for place, y in truth])
    around = RunContext(registry, lambda: datetime.now(UTC), "ann", workspace=WORKSPACE)
    heal_served(served, registry, around, lambda lease: Cursor())
    number = registry.alias("digits", "champion")
    assert number is not None
    champion = registry.version("digits", number)
    base = registry.base(champion.base)
    healed = assemble(base, load_verified(registry, champion), where="here")
    right = healed.predict(rows).argmax(axis=1) == stream["digit"].to_numpy()
    before = served.prepared.network.predict(rows).argmax(axis=1) == stream["digit"].to_numpy()
    assert right.mean() > before.mean() + 0.2


def test_what_0_1_0_wrapped_is_served_as_what_is_wrapped_now(
    digits_dir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrap, "wrapped_config", lambda _, model, base: RunConfig(model_name=model))
    invoke("wrap", *STORED, *DATA, "--as", "digits")
    reference = TableSettings(path=Path("digits_train.csv"), target="digit")
    spool = Spool(spool_path("digits", WORKSPACE))
    pace = Pace(100, 1e9, lambda: 0.0, lambda seconds: True)
    wanted = ServingOptions("digits", {}, reference, WORKSPACE)
    served = open_served(MlflowRegistry(), wanted, spool, pace)
    heal = served.config.heal
    assert (heal.recipe, heal.progressive, served.config.drift_by) == ("ensemble", True, "monitors")
    assert served.config.policy.publish_share == 0.6


def test_a_retrained_model_is_healed_by_the_settings_of_the_model_that_it_replaces(
    digits_dir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = wrap.wrapped_config

    def chosen(network: SelfHealingNetwork, model: str, base: Base) -> RunConfig:
        config = usual(network, model, base)
        changed = {"steps": 21}
        return config.model_copy(update={
            "heal": config.heal.model_copy(update=changed), "batch_size": 40, "monitors": (),
            "policy": Policy(rollback_f1_drop=0.07, mode="recommend"),
        })  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr(wrap, "wrapped_config", chosen)
        said = invoke("wrap", *STORED, *DATA, "--as", "digits").stdout
    assert "settings" not in said  # nobody healed it before
    again = invoke("wrap", *STORED, *DATA, "--as", "digits", "--promote").stdout
    assert "healed by the settings of its latest run: recipe ensemble" in again
    spool = Spool(spool_path("digits", WORKSPACE))
    reference = TableSettings(path=Path("digits_train.csv"), target="digit")
    pace = Pace(100, 1e9, lambda: 0.0, lambda seconds: True)
    wanted = ServingOptions("digits", {}, reference, WORKSPACE)
    config = open_served(MlflowRegistry(), wanted, spool, pace).config
    assert (config.heal.recipe, config.heal.steps) == ("ensemble", 21)
    assert (config.batch_size, config.monitors) == (40, ())
    assert (config.policy.rollback_f1_drop, config.policy.mode) == (0.07, "recommend")
    # where the adapter is one that the recipe cannot heal, it begins as a new model does
    other = (*STORED, *DATA, "--as", "digits", "--promote", "--adapter", "lora")
    said = invoke("wrap", *other).stdout
    assert "Where it is served it is healed by gradient, as new: recipe 'ensemble'" in said
