"""Code that came with a model (MLflow's ``code_paths``) and lies in its base, imported by name.

It comes after everything that is installed, so it shadows nothing; and a module of it runs only
where the user allowed that, as `allowed` says: by wrapping the model, or by name.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import is_allowed

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
        if fullname not in self._texts or not is_allowed(fullname.partition(".")[0]):
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
    """Let the modules of a base be imported, where they are allowed."""
    if not code:
        return
    _brought.add(code)
    if _brought not in sys.meta_path:
        sys.meta_path.append(_brought)


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
