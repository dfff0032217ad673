"""Fixtures: an empty folder for each test, a store whose schema is made once, a whole run."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from hypothesis import HealthCheck, settings

from selfheal_cli import installed
from selfheal_cli.cli.main import main
from tests.compiled import share_compiled

if TYPE_CHECKING:
    from tests.registry.stores import Postgres

Invoke = Callable[..., Result]
MEMORY = Path("/dev/shm")  # noqa: S108 (our own folder in it)
WHOLE_RUNS = [Path(__file__).parent / name for name in ("audit", "pipeline", "serve", "stored")]
STORES = {"store_template", "unpacked_0_1_0", "postgres", "server"}  # fixtures
PATIENCE = 180.0  # seconds for what another thread or process does, on however slow a machine
RAREST = 0.1  # seconds between two questions
DEPTH = int(os.environ.get("TESTS_DEPTH", "1"))  # how much longer searching tests search
# before PyTorch and numpy load: the same bytes whichever tests ran before, and no threads that wait
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

# the same examples each time, however slow the machine
settings.register_profile(
    "ours",
    max_examples=25 * DEPTH,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ours")
# nor of what else is loaded: it draws the constants of modules, unless the search is to go deeper
if DEPTH == 1 and (providers := sys.modules.get("hypothesis.internal.conjecture.providers")):
    providers.is_local_module_file = lambda _: False  # type: ignore[attr-defined]


def until(holds: Callable[[], Any], every: float = 0.01, seconds: float = PATIENCE) -> Any:
    """What becomes true in another thread or process, once it is, where nothing says when.

    The longer it takes, the more rarely it is asked: asking takes the time of those who work on it.
    """
    began = time.monotonic()
    while not (became := holds()):
        waited = time.monotonic() - began
        assert waited < seconds, "nothing came of it"
        time.sleep(max(every, min(waited / 50, RAREST)))
    return became


def pytest_configure() -> None:
    """Temporary folders lie in memory where there is room: stores wait for the disk at each write.

    Not with ``--basetemp``, nor where the environment names a place.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m quick`` does not load the tests that it would leave out."""
    quick = config.option.markexpr == "quick"
    return True if quick and collection_path in WHOLE_RUNS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``quick``: needs no store, is not marked ``slow``, is in no folder of whole runs."""
    for item in items:
        if item.path.parent in WHOLE_RUNS:
            continue
        store = getattr(item, "callspec", None) and item.callspec.params.get("registry")  # type: ignore[attr-defined]
        needs = STORES & set(getattr(item, "fixturenames", ()))
        if not needs and store in (None, "memory") and item.get_closest_marker("slow") is None:
            item.add_marker("quick")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` fills, for all workers of xdist together: nobody changes it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            make(folder)
    return folder


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its schema and nothing in it; making one takes seconds."""

    def make(folder: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    path = made_once(tmp_path_factory, "template", make) / "mlflow.db"
    share_compiled()
    return path


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_template: Path) -> Path:
    """An empty folder with a fresh store, as the working folder."""
    shutil.copy(store_template, tmp_path / "mlflow.db")
    enter(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def empty_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, as the working folder."""
    enter(tmp_path, monkeypatch)
    return tmp_path


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in ``folder``, with MLflow's own choice of store; runs train the same network once."""
    import mlflow

    from tests.trained import SELECTED, TRAINED

    monkeypatch.setattr("selfheal_cli.pipeline.prepare.baseline.train", TRAINED)
    monkeypatch.setattr("selfheal_cli.pipeline.prepare.baseline.train_selected", SELECTED)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered for a user is not kept among the files of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        patch.delenv("SELFHEAL_ALLOW_MODULE", raising=False)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What is drawn without a seed is the same whichever tests ran before."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _store_is_forgotten() -> Iterator[None]:
    """MLflow keeps the store's URI in a global and in the environment; no test leaves one."""
    yield
    if "mlflow.tracking" in sys.modules:
        sys.modules["mlflow.tracking"].set_tracking_uri(None)  # type: ignore[arg-type]
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("SELFHEAL_ALLOW_MODULE", None)


@pytest.fixture(autouse=True)
def _parts_are_forgotten() -> Iterator[None]:
    """Parts that a test hands over are no choices of commands in the next one."""
    before = dict(installed._handed)
    yield
    installed._handed.clear()
    installed._handed.update(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests of this process."""
    from tests.registry.stores import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def invoke() -> Invoke:
    """Run a selfheal command in this process."""

    def run(*arguments: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exit_code == expect, f"{result.output}\n{result.stderr}\n{result.exception!r}"
        return result

    return run


@pytest.fixture
def forked_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heal workers need no seconds to load PyTorch."""
    from selfheal_cli.heal.worker_engine import WorkerEngine
    from tests import forked

    monkeypatch.setattr(WorkerEngine, "_start", forked.start)


@pytest.fixture
def fake_clock() -> Callable[[], datetime]:
    """A clock that moves on a second each time that it is read."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def read() -> datetime:
        nonlocal now
        now += timedelta(seconds=1)
        return now

    return read


@pytest.fixture(scope="session")
def article_run(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """The folder of one bare ``selfheal run``; tests read it and do not change it."""
    made = made_once(
        tmp_path_factory, "article", lambda folder: left_by_run(folder, store_template)
    )
    return copied(made, tmp_path_factory.mktemp("article"))


@pytest.fixture
def in_article_run(article_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the folder of the session's run, to look."""
    enter(article_run, monkeypatch)
    return article_run


@pytest.fixture
def article_copy(article_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's run with its registry, moved here, to change."""
    enter(copied(article_run, tmp_path), monkeypatch)
    return tmp_path


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """The folder of ``selfheal run --batches 4``: nine versions, the best of them v5."""
    options = ("--batches", "4", "--no-plots")
    made = made_once(
        tmp_path_factory, "short", lambda folder: left_by_run(folder, store_template, *options)
    )
    return copied(made, tmp_path_factory.mktemp("short"))


@pytest.fixture
def in_short_run(short_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the folder of the session's short run, to look."""
    enter(short_run, monkeypatch)
    return short_run


@pytest.fixture
def short_copy(short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The short run with its registry, moved here, to change.

    An audit reads every version, so this is the copy to take where fifty-one are not the point.
    """
    enter(copied(short_run, tmp_path), monkeypatch)
    return tmp_path


def copied(origin: Path, here: Path) -> Path:
    """A folder with a store and its files, copied to this one."""
    shutil.copytree(origin, here, dirs_exist_ok=True)
    moved(origin, here)
    return here


def left_by_run(folder: Path, store_template: Path, *options: str) -> None:
    """Fill the folder with what ``selfheal run`` leaves there and said."""
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        result = CliRunner().invoke(main, ["run", *options])
        assert result.exit_code == 0, result.output
        (folder / "output.txt").write_text(result.output)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def unpacked_0_1_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What selfheal 0.1.0 stored, see tests/stored/0.1.0/README.md; tests take copies."""

    def make(folder: Path) -> None:
        with tarfile.open(Path(__file__).parent / "stored" / "0.1.0" / "stored.tar.xz") as packed:
            packed.extractall(folder, filter="data")

    return made_once(tmp_path_factory, "stored", make)


@pytest.fixture
def stored_by_0_1_0(unpacked_0_1_0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that 0.1.0 stored, as the working folder; ``expected.json`` says what it is."""
    shutil.copytree(unpacked_0_1_0, tmp_path, dirs_exist_ok=True)
    moved(Path(json.loads((tmp_path / "expected.json").read_text())["folder"]), tmp_path)
    enter(tmp_path, monkeypatch)
    return tmp_path


def moved(origin: Path, here: Path) -> None:
    """Tell a copied store where it is now: MLflow keeps the places of artifacts absolute."""
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",  # noqa: S608
                (str(origin), str(here)),
            )
