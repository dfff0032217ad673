"""docs/serving-protocol.md and deploy/ do not lie: what they call is answered as they say."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from selfheal_cli.cli.main import main
from selfheal_cli.cli.serve import command as serve
from tests.conftest import PATIENCE
from tests.serve.conftest import Running, serving

TEXT = (Path(__file__).parents[2] / "docs/serving-protocol.md").read_text()
CALLS = [
    call
    for block in re.findall(r"^```\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    for call in re.findall(r"^curl .*?(?=^curl |\Z)", block, re.DOTALL | re.MULTILINE)
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_every_call_of_the_page_is_answered_as_it_says(article_run: Path, tmp_path: Path) -> None:
    assert len(CALLS) == 6
    answers = []
    with serving(article_run, tmp_path, key="order") as served:
        for call in CALLS:
            asked = call.replace("http://127.0.0.1:5001", served.url).replace("curl -s", "curl -sf")
            done = subprocess.run(
                ["bash", "-c", asked], stdout=subprocess.PIPE, text=True, check=True
            )
            answers.append(json.loads(done.stdout))
    scored, kept, told, model, inferred, first = answers
    shown = re.search(r'`\{"predictions": \[([\d.]+)\.\.\.\]\}`', TEXT)
    assert shown is not None and str(scored["predictions"][0]).startswith(shown[1])
    assert len(kept["predictions"]) == len(first["predictions"]) == 1
    assert told == {"joined": 1, "repeated": 0, "unknown": 0, "contradicting": 0, "corrected": 0}
    assert model["name"] == "fraud"
    assert [one["name"] for one in inferred["outputs"]] == ["probability"]


def test_mlflows_server_refuses_csv_as_the_page_says(served: Running, mlflow_server: str) -> None:
    import requests

    names = served.rows()["columns"]
    table = ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n"
    answer = requests.post(
        f"{mlflow_server}/invocations",
        data=table,
        headers={"content-type": "text/csv"},
        timeout=PATIENCE,
    )
    assert answer.status_code == 400


def test_every_command_line_that_serves_has_options_that_there_are() -> None:
    root = Path(__file__).parents[2]
    pages = [root / "docs/serving.md", root / "deploy/fraud.service"]
    lines = [line for page in pages
             for line in re.findall(r"selfheal serve [^\n`\"]+", page.read_text())]  # fmt: skip
    compose = yaml.safe_load((root / "deploy/compose.yaml").read_text())
    _, stateful = yaml.safe_load_all((root / "deploy/kubernetes.yaml").read_text())
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    (written,) = re.findall(
        r"^CMD (\[.*\])$", (root / "deploy/Dockerfile").read_text(), re.MULTILINE
    )
    commands = [
        *map(shlex.split, lines),
        json.loads(written),
        compose["services"]["fraud"]["command"],
        container["args"],
    ]
    assert len(commands) == 6
    for command in commands:
        # with its parent: click remembers a command's help option as it first was
        parent = click.Context(main, info_name="selfheal", **main.context_settings)
        context = serve.make_context("serve", command[2:], parent=parent, resilient_parsing=True)
        assert context.params["name"] == "fraud"
