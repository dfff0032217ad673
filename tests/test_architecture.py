"""The floors of the house hold: each room imports from floors below, heavy libraries in place."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfheal_cli

PACKAGE = Path(selfheal_cli.__file__).parent
FLOORS = {
    "masking": 0,
    "errors": 1,
    "inputs": 1,
    "scores": 1,
    "actor": 1,
    "visible": 1,
    "records": 2,
    "config": 2,
    "moments": 2,
    "logistic": 2,
    "source": 3,
    "model": 3,
    "monitor": 3,
    "decide": 3,
    "history": 3,
    "heal": 4,
    "peers": 4,
    "settings": 4,
    "snapshot": 4,
    "report": 4,
    "spool": 4,
    "registry": 5,
    "rollback": 6,
    "retention": 6,
    "audit": 7,
    "pipeline": 8,
    "api": 9,
    "serve": 9,
    "cli": 10,
}
HEAVY = {
    "numpy": {
        "api",
        "logistic",
        "source",
        "model",
        "monitor",
        "decide",
        "heal",
        "peers",
        "pipeline",
        "settings",
        "serve",
        "snapshot",
        "spool",
    },
    "pandas": {"source", "monitor", "registry"},
    "pyarrow": {"source"},
    "torch": {"model", "heal", "peers", "snapshot", "rollback", "serve"},
    "matplotlib": {"report"},
    "mlflow": {"registry"},
    "sqlalchemy": {"registry"},
    "confluent_kafka": set(),
    "sklearn": set(),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def top_imports(path: Path) -> Iterator[str]:
    """Modules that load with this one: not those inside functions or for type checkers only."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def all_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_module_belongs_to_a_room_with_a_floor() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below_and_from_itself(path: Path) -> None:
    room = room_of(path)
    for module in all_imports(path):
        parts = module.split(".")
        if parts[0] != "selfheal_cli" or len(parts) == 1 or room == "__init__":
            continue
        assert parts[1] == room or FLOORS[parts[1]] < FLOORS[room], f"{room} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_libraries_load_only_in_their_rooms(path: Path) -> None:
    for module in top_imports(path):
        library = module.split(".")[0]
        if library in HEAVY:
            assert room_of(path) in HEAVY[library], f"{path.name} loads {library}"


def test_only_the_registry_talks_to_mlflow() -> None:
    for path in MODULES:
        if any(name.split(".")[0] == "mlflow" for name in all_imports(path)):
            assert room_of(path) == "registry"


def test_no_import_cycle() -> None:
    graph = {
        path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", "."): [
            name for name in top_imports(path) if name.startswith("selfheal_cli.")
        ]
        for path in MODULES
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done or module not in graph:
            return
        for imported in graph[module]:
            visit(imported, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys; from selfheal_cli.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print('LOADED', [m for m in ('torch', 'mlflow', 'pandas', 'numpy', 'pydantic', 'rich')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_nothing_loads_a_pickle_or_evaluates_text() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if (path.name, name) == ("stored.py", "torch.load"):
                    continue  # a whole module of the user's, where --allow-pickle says so
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load")
                assert not any(
                    keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
                    for keyword in node.keywords
                )
