"""The code that a version carries, so that it scores where selfheal is not installed.

It is made from the modules that `pyfunc` needs, under a name that nothing else has: the same
modules always give the same bytes, and another selfheal in the process is not in their way. A
wrapped model's own modules go with it.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from selfheal_cli.installed import OwnPart, part_of
from selfheal_cli.kinds import BUILT_IN
from selfheal_cli.model.brought import tops
from selfheal_cli.model.extent import named_modules
from selfheal_cli.model.tree_library import why_no_trees
from selfheal_cli.records import digest

PACKAGE = "selfheal_cli"
ENTRY = f"{PACKAGE}.registry.pyfunc"
UNNAMED = "selfheal_scoring"  # what it is called comes from its content
OURS = re.compile(r"selfheal([-_.]cli)?(?![\w.-])", re.IGNORECASE)
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # of each file in the archive, so that its bytes tell of nothing
REQUIRED = (
    "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "SQLAlchemy",
    "threadpoolctl", "torch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Carried:
    """``code`` is a zip archive that can be imported from; ``requirements`` are others' packages,
    by the versions that are installed.
    """

    code: bytes
    loader: str
    requirements: tuple[str, ...]


@lru_cache(maxsize=8)
def carried(document: str) -> Carried:
    """What a version on a base carries; ``document`` is the base's."""
    name, files = scoring_package()
    described = json.loads(document)
    network, model = described["network"], described.get("encoding", {}).get("model")
    adapter = _own_adapter(network)
    imported = [adapter.name.rpartition(".")[0]] if adapter and not adapter.distribution else []
    foreign = network.get("foreign", {})
    libraries = _libraries(model or {})
    needs = chain(named_modules(foreign.get("module", {})), imported, libraries)
    own, others = _modules_of(needs, foreign.get("code", {}))
    brought = {adapter.distribution} - {""} if adapter else set()
    if described.get("trees") and not why_no_trees():
        brought.add("lightgbm")
    needed = {pinned(one) for one in (*REQUIRED, *others, *brought)}
    known = {_normal(one) for one in needed}
    written = [*foreign.get("requirements", ()), *_pins(model or {})]
    needed |= {one for one in written if _normal(one) not in known}
    loader = ENTRY.replace(PACKAGE, name, 1)
    return Carried(_archive({**own, **files}), loader, tuple(sorted(needed, key=str.lower)))


@cache
def scoring_package() -> tuple[str, Mapping[str, str]]:
    """Name and files of the package: text without docstrings, comments and what only type
    checkers read.
    """
    texts = {
        f"{UNNAMED}/{path}": f"{ast.unparse(_renamed(tree))}\n"
        for path, tree in closure(ENTRY).items()
    }
    name = f"{UNNAMED}_{digest(json.dumps(texts, sort_keys=True).encode())[:12]}"
    return name, {
        place.replace(UNNAMED, name): text.replace(UNNAMED, name) for place, text in texts.items()
    }


def closure(entry: str) -> dict[str, ast.Module]:
    """What loads with a module of this package, by file: trees without what only readers and type
    checkers need.
    """
    root = Path(__file__).parents[1]
    trees: dict[str, ast.Module] = {}
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        place = root.joinpath(*module.split(".")[1:])
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        name = path.relative_to(root).as_posix()
        if name in trees or not path.is_file():  # or it is a name in a module
            continue
        trees[name] = _parsed(path)
        waiting += [one for one in _imported(trees[name]) if one.partition(".")[0] == PACKAGE]
        waiting.append(module.rpartition(".")[0] or PACKAGE)
    return dict(sorted(trees.items()))


@cache
def pinned(distribution: str) -> str:
    """A requirement by its public version: no index has what a local build calls itself."""
    return f"{distribution}=={version(distribution).partition('+')[0]}"


def _normal(requirement: str) -> str:
    """A requirement's distribution, by the one spelling that an index knows it by."""
    return re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower()


