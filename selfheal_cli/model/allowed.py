"""Which modules a registered version may import: a base names classes, and importing one runs code.

The names come from the registry, where others may write, so a name alone is not enough. Allowed
are torch, modules that the program has loaded by itself, and those that the user named: with
``--allow-module``, in the variable, or by wrapping the model. A module among a registry's files is
never imported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path

from selfheal_cli.errors import ModelError

VARIABLE = "SELFHEAL_ALLOW_MODULE"  # names, separated by commas; a child process has it as well
TORCH = "torch"
ARTIFACTS = re.compile(r"(^|/)(mlruns|mlartifacts|(m-)?[0-9a-f]{32}/artifacts)/")
_by_mlflow: ContextVar[bool] = ContextVar("by_mlflow", default=False)


def is_allowed(name: str) -> bool:
    """Whether the user named a module or a type, or what it is in."""
    known = (*_named(), *_remembered())
    return _by_mlflow.get() or any(_is_in(name, one) for one in known)


def require_allowed(place: str) -> None:
    """Raise `ModelError` for a module that is not allowed, or that lies among a registry's files.

    Finding a module runs the packages that it is in, so each of them is checked first.
    """
    if place in sys.modules or _by_mlflow.get():
        return
    top = place.partition(".")[0]
    if not any(_is_in(place, name) for name in (TORCH, *_named(), *_remembered())):
        raise ModelError(
            f"the model's base names the module '{place}', which nobody has allowed to run here: "
            f"if you trust it, give --allow-module {top} or set {VARIABLE}={top}"
        )
    parts = place.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name not in sys.modules:
            _require_no_artifact(name)


def allow(names: Iterable[str]) -> None:
    """Allow modules, and what is in them, in this process and those that it starts."""
    kept = dict.fromkeys([*_named(), *filter(None, names)])
    if kept:
        os.environ[VARIABLE] = ",".join(kept)


def remember(places: Iterable[str]) -> None:
    """Allow modules for this user from now on; without effect where the file cannot be written."""
    new = {place for place in places if not _is_in(place, TORCH)} - set(_remembered())
    if not new:
        return
    with suppress(OSError):
        path = _record()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as kept:
            kept.writelines(f"{name}\n" for name in sorted(new))


@contextmanager
def asked_by_mlflow() -> Iterator[None]:
    """Allow every module within the block: MLflow loads a version, whose caller trusts it."""
    token = _by_mlflow.set(True)
    try:
        yield
    finally:
        _by_mlflow.reset(token)


def _require_no_artifact(name: str) -> None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return  # the import says so
    locations = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    for location in filter(None, locations):
        path = Path(location).resolve()
        if ARTIFACTS.search(f"{path.as_posix()}/"):
            raise ModelError(
                f"the module '{name}' is {path}, where a registry keeps files: nothing there is run"
            )


def _is_in(place: str, name: str) -> bool:
    return place == name or place.startswith(f"{name}.")


def _named() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def _remembered() -> list[str]:
    try:
        return _record().read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []


def _record() -> Path:
    """The user's own file: not below the working folder, where a registry may write."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "selfheal" / "allowed-modules"
