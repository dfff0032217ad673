"""What a model takes, gives and costs is said before anything is registered."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow import MlflowClient

from tests.conftest import Invoke


def test_a_model_is_told_of_at_80_columns_and_nothing_is_registered(
    workdir: Path, invoke: Invoke
) -> None:
    arguments = ("check-model", "--from", "tests.model.instances:Added")
    said = invoke(*arguments).stdout
    assert max(map(len, said.splitlines())) <= 80
    for told in ("takes    float32 (n, 8)", "reflexive after the model's output",
                 "anchored, ensemble, gradient", "KB a version",
                 "One unbounded number a row"):  # fmt: skip
        assert told in said
    told = json.loads(invoke(*arguments, "--json").stdout)
    assert (told["kind"], told["classes"], told["at"]) == ("logits", 2, "output")
    assert told["version_kb"] < 1 < told["base_kb"]
    assert not MlflowClient().search_registered_models()


def test_what_cannot_be_wrapped_is_refused_by_its_reason(workdir: Path, invoke: Invoke) -> None:
    arguments = ("check-model", "--from", "tests.model.instances:TwoInputs", "--input", "tokens:8")
    assert "takes 2 inputs (numbers, tokens)" in invoke(*arguments, expect=3).stderr
    two = ("--input", "numbers=5", "--input", "tokens=tokens:3", "--gives", "score")
    told = json.loads(invoke(*arguments[:3], *two, "--json").stdout)
    assert (told["classes"], told["columns"]) == (3, 8)
    assert "--input" in invoke(*arguments[:3], "--input", "5-3", expect=2).stderr