def strangers(requirements: str) -> list[str]:
    """Lines that ask an index for a distribution of ours.

    Versions up to 0.1.0 do: where it is found, it is another project.

    >>> strangers("selfheal==0.1.0\\nmlflow==3.13.0\\n")
    ['selfheal==0.1.0']
    """
    return [line for line in requirements.splitlines() if OURS.match(line)]


def _parsed(path: Path) -> ast.Module:
    """A module's tree without what only type checkers and readers need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _for_type_checkers(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def _imported(tree: ast.Module) -> Iterator[str]:
    """What a tree imports by its whole name, wherever it does: modules, and names in them."""
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """A tree's statements at any depth, without the expressions, which are most of a tree."""
    yield tree
    for block in ("body", "handlers", "cases", "orelse", "finalbody"):
        for node in getattr(tree, block, ()):
            yield from _statements(node)


@lru_cache(maxsize=5_000)
def _imported_by(text: str) -> tuple[str, ...]:
    """`_imported` of a file; who wraps several models reads the same ones again."""
    return tuple(_imported(ast.parse(text)))


def _renamed(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            top, dot, rest = node.module.partition(".")
            node.module = f"{UNNAMED}{dot}{rest}" if top == PACKAGE else node.module
    return tree


def _own_adapter(network: Mapping[str, Any]) -> OwnPart | None:
    """The network's adapter where it is not one of ours."""
    name = network.get("adapter", BUILT_IN["adapter"][0]).partition(":")[0]
    return None if name in BUILT_IN["adapter"] else part_of("adapter", name)


def _libraries(estimator: Mapping[str, Any]) -> Iterator[str]:
    """Modules that a model which is no torch network is read by, and those of the types in it."""
    if estimator and estimator["format"] != "pyfunc":  # whose folder has its own
        yield from {"skops": ("skops", "sklearn")}.get(estimator["format"], (estimator["format"],))
        yield from estimator["types"]


def _pins(estimator: Mapping[str, Any]) -> list[str]:
    """What the owner of a pyfunc wrote down for it."""
    is_pyfunc = estimator.get("format") == "pyfunc"
    pins = estimator["libraries"].items() if is_pyfunc else ()
    return [f"{name}=={version}" for name, version in pins]


def _modules_of(
    modules: Iterable[str], brought: Mapping[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Files of modules that no distribution owns, with what they import in turn, and those that the
    model ``brought``; and the distributions that own the others.
    """
    files = dict(brought)
    within = (one for text in brought.values() for one in _imported_by(text))
    waiting = [*modules, *within]
    known = _owners() if waiting else {}
    others: set[str] = set()
    done = {PACKAGE, *tops(brought)}
    while waiting:
        top = waiting.pop().partition(".")[0]
        if top in done or top in sys.stdlib_module_names:
            continue
        done.add(top)
        if top in known:
            others |= set(known[top])
            continue
        for place, path in _files(_spec(top)).items():
            files[place] = path.read_text(encoding="utf-8")
            waiting += _imported_by(files[place])
    return files, others


@cache
def _owners() -> Mapping[str, list[str]]:
    """The distributions of each name that can be imported; asking all of them takes a second."""
    return packages_distributions()


def _spec(top: str) -> ModuleSpec | None:
    """Where a module lies; the working folder is looked in last, as where a class is found."""
    sys.path.append(str(Path.cwd()))
    try:
        return find_spec(top)
    except ValueError:  # a module that was made by hand
        return None
    finally:
        sys.path.pop()


def _files(spec: ModuleSpec | None) -> dict[str, Path]:
    """The Python files of a module or package, by their place in an archive."""
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        folders = [Path(place) for place in spec.submodule_search_locations]
        return {
            path.relative_to(folder.parent).as_posix(): path
            for folder in folders
            for path in sorted(folder.rglob("*.py"))
        }
    path = Path(spec.origin or "")
    return {path.name: path} if path.suffix == ".py" and path.is_file() else {}


def _archive(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for place, text in sorted(files.items()):
            info = zipfile.ZipInfo(place, LONG_AGO)
            archive.writestr(info, text, zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()
