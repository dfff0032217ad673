"""The numeric build: libraries and processor, on which the last bits of a figure depend."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info

from selfheal_cli.events.types import RunStarted
from selfheal_cli.installed import other_versions

CHANGED = "the data or the installed packages have changed since"


@cache
def numeric_build() -> dict[str, str | int]:
    """Versions, processor and threads, as a run records them.

    ``blas`` is the kernel that OpenBLAS chose for the processor; "none" is what is not installed.
    """
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scipy": _version("scipy"),
        "lightgbm": _version("lightgbm"),
        "blas": _blas(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def why_other_bytes(started: RunStarted) -> str:
    """Why the same rows give something else than this run recorded.

    On another build or processor they may, and nobody has touched the record. Where no build was
    recorded, the versions of packages must tell.
    """
    others = other_versions(started.parts)
    if others:
        return f"it was made with another version of a package ({'; '.join(others)}): install that"
    recorded, here = started.build, numeric_build()
    if recorded is None:
        was = started.versions.get("torch")
        if was in (None, here["torch"]):
            return f"{CHANGED}, or it was another processor, which was not recorded then"
        recorded, here = {"torch": was}, {"torch": here["torch"]}
    different = [name for name in recorded if recorded[name] != here.get(name)]
    if not different:
        return CHANGED
    listed = "; ".join(f"{name} {recorded.get(name)}, here {here.get(name)}" for name in different)
    return (
        f"it was recorded on another processor or build ({listed}), where the last bits of a "
        "figure may differ: go on there, or begin a new run here"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _blas() -> str:
    cores = {str(one.get("architecture", "")) for one in threadpool_info()} - {"", "None"}
    return " ".join(sorted(cores)) or "none"


def _processor() -> str:
    """The processor's model name where the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
