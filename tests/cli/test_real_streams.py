"""Real drifting streams, where they lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "options", "labels", "rows"),
    [
        ("elec.csv", ["--target", "class"], ["0", "1"], 800),
        ("bank-full.csv", ["--target", "y", "--drop", "duration"], ["no", "yes"], 1_600),
    ],
)
def test_a_real_stream_runs_prequentially(
    workdir: Path,
    invoke: Invoke,
    name: str,
    options: list[str],
    labels: list[str],
    rows: int,
) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not beside the checkout")
    result = invoke("run", str(DATA / name), *options, "--batches", "8", "--no-plots", "--json")
    document = json.loads(result.stdout)
    assert document["trained"]["labels"] == labels
    stages = {line["key"]: line for line in document["results"]["stages"]}
    assert list(stages) == ["baseline", "healed", "unhealed", "nothing", "everything"]
    assert all(line["rows"] == rows for key, line in stages.items() if key != "baseline")
