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
from selfheal_cli.serve.healer.supervisor import watch_parent
from selfheal_cli.serve.server import ended_by_signal, opened, run
from selfheal_cli.serve.settings import ServerSettings


class WorkerTask(Settings):
    """``listening`` is the number of the open socket, ``server`` the name of all processes."""

    settings: ServerSettings
    listening: int
    server: str


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
            run(front, listening, front.staff.start if front.staff else lambda: None)
    except SelfhealError as exc:
        sys.stderr.write(f"selfheal: {one_line(exc)}\n")
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
