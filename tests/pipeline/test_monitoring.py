"""Monitors in a run: what they write, what they start, and that they change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import HealSettings, Policy, RunConfig
from selfheal_cli.drift.kinds import parse_monitor
from selfheal_cli.events.log import read
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.attribution import gradient_times_input, input_gradients
from selfheal_cli.model.network import SelfHealingNetwork
from tests.pipeline.small import Ran, config, ran

DEAF = Policy(fidi_threshold=100, conflict_min=10_000, stale_rules="keep")
ARTICLE = HealSettings()


def with_monitors(*texts: str, **changes: Any) -> RunConfig:
    return config(monitors=tuple(map(parse_monitor, texts)), **changes)


def stripped(run: Ran) -> list[Any]:
    """A run's batches, without what the monitors wrote and how fast the registry was."""
    beside = ("monitors", "pending_writes", "reason", "heal_requested", "state")
    return [
        {name: value for name, value in event.as_dict().items() if name not in beside}
        for event in run.of("batch")
    ]


def test_monitors_that_start_nothing_change_nothing(workdir: Path) -> None:
    plain, watched = (
        ran(config()),
        ran(with_monitors("psi", "fidi", "adwin:on=errors", "conflicts")),
    )
    assert plain.serving == watched.serving
    assert stripped(plain) == stripped(watched)
    assert [e.kind for e in plain.of("heal", "snapshot")] == [
        e.kind for e in watched.of("heal", "snapshot")
    ]
    assert all("monitors" not in event.as_dict() for event in plain.of("batch"))
    assert "monitors" not in plain.events[0].config


def test_readings_are_in_every_batch_and_in_its_metrics(workdir: Path) -> None:
    run = ran(with_monitors("psi", "fidi:on=V14+V9"))
    (run_id,) = {event.run_id for event in run.of("run-started")}
    steps = {step.batch: step.figures for step in run.registry.metrics[run_id]}
    for event in run.of("batch"):
        assert set(event.monitors) == {"psi", "fidi:V14+V9"}
        told = event.monitors["fidi:V14+V9"]
        assert steps[event.batch]["monitor_fidi:V14_V9"] == told["value"]
    header, *lines = (Path("monitoring_export") / "metrics.csv").read_text().splitlines()
    assert header.endswith("monitor_psi,monitor_psi_level,monitor_fidi:V14+V9,"
                           "monitor_fidi:V14+V9_level")  # fmt: skip
    assert all(line.split(",")[-3] == "alarm" for line in lines)


def test_an_alarm_is_one_event_until_it_ends(workdir: Path) -> None:
    run = ran(with_monitors("psi:threshold=0.3"))
    (alarm,) = run.of("monitor-alarm")
    assert alarm.monitor == "psi"
    assert alarm.threshold == 0.3
    assert alarm.features == ["V14"]
    assert alarm.reason == f"monitor psi: {alarm.value:.3f} >= 0.3 (V14)"


@pytest.mark.parametrize("triggers", ["nothing", "heal"])
def test_an_alarm_heals_where_it_may_and_says_so(workdir: Path, triggers: str) -> None:
    """Nothing else would: drift, conflicts and new labels start no heal here."""
    settings = with_monitors(
        f"psi:on=V14,triggers={triggers}", policy=DEAF, heal=ARTICLE, source=config().source
    )
    run = ran(settings)
    if triggers == "nothing":
        assert not run.of("heal")
        return
    alarm = run.of("monitor-alarm")[0].batch
    assert run.batches("heal")[0] == alarm
    assert run.of("heal")[0]["reason"].startswith("monitor psi:V14: ")
    batch = run.of("batch")[alarm - 1].as_dict()
    assert (batch["heal_requested"], batch["state"]) == (True, "DRIFTING")


def test_an_alarm_may_ask_for_a_verdict_alone(workdir: Path) -> None:
    run = ran(with_monitors("psi:triggers=diagnosis", policy=DEAF, heal=ARTICLE))
    assert not run.of("heal")
    assert run.of("diagnosis")
    assert run.of("diagnosis")[0]["reason"] == "drift began"


def test_sensitive_auto_takes_what_the_network_uses_and_writes_down_why(workdir: Path) -> None:
    run = ran(config(sensitive="auto", rules=("V9 > 1 => 1",)))
    trained = run.of("trained")[0].as_dict()
    assert trained["sensitive"] == "V14"  # the classes differ in nothing else
    shares = [one["share"] for one in trained["sensitive_auto"]]
    assert trained["sensitive_auto"][0]["feature"] == "V14"
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert "sensitive_auto" not in ran(config()).of("trained")[0].as_dict()


def test_gradients_are_those_of_differences() -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SelfHealingNetwork.build(Architecture(4, 8))
    network.freeze()
    x = np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)
    gradients, step = input_gradients(network, x), 1e-2

    def logit(rows: Any) -> Any:
        p = network.predict(rows.astype(np.float32)).astype(np.float64)
        return np.log(p / (1 - p))

    for place in range(4):
        move = np.zeros(4)
        move[place] = step
        slope = (logit(x + move) - logit(x - move)) / (2 * step)
        assert np.median(np.abs(gradients[:, place] - slope)) < 1e-3
    whole = gradient_times_input(network, [x[:7], x[7:]])
    assert whole == pytest.approx(np.abs(gradients * x).mean(axis=0))


def test_a_recorded_alarm_is_in_the_log_with_its_p_value(workdir: Path) -> None:
    run = ran(with_monitors("two-sample"))
    (alarm,) = [e for e in read(run.finished.folder / "events.jsonl") if e.kind == "monitor-alarm"]
    assert 0 <= alarm.p <= 1e-4
