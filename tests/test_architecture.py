"""The order of the house: who may import whom, what loads where, and what no name may be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import selfheal_cli

PACKAGE = Path(selfheal_cli.__file__).parent
# from the ground up; a room imports from lines above its own, and from itself
FLOORS = """\
anytime masking moments scores segment_keys visible actor logistic workspace forks
errors kinds records config_sources
installed lookout config_labels
config_policy
config metrics
estimators events
decide drift model rules sources
labels
engine.cluster
heal settings spool
registry report parts
rollback testing
audit
pipeline.prepare pipeline.record
pipeline.stream
pipeline.runs
pipeline.offline
serve.settings
serve.token_file
serve.http
serve.operator serve.tracing
serve.notify
serve.healer serve.keeper serve.replicas serve.staff
api
serve.service
serve.app
serve.server
serve.worker
serve.workers
engine
cli
""".splitlines()
FLOOR = {room: number for number, line in enumerate(FLOORS) for room in line.split()}
# which rooms load a heavy library together with themselves; elsewhere it loads inside a function
HEAVY = {
    "numpy": "api decide drift estimators heal labels logistic metrics model moments pipeline "
    "rules segment_keys serve settings sources spool testing",
    "pandas": "api drift estimators registry rules segment_keys settings sources",
    "pyarrow": "sources",
    "torch": "heal model pipeline rollback serve testing",
    "matplotlib": "report",
    "mlflow": "registry",
    "sqlalchemy": "registry",
    "confluent_kafka": "",
    "ray": "",
    "sklearn": "",
}
LONGEST = 60  # lines of a function
CIRCLES: list[set[str]] = []


@cache
def modules() -> dict[str, ast.Module]:
    """Each parsed once, by the worker of xdist that needs them."""
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): ast.parse(
            path.read_text()
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def nodes() -> dict[str, list[ast.AST]]:
    """All that is in each."""
    return {module: list(ast.walk(tree)) for module, tree in modules().items()}


def room_of(module: str) -> str:
    """The longest part of the name that has a floor, else its first word."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOOR), parts[0])


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Names of modules; of ``from package import module``, the module's."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("selfheal_cli.") in modules() else node.module


@cache
def imports() -> dict[str, set[str]]:
    """Modules of the package that one imports anywhere, inside functions and for types too."""
    return {
        module: {
            name.removeprefix("selfheal_cli.")
            for name in imported(inside)
            if name.startswith("selfheal_cli.")
        }
        for module, inside in nodes().items()
    }


def test_a_module_imports_from_floors_below_and_from_its_own_room() -> None:
    files = [module for module in modules() if not module.endswith("__init__")]
    homeless = [module for module in files if room_of(module) not in FLOOR]
    assert homeless == [], "put them into a room of FLOORS, or give the new room a floor"
    upwards = [
        f"{module} imports {other}"
        for module in files
        for other in imports()[module]
        if room_of(other) != room_of(module)
        and FLOOR.get(room_of(other), -1) >= FLOOR[room_of(module)]
    ]
    assert upwards == [], (
        "hand over what it needs as an argument, let it follow the events, or move what both need "
        "down"
    )


def test_no_files_import_each_other_in_a_circle() -> None:
    reach: dict[str, set[str]] = {}
    for module in modules():
        seen, rest = set[str](), [module]
        while rest:
            for other in imports().get(rest.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    rest.append(other)
        reach[module] = seen
    circles = {
        frozenset(other for other in reach[module] if module in reach.get(other, ()))
        for module in modules()
        if module in reach[module]
    }
    assert circles == {frozenset(circle) for circle in CIRCLES}, (
        "move what both need into a file below them; CIRCLES may only get shorter"
    )


def test_heavy_libraries_load_only_in_their_rooms() -> None:
    misplaced = [
        f"{module} loads {name}"
        for module, tree in modules().items()
        for name in imported(tree.body)
        if name.partition(".")[0] in HEAVY
        and module.partition(".")[0] not in HEAVY[name.partition(".")[0]].split()
    ]
    assert misplaced == [], "import it inside the function that needs it"


def test_only_the_registry_talks_to_mlflow() -> None:
    for module, inside in nodes().items():
        if any(name.partition(".")[0] == "mlflow" for name in imported(inside)):
            assert room_of(module) == "registry", f"{module}: ask through registry/base.py"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys; from selfheal_cli.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print('LOADED', [m for m in ('torch', 'mlflow', 'pandas', 'numpy', 'pydantic', 'rich')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_completing_in_the_shell_offers_options_and_loads_no_heavy_library() -> None:
    code = (
        "import sys; from selfheal_cli.cli.main import main\n"
        "try: main(prog_name='selfheal')\n"
        "except SystemExit: pass\n"
        "print('LOADED', [m for m in ('torch', 'mlflow', 'pandas', 'numpy') if m in sys.modules])"
    )
    asked = {"_SELFHEAL_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    asked["COMP_WORDS"] = "selfheal show --j"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | asked,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["plain,--json", "LOADED []"]


def test_commands_that_need_no_weights_load_no_torch(in_short_run: Path) -> None:
    code = (
        "import sys; from selfheal_cli.cli.main import main\n"
        "for one in (['champion'], ['snapshots'], ['history'], ['show', '1'], ['doctor']):\n"
        "    main(one, standalone_mode=False)\n"
        "print('LOADED', [m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_nothing_loads_a_pickle_or_evaluates_text() -> None:
    for module, inside in nodes().items():
        for node in inside:
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if (module, name) == ("model.loading", "torch.load"):
                    continue  # a whole module of the user's, where --allow-pickle says so
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "torch.load")
                assert not any(
                    keyword.arg == "shell" and ast.unparse(keyword.value) != "False"
                    for keyword in node.keywords
                )


def test_no_class_name_stands_twice_and_nothing_is_called_found() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules().items():
        for top in tree.body:
            if isinstance(top, ast.ClassDef):
                classes[top.name].append(module)
        for node in nodes()[module]:
            name = getattr(node, "id", getattr(node, "arg", None))
            assert name != "found", f"{module}: name a result for what it is"
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    longer = [
        f"{module}: {node.name}, {length} lines"
        for module, inside in nodes().items()
        for node in inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST
    ]
    assert longer == [], "name its steps, each a function of its own"
