"""A version scores where selfheal is not installed, and asks no index for anything of ours."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.registry import pyfunc
from selfheal_cli.registry.carried import ENTRY, REQUIRED, carried, closure, scoring_package
from tests.conftest import Invoke
from tests.stored.test_0_1_0 import rows_of

Answers = tuple[np.ndarray, list[str]]
Elsewhere = Callable[[str, str, pd.DataFrame, Path], Answers]
PLAIN = '{"network": {}}'
# imports nothing of ours, whatever is installed; each version is loaded in a process of its own
ELSEWHERE = """
import json, os, sys, traceback
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "selfheal_cli":
            raise ImportError("selfheal is not installed here")
sys.meta_path.insert(0, Blocked())
import mlflow.pyfunc, numpy, pandas, torch

def answer(folder, uri, source):
    os.chdir(folder)
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(source)
    given = pandas.read_csv("rows.csv")
    numpy.save("scores.npy", numpy.asarray(model.predict(given), dtype=numpy.float32))
    decided = model.predict(given, params={"output": "label"})
    open("labels", "w").write("\\n".join(decided))
    assert not any(name.split(".")[0] == "selfheal_cli" for name in sys.modules)

for line in sys.stdin:
    child = os.fork()
    if child:
        print(os.waitpid(child, 0)[1], flush=True)
        continue
    try:
        answer(*json.loads(line))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """What a process answers that has no selfheal and stands in an empty folder."""
    program = [sys.executable, "-I", "-c", ELSEWHERE]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        asked, told = one.stdin, one.stdout

        def answer(uri: str, source: str, given: pd.DataFrame, folder: Path) -> Answers:
            folder.mkdir()
            given.to_csv(folder / "rows.csv", index=False)
            print(json.dumps([str(folder), uri, source]), file=asked, flush=True)
            assert told.readline() == "0\n"
            return np.load(folder / "scores.npy"), (folder / "labels").read_text().split("\n")

        yield answer
        asked.close()


def here(uri: str, source: str, given: pd.DataFrame) -> Answers:
    """What this process answers with the code that is installed."""
    mlflow.set_tracking_uri(uri)
    folder = mlflow.artifacts.download_artifacts(artifact_uri=source)
    model = pyfunc._load_pyfunc(folder)
    scores = np.asarray(model.predict(given), dtype=np.float32)
    return scores, list(model.predict(given, {"output": "label"}))


