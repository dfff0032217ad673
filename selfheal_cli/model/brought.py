"""Code that came with a model (MLflow's ``code_paths``) and lies in its base, imported by name.

It comes after everything that is installed, so it shadows nothing. A name says nothing of what a
registry has under it, so code is allowed by its content (``code-`` and a part of its hash): by
wrapping the model, or as `allowed` says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import VARIABLE, allow, is_allowed
from selfheal_cli.records import digest

MOST = 4 << 20  # characters of all its files


class BroughtCode(MetaPathFinder, InspectLoader):
    """Modules by their texts; of two models' modules of one name the later one's are taken."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, str, bool]] = {}

    def add(self, code: Mapping[str, str]) -> None:
        """Files by their place under the folder that they were in."""
        for place, text in code.items():
            parts = place.removesuffix(".py").split("/")
            is_package = parts[-1] == "__init__"
            self._texts[".".join(parts[: -1 if is_package else None])] = (place, text, is_package)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called for what nobody else has."""
        if fullname not in self._texts:
            return None
        place, _, is_package = self._texts[fullname]
        return spec_from_loader(fullname, self, origin=f"<{place}>", is_package=is_package)

    def get_source(self, fullname: str) -> str:
        """A module's text; raises `ImportError`."""
        if fullname not in self._texts:
            raise ImportError(f"no module {fullname} came with a model")
        return self._texts[fullname][1]

    def is_package(self, fullname: str) -> bool:
        """Whether it may have modules within."""
        return self._texts[fullname][2]


_brought = BroughtCode()


def bring(code: Mapping[str, str]) -> None:
    """Let the modules of a base be imported; raises `ModelError` where nobody has allowed that and
    they are not here otherwise.
    """
    if not code:
        return
    if is_allowed(known_as(code)):
        allow(tops(code))
        _brought.add(code)
        if _brought not in sys.meta_path:
            sys.meta_path.append(_brought)
        return
    lacking = [top for top in tops(code) if top not in sys.modules and not is_here(top)]
    if lacking:
        raise ModelError(
            f"the model's base brings code of its own ({', '.join(lacking)}), which nobody has "
            f"allowed to run here: if you trust it, give --allow-module {known_as(code)} or set "
            f"{VARIABLE}={known_as(code)}"
        )


def known_as(code: Mapping[str, str]) -> str:
    """The name by which this very code is allowed.

    >>> known_as({"net.py": "X = 1"})
    'code-2454f2ab70a0'
    """
    return f"code-{digest(json.dumps(code, sort_keys=True).encode())[:12]}"


def code_in(folder: Path) -> dict[str, str]:
    """The Python files under a folder, by their place in it; raises `ModelError` for too many."""
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    if size > MOST:
        raise ModelError(
            f"{folder.name}: {len(files)} Python files of {size:,} bytes came with the model, and "
            f"{MOST:,} are stored with one: install them as a package"
        )
    return {path.relative_to(folder).as_posix(): _text(path) for path in files}


def is_here(top: str) -> bool:
    """Whether a module can be imported without what models bring."""
    try:
        spec = find_spec(top)
    except ValueError:  # a module that was made by hand
        return True
    if spec is not None and spec.loader is not _brought:
        return True
    return (Path.cwd() / f"{top}.py").exists() or (Path.cwd() / top).is_dir()


def tops(code: Mapping[str, str]) -> list[str]:
    """The names under which files are imported.

    >>> tops({"shop/net.py": "", "layers.py": ""})
    ['layers', 'shop']
    """
    return sorted({place.partition("/")[0].removesuffix(".py") for place in code})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ModelError(f"{path.name}, which came with the model, is not UTF-8 ({exc})") from exc
