"""Forks of a process with SQLite files open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, threading
from pathlib import Path
from selfheal_cli.forks import at_work, expect_forks
from selfheal_cli.registry.outbox import Job, Outbox
from selfheal_cli.spool.file import SpoolFile

closed, done = [], []
expect_forks(lambda: closed.append(True))
files = {
    "outbox": Outbox(Path("outbox.db")),
    "spool": SpoolFile(Path("spool.db"), "CREATE TABLE IF NOT EXISTS t (a)"),
}
files["outbox"].put([Job("a", "kind", {})])
identity = files["spool"].identity()
begun, forking = threading.Event(), threading.Event()


def work():
    with at_work():
        begun.set()
        forking.wait()
        done.append(True)


thread = threading.Thread(target=work)
thread.start()
begun.wait()
os.register_at_fork(before=forking.set)  # the handler that came last is called first
child = os.fork()
opened = [os.readlink(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")
          if os.path.lexists(f"/proc/self/fd/{one}")]
assert done and closed, (done, closed)
assert not [one for one in opened if ".db" in one], opened
files["outbox"].put([Job("b" if child else "c", "kind", {})])
assert files["spool"].identity() == identity
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
assert files["outbox"].pending == 3
"""


def test_a_fork_waits_for_who_is_at_work_and_both_open_the_files_anew(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