def test_a_version_scores_to_the_bit_where_selfheal_is_not_installed(
    in_short_run: Path, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    uri, source = f"sqlite:///{in_short_run / 'mlflow.db'}", "models:/fraud@champion"
    names = mlflow_names(uri, source)
    drawn = np.random.default_rng(3).standard_normal((40, len(names)))
    given = pd.DataFrame(drawn.round(3), columns=names)
    now, decided = here(uri, source, given)
    scores, labels = elsewhere(uri, source, given, tmp_path / "elsewhere")
    assert np.array_equal(scores, now)
    assert labels == decided


def test_a_wrapped_network_takes_its_own_modules_along(
    workdir: Path, invoke: Invoke, elsewhere: Elsewhere, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import torch
    from safetensors.torch import save_file

    Path("layers_of_ours.py").write_text("WIDTH = 6\n")
    Path("net_of_ours.py").write_text(
        "import torch\nfrom torch import nn\nfrom layers_of_ours import WIDTH\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.first, self.out = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 1)\n"
        "    def forward(self, x):\n"
        "        return self.out(torch.relu(self.first(x))).squeeze(-1)\n"
    )
    torch.manual_seed(0)
    first, out = torch.nn.Linear(3, 6), torch.nn.Linear(6, 1)
    weights = {"first.weight": first.weight, "first.bias": first.bias, "out.weight": out.weight,
               "out.bias": out.bias}  # fmt: skip
    save_file({name: value.detach() for name, value in weights.items()}, "net.safetensors")
    given = pd.DataFrame(np.random.default_rng(1).standard_normal((30, 3)).round(3)).add_prefix("x")
    given.to_csv("rows.csv", index=False)
    invoke("wrap", "--from", "net_of_ours:Net", "--weights", "net.safetensors", "--data",
           "rows.csv", "--as", "ours")  # fmt: skip
    uri, source = f"sqlite:///{workdir / 'mlflow.db'}", "models:/ours/1"
    now, decided = here(uri, source, given)
    away = tmp_path_factory.mktemp("away") / "folder"
    for name in ("net_of_ours.py", "layers_of_ours.py"):
        Path(name).unlink()
    scores, labels = elsewhere(uri, source, given, away)
    assert np.array_equal(scores, now)
    assert labels == decided


def test_requirements_name_packages_of_others_by_public_versions(in_short_run: Path) -> None:
    checked = 0
    for path in in_short_run.glob("mlruns/*/models/*/artifacts/requirements.txt"):
        text = path.read_text()
        assert "selfheal" not in text
        assert "+" not in text
        assert {line.partition("==")[0] for line in text.splitlines()} == set(REQUIRED)
        checked += 1
    assert checked == 9


def test_what_is_carried_is_small_and_needs_no_more_than_its_requirements_name() -> None:
    owners = packages_distributions()
    for name, tree in closure(ENTRY).items():
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {one.partition(".")[0] for one in names}:
                if top not in sys.stdlib_module_names and top != "selfheal_cli":
                    assert set(owners[top]) & set(REQUIRED), f"{name} imports {top}"
    assert len(closure(ENTRY)) <= 49
    assert len(carried(PLAIN).code) < 74_000


def test_the_same_modules_give_the_same_bytes_under_a_name_of_their_own() -> None:
    first = carried(PLAIN)
    carried.cache_clear()
    scoring_package.cache_clear()
    assert carried(PLAIN) == first
    name, _ = scoring_package()
    assert first.loader == f"{name}.registry.pyfunc"
    with zipfile.ZipFile(io.BytesIO(first.code)) as archive:
        texts = {place: archive.read(place).decode() for place in archive.namelist()}
    assert {place.partition("/")[0] for place in texts} == {name}
    for place, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "selfheal_cli", place


def test_a_distribution_that_a_wrapped_network_is_from_is_required() -> None:
    foreign = {"module": {"target": "safetensors.torch:Net", "children": {
        "a": {"target": "torch.nn.modules.linear:Linear", "children": {}},
        "b": {"target": "sklearn.base:Net", "children": {}}}}}  # fmt: skip
    needed = carried(json.dumps({"network": {"foreign": foreign}})).requirements
    assert any(one.startswith("scikit-learn==") for one in needed)
    assert len(carried(json.dumps({"network": {"foreign": foreign}})).code) == len(
        carried(PLAIN).code
    )


@pytest.mark.parametrize("model", ["kinds", "wrapped"])
def test_a_bundle_scores_without_any_store_also_of_a_version_of_0_1_0(
    model: str, stored_by_0_1_0: Path, invoke: Invoke, elsewhere: Elsewhere,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    number = "2"
    uri, source = f"sqlite:///{stored_by_0_1_0 / 'mlflow.db'}", f"models:/{model}/{number}"
    given = rows_of(model, mlflow_names(uri, source))
    now, decided = here(uri, source, given)
    away = tmp_path_factory.mktemp("bundle")
    bundle = away / "bundle"
    told = invoke("export", number, "--bundle", str(bundle), "--model-name", model).stdout
    assert f"{model} v{number}" in told
    scores, labels = elsewhere("sqlite:///nothing.db", str(bundle), given, away / "elsewhere")
    assert np.array_equal(scores, now)
    assert labels == decided
    assert "selfheal" not in (bundle / "requirements.txt").read_text()
    assert "not empty" in invoke(
        "export", number, "--bundle", str(bundle), "--model-name", model, expect=3
    ).stderr  # fmt: skip
    weights = bytearray((bundle / "base.safetensors").read_bytes())
    weights[-1] ^= 1
    (bundle / "base.safetensors").write_bytes(weights)
    with pytest.raises(VersionCorrupt, match="not those that this version was registered with"):
        pyfunc._load_pyfunc(str(bundle))


def mlflow_names(uri: str, source: str) -> list[str]:
    mlflow.set_tracking_uri(uri)
    return mlflow.models.get_model_info(source).signature.inputs.input_names()


def test_audit_and_doctor_name_versions_that_ask_for_a_strangers_package(
    stored_by_0_1_0: Path, invoke: Invoke
) -> None:
    of = ("--model-name", "kinds")
    audit = json.loads(invoke("audit", *of, "--json").stdout)
    (note,) = (one for one in audit["notes"] if "another project on PyPI" in one["problem"])
    assert note["problem"].startswith("v1, v2, ")
    assert audit["holds"]
    findings = json.loads(invoke("doctor", "--json", expect=4).stdout)["findings"]
    (one,) = (one for one in findings if one["check"] == "kinds@champion")
    assert "asks for 'selfheal==0.1.0'" in one["detail"]
    assert "--bundle DIR" in one["detail"]


def test_no_alias_of_that_name_can_be_bundled(
    in_short_run: Path, invoke: Invoke, tmp_path: Path
) -> None:
    told = invoke("export", "nobody", "--bundle", str(tmp_path / "b"), expect=4).stderr
    assert "no alias 'nobody'" in told
