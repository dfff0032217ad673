"""docs/api.md and the notebook do what they say."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tests.test_api import module, rows_of

__all__ = ["module"]
pytestmark = pytest.mark.usefixtures("forked_worker")
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_line_of_the_page_does_what_it_says(workdir: Path, module: nn.Module) -> None:
    def moved(n: int, seed: int, moved: float = 0.0) -> Any:
        return rows_of(n, seed, moved)

    x, y = rows_of(600, 5)
    pd.DataFrame(x, columns=["age", "amount", "rate", "days"]).assign(y=y).to_csv(
        "stream.csv", index=False
    )
    given = {"trained": module, "rows_of": moved}
    page = (ROOT / "docs" / "api.md").read_text()
    test = doctest.DocTestParser().get_doctest(page, given, "docs/api.md", "docs/api.md", 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(workdir: Path) -> None:
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        assert cell.get("outputs", []) == []  # a run's figures are not kept in the repository
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)  # noqa: S102
    state = scope["state"]
    assert "<table>" in state._repr_html_()
    assert state.labels == 600
    assert np.isfinite(scope["after"])
