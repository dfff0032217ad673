"""The OpenAPI documents, ours and the protocol's own, hold whatever is sent: by schemathesis."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from selfheal_cli.serve.operator import routes
from selfheal_cli.serve.operator.status import HEALER
from tests.conftest import DEPTH, PATIENCE
from tests.serve.conftest import Running, serving
from tests.serve.operating import ANSWERS, WORSE, Healer

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance," + (
    "response_schema_conformance"
)
COPY = "OPEN_INFERENCE_PROTOCOL"  # names a copy of the document, where the net is away
PUBLISHED = (
    "https://raw.githubusercontent.com/kserve/open-inference-protocol/"
    "18d5991e9e45d291f53103cc79e13ecc6212ffae/specification/protocol/open_inference_rest.yaml"
)


def fuzzed(folder: Path, document: str, *more: str) -> None:
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "run", document, "--max-examples", str(3 * DEPTH), "--seed", "7", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none", *more,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, timeout=3 * PATIENCE
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Test cases:" in done.stdout


def test_whatever_is_asked_or_ordered_the_answer_is_one_that_the_document_names(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(routes.operator_routes, "__defaults__", (PATIENCE, None))
    with serving(short_run, tmp_path / "served", key="order") as running:
        channel = running.front.channel
        channel.set_status(HEALER, WORSE.as_status())
        with Healer(channel, ANSWERS):
            fuzzed(
                tmp_path, f"{running.url}/openapi.json", "--checks", CHECKS,
                # MLflow's own answers are no JSON; test_protocol holds them to its bytes
                "--exclude-path", "/ping", "--exclude-path", "/health",
                "--exclude-path", "/version",
            )  # fmt: skip


@pytest.fixture
def protocol(served: Running) -> dict[str, object]:
    """The Open Inference Protocol's document, of the model and the version that serve."""
    copy = os.environ.get(COPY)
    try:
        if copy:
            text = Path(copy).read_text(encoding="utf-8")
        else:
            with urllib.request.urlopen(PUBLISHED, timeout=20) as answer:
                text = answer.read().decode()
    except (urllib.error.URLError, TimeoutError) as exc:
        pytest.skip(f"the protocol's document cannot be had ({exc}); {COPY} names a copy")
    document: dict[str, object] = yaml.safe_load(text.replace("${", "{"))
    asked = {"MODEL_NAME": "fraud", "MODEL_VERSION": str(served.front.scorer.served.version)}
    for path in document["paths"].values():  # type: ignore[attr-defined]
        for parameter in path.get("parameters", ()):
            parameter["schema"]["enum"] = [asked[parameter["name"]]]
    return document


@pytest.mark.slow
def test_the_protocols_own_document_gets_no_failure_of_the_server(
    served: Running, protocol: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "protocol.yaml").write_text(yaml.safe_dump(protocol))
    fuzzed(
        tmp_path, "protocol.yaml", "--url", served.url, "--checks",
        "not_a_server_error,response_schema_conformance,content_type_conformance",
    )  # fmt: skip
