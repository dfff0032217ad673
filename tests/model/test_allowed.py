"""Whose code may run when a registered version names a class."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import VARIABLE, allow, asked_by_mlflow, remember
from selfheal_cli.model.construction import build_module
from selfheal_cli.model.description import ModuleSpec, find_class, modules_of

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from torch import nn
class Net(nn.Linear):
    pass
"""
RUN, VERSION = "0123456789abcdef" * 2, "m-" + "0123456789abcdef" * 2


def lies_in(folder: Path, name: str) -> bool:
    """Whether a module was loaded from there; a library would be loaded a second time."""
    known = vars(sys.modules[name])
    places = (known.get("__file__"), *known.get("__path__", ()))
    return any(str(place).startswith(str(folder)) for place in places)


@pytest.fixture
def here(empty_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of a user who has allowed nothing yet; what it brings is forgotten."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(empty_dir / "settings"))
    monkeypatch.delenv(VARIABLE, raising=False)
    before, path = set(sys.modules), list(sys.path)
    yield empty_dir
    for name in [name for name in set(sys.modules) - before if lies_in(empty_dir, name)]:
        del sys.modules[name]
    sys.path[:] = path


def planted(folder: Path, name: str = "planted", code: str = CODE) -> Path:
    """A module that leaves a mark where it is run."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{name}.ran"
    (folder / f"{name}.py").write_text(code.format(mark=str(mark)))
    return mark


def test_a_module_that_nobody_allowed_is_not_run(here: Path) -> None:
    mark = planted(here)
    with pytest.raises(ModelError, match=f"--allow-module planted or set {VARIABLE}=planted"):
        find_class("planted:Net")
    assert not mark.exists()


@pytest.mark.parametrize("how", ["named", "variable", "remembered", "by MLflow", "loaded"])
def test_a_module_that_somebody_here_allowed_is_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    mark = planted(here)
    if how == "named":
        allow(["other", "planted"])
    elif how == "variable":
        monkeypatch.setenv(VARIABLE, "other, planted")
    elif how == "remembered":
        remember(["planted", "torch.nn.modules.linear"])
        kept = here / "settings" / "selfheal" / "allowed-modules"
        assert kept.read_text() == "planted\n"
    elif how == "loaded":
        monkeypatch.syspath_prepend(str(here))
        __import__("planted")
    if how == "by MLflow":
        with asked_by_mlflow():
            loaded = find_class("planted:Net")
    else:
        loaded = find_class("planted:Net")
    assert issubclass(loaded, nn.Linear) and mark.exists()


def test_what_is_allowed_is_that_module_and_what_is_in_it(here: Path) -> None:
    for name in ("plant", "planted"):
        planted(here / name, "part")
    allow(["plant"])
    find_class("plant.part:Net")
    with pytest.raises(ModelError, match="nobody has allowed"):
        find_class("planted.part:Net")


@pytest.mark.parametrize(
    "folder",
    [
        f"mlruns/1/{RUN}/artifacts",
        f"mlruns/1/models/{VERSION}/artifacts",
        f"mlartifacts/1/{RUN}/artifacts",
        f"store/kept/1/{RUN}/artifacts",
        f"store/models/{VERSION}/artifacts",
    ],
)
def test_nothing_is_run_from_where_a_registry_keeps_files_though_it_is_allowed(
    here: Path, folder: str
) -> None:
    mark = planted(here / folder)
    place = f"{folder.replace('/', '.')}.planted"
    allow([place, place.partition(".")[0]])
    with pytest.raises(ModelError, match="where a registry keeps files: nothing there is run"):
        find_class(f"{place}:Net")
    assert not mark.exists()


def test_no_package_above_it_is_run_either(here: Path) -> None:
    planted(here / "mlruns")
    mark = planted(here / "mlruns", "__init__")
    allow(["mlruns"])
    with pytest.raises(ModelError, match="keeps files"):
        find_class("mlruns.planted:Net")
    assert not mark.exists()


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit()", "1 / 0"])
def test_a_module_that_ends_the_process_or_fails_is_said_in_words(here: Path, code: str) -> None:
    planted(here, code=code)
    allow(["planted"])
    with pytest.raises(ModelError, match="planted:Net cannot be imported here"):
        find_class("planted:Net")


def test_a_class_that_ends_the_process_is_said_in_words(here: Path) -> None:
    planted(here, code=CODE + "    def __init__(self): raise SystemExit(3)\n")
    allow(["planted"])
    with pytest.raises(ModelError, match="cannot be built"):
        build_module(ModuleSpec(target="planted:Net"))


def test_torchs_own_modules_need_no_word(here: Path) -> None:
    spec = ModuleSpec(
        target="torch.nn.modules.container:Sequential",
        children={"0": ModuleSpec(target="torch.nn.modules.activation:ReLU")},
    )
    assert isinstance(build_module(spec), nn.Sequential)
    assert modules_of(spec) == {"torch.nn.modules.container", "torch.nn.modules.activation"}


def test_a_place_that_cannot_be_written_is_no_fault(here: Path) -> None:
    (here / "settings").mkdir()
    (here / "settings" / "selfheal").write_text("a file where the folder should be")
    remember(["planted"])
    with pytest.raises(ModelError, match="nobody has allowed"):
        find_class("planted:Net")
    assert stat.S_ISREG((here / "settings" / "selfheal").stat().st_mode)
