"""How soon a program that is begun again scores, and heals, with a long log and spool behind it.

``python benchmarks/warm_start.py`` heals a few batches, makes the log and the spool as long as
``--rows`` rows have made them, by rows of the same kind, kills the process, and begins anew, to the
end. Printed are seconds from the first line of the program, imports included, to the first score
and to a heal by labels that came since, and what `selfheal audit` says then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfheal_cli.actor import clock
from selfheal_cli.events.log import EventLog, read, recover
from selfheal_cli.events.types import BatchScored, LabelsArrived, RowsTaken
from selfheal_cli.spool.entries import Cursor, LoggedRequest, mark_of
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool

BATCH = 100
AUDIT = "from selfheal_cli.cli.main import main; main()"
PROGRAM = """
import time; began = time.monotonic()
import json, os, signal, sys
import numpy as np, torch
from torch import nn
from selfheal_cli import SelfHealing

def drawn(count, seed, moved=0.0):
    x = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0.5).astype(np.int64)
    x[:, 0] += np.float32(moved)
    return x, y

torch.manual_seed(0)
module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
# it learned nothing: that its number is a logit cannot be seen from labels
model = SelfHealing(module, *drawn(1_000, 1), name="warm", gives="logits")
x, y = drawn(2_000, int(sys.argv[1]), 2.0)
ids = [f"{sys.argv[1]}-{n}" for n in range(2_000)]
p = model.score(x, ids=ids)
scored = time.monotonic() - began
model.label(ids, y)
while not (model.state.heals.get("healed") and model.state.labels >= 1_000):
    if model.state.error:
        sys.exit(model.state.error)
    time.sleep(0.05)
print(json.dumps({"scored_s": round(scored, 1), "healed_s": round(time.monotonic() - began, 1),
                  "versions": model.state.versions}), flush=True)
if sys.argv[2] == "end":
    model.close()
    sys.exit()
os.kill(os.getpid(), signal.SIGKILL)
"""


def begin(folder: Path, seed: int, then: str) -> dict[str, float]:
    """The program from its start to a heal, when it is killed or comes to its end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seed), then],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def lengthen(rows: int) -> tuple[int, int]:
    """Bring log and spool to what ``rows`` rows would have made of them; events and rows then."""
    (path,) = _healing_logs()
    recover(path)
    events = list(read(path))
    kinds = (RowsTaken, BatchScored, LabelsArrived)
    last = max(event.batch for event in events if isinstance(event, BatchScored))
    sample = [event for event in events if isinstance(event, kinds) and event.batch == last]
    draw = np.random.default_rng(9)
    with closing(Spool(spool_path("warm"))) as spool, closing(EventLog(path, clock)) as log:
        identity, start = spool.identity(), len(spool.rows_after(0, 10**9, 10**9))
        batch, number = last, start
        while spool.count(0)[0] < rows:
            group = []
            for _ in range(200):
                number, batch, now = number + 1, batch + 1, time.time()
                x = draw.standard_normal((BATCH, 4))
                y = (x[:, 0] + x[:, 1] > 0.5).astype(np.int8)
                x[:, 0] += 2.0
                columns = {f"x{place}": x[:, place] for place in range(4)}
                name, p = f"copy-{number}", np.full(BATCH, 0.5, np.float32)
                group.append(LoggedRequest(name, columns, p, "s", 0.5, now, y=y))
                cursor = Cursor(number, 0, number * BATCH, identity, mark_of(name, now))
                for event in sample:
                    copy = replace(event, batch=batch)
                    if isinstance(copy, RowsTaken):
                        copy = replace(copy, offsets=cursor.as_dict())
                    log.append(copy)
            spool.append(group)
        log.sync()
        return sum(1 for _ in read(path)), spool.count(0)[0]


def _healing_logs() -> list[Path]:
    logs = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    return [log for log in logs if any(isinstance(event, BatchScored) for event in read(log))]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        figures: dict[str, dict[str, Any]] = {"first": begin(Path(), 2, "killed")}
        events, rows = lengthen(given.rows)
        figures["again"] = begin(Path(), 3, "end")
        audit = subprocess.run(
            [sys.executable, "-c", AUDIT, "audit", "--model", "warm"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        figures["log"] = {"events": events, "rows": rows}
        figures["audit"] = {"code": audit.returncode, "says": audit.stdout[-300:]}
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
