"""One model behind its server, each step seen on the page, in the journal and by a webhook."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.webdriver import WebDriver as Chrome

from selfheal_cli.cli import serve
from selfheal_cli.records import Phase
from selfheal_cli.registry.base import CANARY, CHAMPION
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Feedback, Spool
from tests.conftest import PATIENCE, Invoke
from tests.serve.browser import click, needs_browser, shows
from tests.serve.conftest import until
from tests.serve.test_healing import REQUEST, WORKSPACE, Caller, drifted, served
from tests.serve.test_notify import Receiver

POLICY = """\
description: for a story
mode: shadow
budget_moves: 1000
budget_change: 1.0
budget_change_in_all: 1.0
canary_share: 0.5
canary_delay: 1h
canary_margin: 2.0
canary_level: 0.999999999
"""  # so that no canary is found to be worse: here it may well be, by a little
BATCHES = ("--batch-size", str(REQUEST))  # one of the caller's requests each

OVERRIDES = serve._overrides
PLAN = "The plan: nothing has moved yet"

pytestmark = needs_browser


class Life:
    """What is done with a served model, and what is seen of it."""

    def __init__(self, driver: Chrome, caller: Caller, told: Receiver) -> None:
        self.driver, self.caller, self._told = driver, caller, told
        self.registry = MlflowRegistry(None)
        self._seed = 0

    def call(self, batches: int = 1) -> None:
        self._seed += 1
        self.caller.call(batches, self._seed)
        rows = REQUEST * self.caller.sent
        until(lambda: self.caller.status()["standing"]["rows"] == rows)
        until(lambda: not self.caller.status()["standing"]["pending_writes"])

    def call_until(self, holds: Callable[[], Any]) -> Any:
        """Go on calling, since not every heal passes the gate."""
        for _ in range(25):
            self.call()
            with suppress(AssertionError):
                return until(holds, seconds=10)
        raise AssertionError("nothing came of it")

    def heard(self, kind: str, words: str) -> bool:
        """Whether the webhook was told so."""
        bodies = [json.loads(body) for _, _, body in self._told.got]
        return any(one["action"] == kind and words in str(one) for one in bodies)

    def plan(self, button: str, done: str) -> None:
        """Ask for a plan on the page, and have it carried out."""
        click(self.driver, button)
        shows(self.driver, "#said", PLAN)
        click(self.driver, "#confirm button.strong")
        shows(self.driver, "#said", done)

    def mode(self, mode: str) -> None:
        self.plan(f'button[value="mode-plan:{mode}"]', f"Mode {mode} from now on")
        shows(self.driver, "#now", f"{mode}:")
        until(lambda: self.heard("mode-changed", f"mode {mode} by"))

    def proposed(self) -> tuple[int, int]:
        """A proposal that waits, and its version."""
        standing = until(self.proposals)
        return standing[0]["number"], standing[0]["version"]

    def proposals(self) -> list[dict[str, int]]:
        """Those that wait, as the server says."""
        waiting: list[dict[str, int]] = self.caller.status()["standing"]["proposals"]
        return waiting

    def planned(self) -> int | None:
        """The version whose approval is planned; None where a later heal's took its place."""
        number, version = self.proposed()
        try:
            click(self.driver, f"#approve-{number}", seconds=10)
            shows(self.driver, "#said", PLAN, seconds=10)
            shows(self.driver, "#said", f"would serve: v{version}", seconds=10)
        except (AssertionError, TimeoutException):
            return None
        return version

    def approve(self) -> int:
        version = until(self.planned)
        click(self.driver, "#confirm button.strong")
        shows(self.driver, "#said", f"v{version} is the champion")
        assert self.registry.alias("fraud", CHAMPION) == version
        until(lambda: self.heard("champion-moved", f"v{version}"))
        return version


def test_shadow_recommend_approve_canary_promoted_poisoned_revoked_rolled_back(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, browser: Chrome
) -> None:
    monkeypatch.setattr("selfheal_cli.anytime.FEWEST", 8)  # differences of 25 rows each
    monkeypatch.setattr("selfheal_cli.cli.serve._overrides", _as_on_own_data)
    receiver, policy = Receiver(), short_copy / "cautious.yaml"
    policy.write_text(POLICY)
    with receiver.listening() as url:
        monkeypatch.setenv("SELFHEAL_WEBHOOKS", f"ops: {url}")
        monkeypatch.setenv("SELFHEAL_WEBHOOK_SECRET", "to sign with")
        with served("--policy", str(policy), *BATCHES) as (process, caller):
            browser.get(caller.url)
            _live(Life(browser, caller, receiver), invoke)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
    history = invoke("history").stdout
    for kind in ("mode-set", "proposed", "labels-revoked", "canary-ended"):
        assert kind in history, kind
    invoke("audit")


def _as_on_own_data(given: dict[str, Any]) -> dict[str, Any]:
    """One version a heal: what served before it has no version of its own."""
    overrides = OVERRIDES(given)
    return overrides | {"heal": overrides["heal"] | {"pre_heal": "figures"}}


def _live(life: Life, invoke: Invoke) -> None:
    registry = life.registry
    shows(life.driver, "#now", "shadow:")
    life.call(2)
    shows(life.driver, "#happened", "nothing is published")
    serving = registry.alias("fraud", CHAMPION)
    assert serving is not None
    assert registry.version("fraud", serving).phase is Phase.BASELINE

    life.mode("recommend")
    life.call_until(life.proposals)
    approved = life.approve()
    until(lambda: life.heard("proposal", f"v{approved}"))

    life.mode("auto")
    tried = life.call_until(lambda: registry.alias("fraud", CANARY))
    shows(life.driver, "#canary", "answers 50 % of requests")
    until(lambda: life.heard("canary", "answers 50% of requests"))
    for _ in range(9):
        life.call()
        if registry.alias("fraud", CHAMPION) == tried:
            break
    shows(life.driver, "#happened", "canary promoted: it is not worse")
    until(lambda: registry.alias("fraud", CHAMPION) == tried)
    until(lambda: life.heard("canary", "canary promoted"))

    poison = time.time()
    _tell_wrong(life.caller)
    life.call_until(lambda: registry.alias("fraud", CANARY) not in (None, tried))
    life.mode("recommend")
    until(lambda: life.heard("canary", "canary withdrawn: mode recommend"))
    life.call_until(life.proposals)
    tainted = life.approve()
    asked = ("labels", "revoke", "--by", "bad", "--since", "1h", "--yes", "--json")
    revoked = json.loads(invoke(*asked).stdout)
    assert tainted in revoked["learned"]
    assert registry.version("fraud", tainted).created_ms >= 1000 * poison
    clean = revoked["clean"]  # the one that was tried, or one that was healed just before
    assert tried <= clean < tainted
    assert clean not in revoked["learned"]
    assert life.approve() == clean


def _tell_wrong(caller: Caller) -> None:
    """Labels of rows that were answered, all of them wrong, by somebody who may not be believed."""
    spool = Spool(spool_path("fraud", WORKSPACE))
    for columns, y in drifted(1, seed=99):
        caller.sent += 1
        caller.ask(columns)
        until(lambda: spool.last() >= caller.sent)
        wrong = [Feedback(1 - one, f"r{caller.sent}", at) for at, one in enumerate(y)]
        assert spool.label(wrong, "bad", time.time()).joined == len(y)
    spool.close()
