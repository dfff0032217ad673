"""What a call of the API costs beside the bare module's own forward.

``python benchmarks/api_calls.py`` prints p50 and p99 in milliseconds: of the module's forward and
of `predict` for one numpy row, in rounds, so that both meet the same machine, on one thread; of
`score` with an id, and of a DataFrame, which what heals beside them works on; and what a version
takes on disk and in memory by the model's size. ``cpu_ms`` is what the calling thread computed,
which a busy machine does not stretch. The first calls of each round do not count: the module and
the network have weights of their own, and two that take turns call by call push those of the other
out of the processor's cache, which no program does. ``again`` is the forward once more, of a copy:
how far two that are the same are apart here. A ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import copy
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
ROUND, UNCOUNTED = 20, 5  # calls


def module_of(width: int, layers: int, *, attention: bool = False) -> nn.Module:
    """An ordinary network of two classes."""
    torch.manual_seed(0)
    if attention:  # a token a column: few weights, each used often
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        return nn.Sequential(
            nn.Unflatten(1, (COLUMNS, 1)), nn.Linear(1, width),
            nn.TransformerEncoder(layer, layers, enable_nested_tensor=False),
            nn.Flatten(), nn.Linear(COLUMNS * width, 1),
        ).eval()  # fmt: skip
    parts: list[nn.Module] = [nn.Linear(COLUMNS, width), nn.ReLU()]
    for _ in range(layers):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, 1)).eval()


def decided(module: nn.Module, x: Any) -> Any:
    """Classes that an untrained network ranks well: those of its own upper half."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(x)).squeeze(-1)
    return (logits > logits.median()).numpy().astype(np.int64)


def milliseconds(call: Callable[[], Any]) -> tuple[float, float]:
    """How long one call takes, and how long its thread computes."""
    began, computed = time.perf_counter(), time.thread_time()
    call()
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.thread_time() - computed)


Times = dict[str, list[list[tuple[float, float]]]]  # of each call of each round of each way


def told(rounds: list[list[tuple[float, float]]]) -> dict[str, float]:
    """The median and the 99th percentile, and the median of what was computed."""
    passed, computed = np.array(rounds).reshape(-1, 2).T
    return {"p50_ms": round(float(np.percentile(passed, 50)), 4),
            "p99_ms": round(float(np.percentile(passed, 99)), 4),
            "cpu_ms": round(float(np.percentile(computed, 50)), 4)}  # fmt: skip


def in_turn(ways: dict[str, Callable[[], Any]], count: int) -> Times:
    """Each of the ways after the other in rounds, so often."""
    times: Times = {name: [] for name in ways}
    for _ in range(-(-count // ROUND)):
        for name, call in ways.items():
            times[name].append([milliseconds(call) for _ in range(UNCOUNTED + ROUND)][UNCOUNTED:])
    return times


def beside(times: Times, name: str, other: str) -> dict[str, float]:
    """The ratio of two ways: the median over rounds of that of their medians; of p99 of all."""
    ratios = np.median(times[name], axis=1) / np.median(times[other], axis=1)
    passed, computed = np.median(ratios, axis=0)
    p99 = told(times[name])["p99_ms"] / told(times[other])["p99_ms"]
    return {"p50": round(float(passed), 3), "p99": round(p99, 3),
            "cpu": round(float(computed), 3)}  # fmt: skip


def calls(width: int, layers: int, count: int, *, attention: bool) -> dict[str, Any]:
    """Figures of one model, called in turn."""
    module = module_of(width, layers, attention=attention)
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

    def bare(one: nn.Module) -> None:
        with torch.inference_mode():
            torch.sigmoid(one(tensor)).squeeze(-1).numpy()

    number, second = iter(range(10**9)), copy.deepcopy(module)
    times = in_turn({
        "forward": lambda: bare(module),
        "again": lambda: bare(second),
        "predict": lambda: model.predict(row),
        "score with an id": lambda: model.score(row, ids=[next(number)]),
        "score of a DataFrame with an id": lambda: model.score(table, ids=[next(number)]),
    }, count)  # fmt: skip
    figures: dict[str, Any] = {name: told(rounds) for name, rounds in times.items()}
    for name in list(times)[1:]:
        figures[f"{name} beside forward"] = beside(times, name, "forward")
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
    parser.add_argument("--attention", action="store_true", help="layers of attention, not linear")
    parser.add_argument("--memory", action="store_true", help="of one model of this size")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        figures = (
            memory(given.width, given.layers) if given.memory
            else calls(given.width, given.layers, given.count, attention=given.attention)
        )  # fmt: skip
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
