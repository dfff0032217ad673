"""Runs in MLflow's tracking store: parameters, figures by batch, files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param

from selfheal_cli.records import StoredRun
from selfheal_cli.registry.base import MAX_PARAM, Outcome, StepMetrics
from selfheal_cli.registry.drivers import require_driver
from selfheal_cli.registry.store import require_reachable, resolve, translated

# makes MLflow's interface show models with their metrics, not agents with their traces
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class MlflowRuns:
    """The part of `Registry` that is about runs."""

    def __init__(self, uri: str | None = None, *, create: bool = False) -> None:
        for noisy in ("mlflow", "alembic"):
            # what goes wrong in there is raised as well, and told in one line
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        self.uri = resolve(uri)
        require_reachable(self.uri, create=create)
        # a version's source "models:/m-..." is resolved with the global URI, so it is set as well
        mlflow.set_tracking_uri(self.uri)
        with self._doing("open the tracking store"):
            self._client = MlflowClient(tracking_uri=self.uri)
            self._client.search_experiments(max_results=1)
        self._experiments: list[str] = []

    def begin_run(
        self, experiment: str, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """See `Registry`."""
        with self._doing(f"open a run in experiment '{experiment}'"):
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                made = self._client.create_experiment(experiment, tags=EXPERIMENT_TAGS)
                found = self._client.get_experiment(made)
            require_driver(found.artifact_location)
            experiment_id = found.experiment_id
            run_id: str = self._client.create_run(experiment_id, tags=dict(tags)).info.run_id
            params = [Param(key, value[:MAX_PARAM]) for key, value in parameters.items()]
            self._client.log_batch(run_id, params=params)
        self._experiments = [experiment_id]
        return run_id

    def log_metrics(self, run_id: str, steps: Sequence[StepMetrics]) -> None:
        """See `Registry`."""
        found = [
            metric
            for step in steps
            for metric in as_metrics(step.figures, step.batch, at_ms=step.at_ms)
        ]
        with self._doing(f"log metrics of run {run_id}"):
            self._client.log_batch(run_id, metrics=found)

    def log_files(self, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
        """See `Registry`."""
        with self._doing(f"keep files with run {run_id}"):
            for path in paths:
                self._client.log_artifact(run_id, str(path), folder)

    def end_run(self, run_id: str, outcome: Outcome, tags: Mapping[str, str]) -> None:
        """See `Registry`."""
        with self._doing(f"close run {run_id}"):
            for key, value in tags.items():
                self._client.set_tag(run_id, key, value)
            self._client.set_terminated(run_id, status=outcome)

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """See `Registry`."""
        with self._doing(f"tag run {run_id}"):
            for key, value in tags.items():
                self._client.set_tag(run_id, key, value)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """See `Registry`."""
        with self._doing(f"read run {run_id}"):
            return dict(self._client.get_run(run_id).data.tags)

    def stored_run(self, run_id: str) -> StoredRun:
        """See `Registry`."""
        with self._doing(f"read run {run_id}"):
            run = self._client.get_run(run_id)
            histories = {
                name: self._client.get_metric_history(run_id, name) for name in run.data.metrics
            }
        figures = {
            name: [(one.step, one.value) for one in seen] for name, seen in histories.items()
        }
        deleted = run.info.lifecycle_stage == LifecycleStage.DELETED
        return StoredRun(run.data.params, run.data.tags, figures, run.info.status, deleted)

    def run_status(self, run_id: str) -> str:
        """See `Registry`."""
        with self._doing(f"read run {run_id}"):
            return str(self._client.get_run(run_id).info.status)

    def run_file(self, run_id: str, name: str, into: Path) -> Path:
        """See `Registry`."""
        with self._doing(f"fetch '{name}' of run {run_id}"):
            return Path(self._client.download_artifacts(run_id, name, str(into)))

    def delete_run(self, run_id: str) -> None:
        """See `Registry`."""
        with self._doing(f"delete run {run_id}"):
            self._client.delete_run(run_id)

    def _experiment_of(self, run_id: str) -> str:
        if self._experiments:
            return self._experiments[0]
        return str(self._client.get_run(run_id).info.experiment_id)

    def _all_experiments(self) -> list[str]:
        return [found.experiment_id for found in self._client.search_experiments()]

    def _doing(self, what: str) -> AbstractContextManager[None]:
        return translated(what, self.uri)


def as_metrics(
    metrics: Mapping[str, float], step: int, model_id: str | None = None, *, at_ms: int
) -> list[Metric]:
    """Figures as MLflow takes them; of a logged model where one is named."""
    return [Metric(key, value, at_ms, step, model_id=model_id) for key, value in metrics.items()]
