"""What pip installs, built from the archive of sources; and how it is called."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from selfheal_cli import DISTRIBUTION, __version__
from tests.conftest import Invoke

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BUILD = (
    "import sys; from setuptools import build_meta as b; "
    "print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
)
# from anywhere but a checkout, with the site-packages given first
LOOK = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from selfheal_cli.settings.policy_file import SHIPPED, available, load; "
    "import selfheal_cli; print(selfheal_cli.__file__, SHIPPED, load('strict').cooldown)"
)


def setup_of(root: Path) -> configparser.ConfigParser:
    configuration = configparser.ConfigParser()
    configuration.read(root / "setup.cfg")
    return configuration


def python(*arguments: str, folder: Path, path: Path | None = None) -> str:
    """What a Python of this environment prints in another folder; ``path`` is looked in first."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site-packages with what is built from the archive that is built from the repository."""
    folder = tmp_path_factory.mktemp("built")
    tools, site = folder / "tools", folder / "site"
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target")
    python(*pip, str(tools), "setuptools>=77", folder=folder)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    source = python("-c", BUILD, "sdist", str(folder), folder=folder / "source", path=tools)
    with tarfile.open(folder / source) as packed:
        packed.extractall(folder, filter="data")
    again = folder / source.removesuffix(".tar.gz")
    wheel = python("-c", BUILD, "wheel", str(folder), folder=again, path=tools)
    with zipfile.ZipFile(folder / wheel) as packed_wheel:
        packed_wheel.extractall(site)  # noqa: S202 - our own
    return site


def test_nothing_but_the_package_and_what_pip_notes_lands_in_site_packages(site: Path) -> None:
    (noted,) = site.glob("*.dist-info")
    assert {path.name for path in site.iterdir()} == {"selfheal_cli", noted.name}
    told = PathDistribution(noted).metadata
    assert (told["Name"], told["Version"]) == (DISTRIBUTION, __version__)


def test_shipped_policies_are_found_from_another_folder(site: Path, tmp_path: Path) -> None:
    package, shipped, cooldown = python("-c", LOOK, str(site), folder=tmp_path).split()
    assert Path(package).is_relative_to(site)
    assert Path(shipped) == site / "selfheal_cli" / "registry_policies"
    assert {path.name for path in Path(shipped).glob("*.yaml")} == {
        path.name for path in (ROOT / "registry_policies").glob("*.yaml")
    }
    assert cooldown == "20"
    package, shipped, cooldown = python("-c", LOOK, str(ROOT), folder=tmp_path).split()
    assert (Path(shipped), cooldown) == (ROOT / "registry_policies", "20")


def test_every_file_of_the_package_is_installed(site: Path) -> None:
    for path in (ROOT / "selfheal_cli").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (site / path.relative_to(ROOT)).is_file(), path


def test_the_package_list_names_every_folder() -> None:
    folders = {
        str(path.parent.relative_to(ROOT)).replace(os.sep, ".")
        for path in (ROOT / "selfheal_cli").rglob("*.py")
    }
    listed = setup_of(ROOT)["options"]["packages"].split()
    assert set(listed) == folders | {"selfheal_cli.registry_policies"}


def test_doctor_tells_of_the_distribution_that_owns_the_same_package(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = workdir / "site" / "selfheal-0.1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: selfheal\nVersion: 0.1.0\n")
    (old / "RECORD").write_text("selfheal/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(old.parent))
    assert "NOT WELL" not in invoke("doctor").stdout  # somebody else's project
    (old / "RECORD").write_text("selfheal_cli/__init__.py,,\n")
    (old.parent / "selfheal_cli").mkdir()
    (old.parent / "selfheal_cli" / "__init__.py").touch()
    told = " ".join(invoke("doctor", "--json", expect=4).stdout.split())
    assert "selfheal 0.1.0" in told
    assert "'pip uninstall selfheal', then install selfheal-cli again" in told
