"""What a contestant costs: time, processor, memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter, process_time

SECONDS, PROCESSOR, MEMORY = "seconds", "processor_seconds", "memory_mb"
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PEAK = "5"  # what Linux takes as: forget the highest resident size so far
KB_A_MB = 1_024


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Figures that are there after the block: seconds, those of a processor, and by how many MB
    this process grew at most; the latter on Linux alone.
    """
    figures: dict[str, float] = {}
    gc.collect()
    with suppress(OSError, AttributeError):  # so that what others freed is no room for this one
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        CLEAR.write_text(PEAK)
    before, begun = _resident(), (perf_counter(), process_time())
    yield figures
    figures[SECONDS] = perf_counter() - begun[0]
    figures[PROCESSOR] = process_time() - begun[1]
    after = _resident()
    if before and after:
        figures[MEMORY] = max(0, after["VmHWM"] - before["VmRSS"]) / KB_A_MB


def _resident() -> dict[str, int]:
    """KB by name, of what is in memory now and was at most; empty where nobody says."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "VmRSS")))
    return {name.rstrip(":"): int(size) for name, size, _ in fields}
