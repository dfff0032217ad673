"""The examples, at a small size: each drifts, is healed, and is rolled back."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.api import SelfHealing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("digits", "healed", "mlp", "sequences"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


@pytest.mark.parametrize(
    ("name", "function", "rows", "gain"),
    [
        ("digits", "heal", 700, 0.1),
        ("mlp", "main", 1_000, 0.05),
        ("sequences", "main", 1_000, 0.03),
    ],
)
def test_it_drifts_is_healed_and_rolled_back(
    example: Any, capsys: pytest.CaptureFixture[str], name: str, function: str, rows: int,
    gain: float,
) -> None:  # fmt: skip
    story = getattr(example(name), function)(rows, name=name)
    assert story.rows == rows
    assert story.healed > story.no_heal + gain
    assert story.healed > story.majority
    assert story.heals > 1
    assert MlflowRegistry().alias(name, "champion") == story.restored
    said = capsys.readouterr().out
    assert f"healed     {story.healed:.3f}   {rows}" in said
    assert f"rolled back to version {story.restored}" in said


def test_the_camera_loses_contrast_and_shifts(example: Any) -> None:
    digits = example("digits")
    (clean, _), (stream, _) = digits.rows()
    aged = digits.aged(clean)
    np.testing.assert_allclose(aged[:, 1:], 0.35 + 0.45 * clean[:, :-1])
    quarter = len(stream) // 4
    assert stream[quarter:].std() < 0.6 * stream[:quarter].std()


def test_the_lines_of_the_page_about_models_heal_before_the_convolutions(example: Any) -> None:
    page = (EXAMPLES.parent / "docs" / "models.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    digits = example("digits")
    known, stream = digits.rows()
    (x, y), (rows, labels) = (
        (pictures[:300, None].astype(np.float32), of[:300]) for pictures, of in (known, stream)
    )
    given = {"SelfHealing": SelfHealing, "module": digits.fitted(known, 1),
             "x": x, "y": y, "rows": rows, "labels": labels}  # fmt: skip
    exec(compile(lines, "models.md", "exec"), given)  # noqa: S102 (the page's own lines)
    view = given["model"].finished.view  # type: ignore[attr-defined]
    assert sum(row.rows for row in view.rows.values()) == 300
    assert any(row.phase == "post-heal" for row in view.snapshots.values())
