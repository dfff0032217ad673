"""One of several processes that score behind one port.

``python -P -m selfheal_cli.serve.worker`` with a `WorkerTask` as JSON on standard input. It ends
by SIGTERM, or when the process that began it is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from selfheal_cli.config_sources import Settings
from selfheal_cli.errors import SelfhealError, one_line
from selfheal_cli.estimators.describing import changed_libraries
from selfheal_cli.serve.healer.supervisor import watch_parent
from selfheal_cli.serve.http.model import ServedModel
from selfheal_cli.serve.server import ended_by_signal, opened, run
from selfheal_cli.serve.settings import ServerSettings


class WorkerTask(Settings):
    """``listening`` is the number of the open socket, ``server`` the name of all processes; one of
    them ``tells`` of the model what a person should know.
    """

    settings: ServerSettings
    listening: int
    server: str
    tells: bool = False


def main() -> int:
    """Answer until told to stop; returns the exit code."""
    task = WorkerTask.model_validate_json(sys.stdin.buffer.read())
    watch_parent(os.getppid(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with (
            ended_by_signal(),
            socket.socket(fileno=task.listening) as listening,
            opened(task.settings, (), task.server) as front,
        ):
            if task.tells:
                _tell(front.scorer.served, task.settings.healer.model)
            run(front, listening, front.staff.start if front.staff else lambda: None)
    except SelfhealError as exc:
        sys.stderr.write(f"selfheal: {one_line(exc)}\n")
        return exc.exit_code
    return 0


def _tell(served: ServedModel, model: str) -> None:
    if changed := changed_libraries(served.quick.encoding.model):
        sys.stderr.write(f"selfheal: '{model}' v{served.shown_version}: {changed}\n")


if __name__ == "__main__":
    sys.exit(main())
