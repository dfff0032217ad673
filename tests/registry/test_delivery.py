"""What reaches the registry of a run that was stopped and goes on."""

from __future__ import annotations

from pathlib import Path

from selfheal_cli.registry.base import Lineage, StepMetrics
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter


def send(registry: MemoryRegistry, run_id: str, path: Path, batches: int) -> None:
    """Go through so many batches, as a run from its beginning or once more."""
    writer = RegistryWriter(
        registry, Lineage("m", run_id, "", "article", "full", "1"), Outbox(path)
    )
    for batch in range(1, batches + 1):
        writer.log_metrics(StepMetrics(batch, {"f1": batch / 10}, 1_000 * batch))
    writer.send_steps()
    writer.flush(0.0)
    writer.close()


def test_figures_of_batches_after_the_stop_are_sent_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    registry = MemoryRegistry()
    run_id = registry.begin_run("trial", {}, {})
    for batches in (2, 3):
        send(registry, run_id, tmp_path / "outbox.db", batches)
    assert [step.batch for step in registry.metrics[run_id]] == [1, 2, 3]
