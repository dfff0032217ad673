"""A Ray cluster: the one that ``RAY_ADDRESS`` names, else processes of this machine.

Whatever is wrong with it is said within half a minute, where Ray itself would wait for ever.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from selfheal_cli.errors import ConfigurationError, NoAnswer, one_line
from selfheal_cli.model import allowed

ADDRESS, LOCAL = "RAY_ADDRESS", "local"
PASSED_ON = (allowed.VARIABLE, "SELFHEAL_DEVICE")  # to the processes of the cluster
STATISTICS = "RAY_USAGE_STATS_ENABLED"  # nobody far away is told
SKIPPED = "RAY_DEDUP_LOGS_SKIP_REGEX"  # of what Ray would print among what a command prints
ANSWER_SECONDS = 20.0
FREE_SECONDS = 20.0
LOOK_SECONDS = 0.5
PROBE = """
import sys, ray
print(flush=True)
ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
"""


@contextmanager
def connected(cpus: int = 1) -> Iterator[int]:
    """Be connected to a cluster that has at least so many free CPUs; gives how many.

    Raises as `connect` does, and `ConfigurationError` where there are too few.
    """
    address = connect()
    import ray

    try:
        yield _free(address, cpus)
    finally:
        ray.shutdown()


def connect() -> str:
    """Connect this process until it ends, if it is not yet; gives the cluster's address.

    Raises as `require_cluster` does.
    """
    address = require_cluster()
    os.environ.setdefault(STATISTICS, "0")
    import ray

    if ray.is_initialized():
        return address
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            runtime_env={"env_vars": passed} if passed else None, **own,
        )  # fmt: skip
    except Exception as exc:  # of many kinds, by version
        raise NoAnswer(f"Ray cannot be used ({ADDRESS}={address}): {one_line(exc)}") from exc
    return address


def require_cluster() -> str:
    """The address of the cluster that is to be used.

    Raises `ConfigurationError` where Ray is not installed, and `NoAnswer` where the cluster does
    not answer.
    """
    require_ray()
    address = os.environ.get(ADDRESS) or LOCAL
    if address != LOCAL:
        _require_answer(address)
    return address


def require_ray() -> None:
    """Raise `ConfigurationError` where it is not installed. Call it before it is loaded: it says on
    stdout that a node died, unless it is told not to; it stands in its logs anyway.
    """
    if find_spec("ray") is None:
        raise ConfigurationError("Ray is not installed: pip install 'selfheal-cli[ray]'")
    os.environ.setdefault(SKIPPED, "^")


def has_cpus() -> bool:
    """Whether there is a node left that could compute."""
    import ray

    return bool(ray.cluster_resources().get("CPU", 0.0) >= 1)


def _require_answer(address: str) -> None:
    """Ask from another process: a client that finds nobody ends the one that it is in."""
    with subprocess.Popen(
        [sys.executable, "-c", PROBE, address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as asking:  # fmt: skip
        if asking.stdout is not None:
            asking.stdout.readline()  # it is loaded, and the time runs
        try:
            _, told = asking.communicate(timeout=ANSWER_SECONDS)
            said = told.strip().splitlines()[-1:] if asking.returncode else []
        except subprocess.TimeoutExpired:
            asking.kill()
            said = [f"no answer within {ANSWER_SECONDS:g} s"]
    if said:
        raise NoAnswer(
            f"the Ray cluster at {address} cannot be used: {said[0]}; see 'ray status', or unset "
            f"{ADDRESS} to work on this machine alone"
        )


def _free(address: str, cpus: int) -> int:
    """How many CPUs are free, once there are enough."""
    import ray

    end, free = time.monotonic() + FREE_SECONDS, 0
    while time.monotonic() < end:
        free = int(ray.available_resources().get("CPU", 0))
        if free >= cpus:
            return free
        time.sleep(LOOK_SECONDS)
    total = int(ray.cluster_resources().get("CPU", 0))
    raise ConfigurationError(
        f"the Ray cluster ({ADDRESS}={address}) has {free} free of {total} CPUs, and {cpus} are "
        "needed: add nodes, or wait until others are done"
    )
