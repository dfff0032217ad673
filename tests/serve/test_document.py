"""The OpenAPI document says what really comes, whatever is sent: fuzzed by schemathesis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import PATIENCE
from tests.serve.conftest import Running

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance," + (
    "response_schema_conformance"
)


def test_every_answer_is_one_that_the_document_names(served: Running, tmp_path: Path) -> None:
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "run", f"{served.url}/openapi.json",
        "--checks", CHECKS, "--max-examples", "10", "--seed", "7", "--no-color",
        # orders need a healer; test_orders sends them to one
        "--exclude-path-regex", "^/operate/",
        # MLflow's own answers are no JSON; test_protocol holds them to its bytes
        "--exclude-path", "/ping", "--exclude-path", "/health", "--exclude-path", "/version",
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Test cases:" in done.stdout
