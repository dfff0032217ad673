"""``selfheal serve --engine ray``: the application of `serve`, in replicas of Ray Serve.

Ray places, watches and begins replicas anew, and its proxies take the requests. What ties them
together is the log that they share, as without Ray: each takes any label and follows what the log
says that serves. One more deployment keeps the healer's process.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from selfheal_cli.engine.cluster import ADDRESS, connected
from selfheal_cli.errors import ConfigurationError, NoAnswer, one_line
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.app import create_app, guarded
from selfheal_cli.serve.healer import supervisor
from selfheal_cli.serve.healer.supervisor import Supervisor
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.http.model import load_champion
from selfheal_cli.serve.server import bound, ended_by_signal, opened, place, url_of
from selfheal_cli.serve.settings import HealerSettings, ServerSettings
from selfheal_cli.spool.store import Spool

READY_SECONDS = 300.0
LOOK_SECONDS = 0.2
AT_ONCE = 100  # requests that a replica answers; more wait at the proxy
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


class RayReplica:
    """A process that scores; Serve asks it for its application, and ends it."""

    def __init__(self, settings: str, healer: object) -> None:
        """``healer`` is named so that Serve begins it, too."""
        self._stack = ExitStack()
        told = ServerSettings.model_validate_json(settings)
        self._front = self._stack.enter_context(opened(told, ()))

    def __serve_build_asgi_app__(self) -> Any:
        """The application, behind its gate."""
        return self._front.tracing.traced(guarded(create_app(self._front), self._front))

    def __del__(self) -> None:
        """As Serve ends a replica."""
        self._stack.close()


class RayHealer:
    """Keeps the process that heals, with the segments' actors on the same cluster; where it is
    begun anew, the lease says who goes on.
    """

    def __init__(self, settings: str) -> None:
        import ray

        os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
        told = HealerSettings.model_validate_json(settings)
        self._supervisor = Supervisor(told, ServerMetrics(), supervisor.COMMAND)
        self._supervisor.start()

    def __del__(self) -> None:
        """As Serve ends a replica."""
        self._supervisor.stop()


def application(settings: ServerSettings, replicas: int) -> Any:
    """What Serve is to run. Raises `ConfigurationError` without a log that replicas share."""
    from ray import serve

    if settings.healer.log is None:
        raise ConfigurationError(
            "--engine ray: replicas on any machine need --log postgresql://USER@HOST/DATABASE"
        )
    folder = settings.healer.workspace.resolve()  # the same one on each node
    asked = settings.healer.overrides
    on_ray = {**asked, "heal": {**asked.get("heal", {}), "engine": "ray"}}
    told = settings.healer.model_copy(update={"workspace": folder, "overrides": on_ray})
    whole = settings.model_copy(update={"healer": told})
    healer = serve.deployment(RayHealer, name="healer", ray_actor_options={"num_cpus": 0})
    scoring = serve.deployment(
        serve.ingress()(RayReplica), name="replica", num_replicas=replicas,
        max_ongoing_requests=AT_ONCE, ray_actor_options={"num_cpus": 1},
    )  # fmt: skip
    return scoring.bind(whole.model_dump_json(), healer.bind(told.model_dump_json()))


def serve_on_cluster(
    settings: ServerSettings, replicas: int, on_ready: Callable[[str, int | None], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C by so many replicas; ``on_ready`` hears address and version.

    Raises as `connected` and `serve`, before anything is begun; `NoAnswer` where Serve fails.
    """
    with bound(settings.host, settings.port) as free:
        url, port = url_of(free), free.getsockname()[1]
    version = _checked(settings.healer)
    with connected(replicas), ended_by_signal():
        from ray import serve

        for name in ("ray.serve", "ray"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with _running(serve, application(settings, replicas), settings, port):
            on_ready(url, version)
            while True:
                signal.pause()


def _checked(healer: HealerSettings) -> int | None:
    """What is wrong with registry, model or log is said here; returns the version."""
    with closing(Spool(place(healer))):
        return load_champion(MlflowRegistry(healer.tracking_uri), healer.model).version


@contextmanager
def _running(serve: Any, app: Any, settings: ServerSettings, port: int) -> Iterator[None]:
    """The application, once all its replicas answer, and taken away in the end."""
    name = settings.healer.model
    try:
        serve.start(http_options={"host": settings.host, "port": port})
        target = serve.RunTarget(app, name=name, route_prefix="/")
        serve.run_many([target], wait_for_ingress_deployment_creation=False,
                       wait_for_applications_running=False)  # fmt: skip
    except Exception as exc:  # of many kinds
        raise NoAnswer(f"Ray Serve cannot be used: {one_line(exc)[:500]}") from exc
    try:
        _await(serve, name)
        yield
    finally:
        serve.delete(name)


def _await(serve: Any, name: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while (told := serve.status().applications[name]).status != "RUNNING":
        if told.status in FAILED or time.monotonic() > end:
            said = [one.message for one in told.deployments.values() if one.message]
            why = one_line(RuntimeError(" ".join([told.message, *said])))
            raise NoAnswer(f"'{name}' does not come up on Ray Serve ({told.status}): {why[-500:]}")
        time.sleep(LOOK_SECONDS)
