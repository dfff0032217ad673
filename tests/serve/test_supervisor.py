"""The healer's process: told its settings, begun again, ended in order."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from selfheal_cli.serve.healer import supervisor
from selfheal_cli.serve.healer.supervisor import Supervisor
from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.settings import HealerSettings, Priority
from tests.conftest import PATIENCE, until

SETTINGS = HealerSettings(model="fraud", actor="test")
LIVES = """
import os, signal, sys, time
open(sys.argv[1], "a").write(sys.stdin.read() + "\\n")
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "a").write("ended\\n"), sys.exit(0)))
open(sys.argv[1], "a").write(f"{os.nice(0)} {os.sched_getscheduler(0)} {os.getsid(0)}\\n")
time.sleep(600)
"""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


IDLE, NORMAL = os.SCHED_IDLE, os.SCHED_OTHER


@pytest.mark.parametrize(
    ("priority", "niceness", "scheduling"),
    [
        ("idle", supervisor.NICENESS, IDLE),
        ("low", supervisor.NICENESS, NORMAL),
        ("normal", -20, NORMAL),  # as the server, whatever that is
    ],
)
def test_it_is_told_its_settings_gives_way_as_wanted_and_ends_in_order(
    tmp_path: Path, priority: Priority, niceness: int, scheduling: int
) -> None:
    settings = SETTINGS.model_copy(update={"priority": priority})
    said = tmp_path / "said"
    healer = Supervisor(settings, ServerMetrics(), (sys.executable, "-S", "-c", LIVES, str(said)))
    healer.start()
    until(lambda: len(lines(said)) == 2)
    assert HealerSettings(**json.loads(lines(said)[0])) == settings
    # in the server's session: in one of its own, niceness would count for nothing
    assert lines(said)[1] == f"{max(niceness, os.nice(0))} {scheduling} {os.getsid(0)}"
    assert healer.pid is not None
    healer.stop(PATIENCE)
    assert lines(said)[2:] == ["ended"]
    assert (healer.pid, healer.restarts) == (None, 0)


def test_one_that_ends_by_itself_is_begun_again_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.01)
    meters = ServerMetrics()
    healer = Supervisor(SETTINGS, meters, (sys.executable, "-S", "-c", "raise SystemExit(1)"))
    healer.start()
    until(lambda: healer.restarts >= 3)
    healer.stop()
    counted = meters.registry.get_sample_value("selfheal_healer_restarts_total")
    assert counted == healer.restarts


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    stubborn += "sys.stdin.read(); open(sys.argv[1], 'w').write('x'); time.sleep(600)"
    said = tmp_path / "said"
    healer = Supervisor(
        SETTINGS, ServerMetrics(), (sys.executable, "-S", "-c", stubborn, str(said))
    )
    healer.start()
    until(lambda: bool(lines(said)))
    healer.stop(patience=0.1)
    assert healer.pid is None
