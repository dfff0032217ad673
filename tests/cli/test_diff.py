"""Two versions side by side."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import Invoke


def test_two_versions_differ_in_figures_weights_and_decisions(
    in_article_run: Path, invoke: Invoke
) -> None:
    comparison = json.loads(invoke("diff", "1", "51", "--json").stdout)
    assert comparison["metrics"]["f1"][0] > comparison["metrics"]["f1"][1]
    assert comparison["tags"]["selfheal.phase"] == ["baseline", "post-heal"]
    squares = sum(d["distance"] ** 2 for name, d in comparison["weights"].items() if name != "all")
    assert abs(comparison["weights"]["all"]["distance"] - squares**0.5) < 1e-9
    assert 0 < comparison["decided_differently"] < comparison["probe_rows"] == 256
    shown = invoke("diff", "1", "51").stdout
    assert re.search(r"f1 .* 0\.75\d\d .* -0\.\d{4}", shown)
    assert "of 256 probe rows differently" in shown


def test_a_version_is_the_same_as_what_it_was_copied_from(
    in_article_run: Path, invoke: Invoke
) -> None:
    """The snapshot before a heal holds the weights that served until then."""
    comparison = json.loads(invoke("diff", "3", "4", "--json").stdout)
    assert comparison["weights"]["all"]["distance"] == 0
    assert comparison["decided_differently"] == 0


def test_an_unknown_version_is_exit_4(in_article_run: Path, invoke: Invoke) -> None:
    assert "no version 999" in invoke("diff", "1", "999", expect=4).stderr
