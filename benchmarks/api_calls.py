"""What a call of the API costs beside the bare module's own forward.

``python benchmarks/api_calls.py`` prints p50 and p99 in milliseconds: of the module's forward and
of `predict` for one numpy row, each after the other, so that both meet the same machine; of `score`
with an id, and of a DataFrame; and what a version takes on disk and in memory by the model's size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from selfheal_cli import SelfHealing

COLUMNS = 12


def module_of(width: int, layers: int) -> nn.Module:
    """An ordinary network of two classes."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Linear(COLUMNS, width), nn.ReLU()]
    for _ in range(layers):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, 1)).eval()


def decided(module: nn.Module, x: Any) -> Any:
    """Classes that an untrained network ranks well: those of its own upper half."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(x)).squeeze(-1)
    return (logits > logits.median()).numpy().astype(np.int64)


def milliseconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def told(times: list[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    return {"p50_ms": round(float(np.percentile(times, 50)), 4),
            "p99_ms": round(float(np.percentile(times, 99)), 4)}  # fmt: skip


def calls(width: int, layers: int, count: int) -> dict[str, Any]:
    """Figures of one model, called in turn."""
    module = module_of(width, layers)
    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((1_000, COLUMNS)).astype(np.float32)
    y = decided(module, x)
    row, tensor = x[:1].copy(), torch.from_numpy(x[:1].copy())
    model = SelfHealing(module, x, y, name=f"w{width}x{layers}")
    table = pd.DataFrame(row, columns=[f"x{place}" for place in range(COLUMNS)])
    while not (state := model.state).run_id:  # once what heals has begun, and waits
        if state.error:
            raise SystemExit(state.error)
        time.sleep(0.2)

    def bare() -> None:
        with torch.inference_mode():
            torch.sigmoid(module(tensor)).squeeze(-1).numpy()

    number = iter(range(10**9))
    ways: dict[str, Callable[[], Any]] = {
        "forward": bare,
        "predict": lambda: model.predict(row),
        "score with an id": lambda: model.score(row, ids=[next(number)]),
        "score of a DataFrame with an id": lambda: model.score(table, ids=[next(number)]),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, call in ways.items():
            times[name].append(milliseconds(call))
    figures: dict[str, Any] = {name: told(values) for name, values in times.items()}
    ratio = [figures["predict"][p] / figures["forward"][p] for p in ("p50_ms", "p99_ms")]
    figures["predict beside forward"] = [round(one, 3) for one in ratio]
    model.close()
    return figures


def memory(width: int, layers: int) -> dict[str, Any]:
    """What a model's versions take: on disk, and of the process by the kernel's count."""
    module = module_of(width, layers)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    x = np.random.default_rng(0).standard_normal((500, COLUMNS)).astype(np.float32)
    before = _resident()
    name = f"m{width}x{layers}"
    model = SelfHealing(module, x, decided(module, x), name=name)
    model.observe(x[:200], decided(module, x[:200]))
    state = model.close().state
    disk = sum(one.stat().st_size for one in Path("mlruns").rglob("*") if one.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "weights_mb": round(weights / 1e6, 2),
        "versions": state.versions,
        "disk_mb": round(disk / 1e6, 2),
        "process_mb": round((_resident() - before) / 1e6, 1),
        "peak_mb": round(peak / 1e3, 1),
    }


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Read the options, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=1_024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--memory", action="store_true", help="of one model of this size")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        figures = (
            memory(given.width, given.layers) if given.memory
            else calls(given.width, given.layers, given.count)
        )  # fmt: skip
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
