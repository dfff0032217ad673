"""Runs in MLflow's tracking store: parameters, figures by batch, files."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Metric, Param, ViewType
from mlflow.exceptions import MlflowException

from selfheal_cli.errors import RegistryError
from selfheal_cli.records import StoredRun
from selfheal_cli.registry.base import DOUBLE_TAG, MAX_PARAM, Outcome, StepMetrics
from selfheal_cli.registry.mlflow.artifacts import MOVED, local_path
from selfheal_cli.registry.mlflow.store import (
    made_at_once,
    require_driver,
    require_reachable,
    resolve,
    translated,
)

STORE_VARIABLE = "MLFLOW_TRACKING_URI"
JOURNALS = "selfheal-journal"  # the experiment with the journals of all models
BEGUN_TAG = "selfheal.begun"  # on a run: by whom it was begun, in this one call
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
        # a version's source "models:/m-..." is resolved with the global URI, so it is set as well;
        # by the variable where that counts, since MLflow's own call begins tracing anew
        os.environ[STORE_VARIABLE] = self.uri
        if mlflow.get_tracking_uri() != self.uri:
            mlflow.set_tracking_uri(self.uri)
        with self._doing("open the tracking store"), made_at_once(self.uri):
            self._client = MlflowClient(tracking_uri=self.uri)
            self._client.search_experiments(max_results=1)
        self._experiments: list[str] = []
        # MLflow's client asks a server again where an answer is lost, also for what makes something
        self.may_repeat = self.uri.startswith("http")

    def begin_run(
        self, experiment: str, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """See `Registry`."""
        with self._doing(f"open a run in experiment '{experiment}'"):
            stored_experiment = self._experiment(experiment, EXPERIMENT_TAGS)
            require_driver(stored_experiment.artifact_location)
            self._require_place(stored_experiment)
            experiment_id = stored_experiment.experiment_id
            run_id = self._create_run(experiment_id, tags)
            params = [Param(key, value[:MAX_PARAM]) for key, value in parameters.items()]
            self._client.log_batch(run_id, params=params)
        self._experiments = [experiment_id]
        return run_id

    def log_metrics(self, run_id: str, steps: Sequence[StepMetrics]) -> None:
        """See `Registry`."""
        metrics = [
            metric
            for step in steps
            for metric in as_metrics(step.figures, step.batch, at_ms=step.at_ms)
        ]
        with self._doing(f"log metrics of run {run_id}"):
            self._client.log_batch(run_id, metrics=metrics)

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
        """Deleted ones too: MLflow keeps what is in them, and their versions serve on."""
        search = partial(self._client.search_experiments, view_type=ViewType.ALL)
        return [experiment.experiment_id for experiment in every(search)]

    def deleted_experiments(self) -> list[str]:
        """What to do about each deleted experiment in which something of selfheal's is."""
        with self._doing("look for deleted experiments"):
            search = partial(self._client.search_experiments, view_type=ViewType.DELETED_ONLY)
            return [_deleted(one) for one in every(search) if self._holds_ours(one)]

    def copied_from(self, experiment: str) -> str:
        """What to know where a store's file lies beside others than its own files; else nothing."""
        with self._doing(f"read experiment '{experiment}'"):
            stored_experiment = self._client.get_experiment_by_name(experiment)
        place = _local_place(stored_experiment) if stored_experiment else None
        if place is None or not self.uri.startswith("sqlite:///"):
            return ""
        store = Path(self.uri.removeprefix("sqlite:///")).absolute()
        other = place.parents[1] / store.name
        if not other.exists() or other.samefile(store):
            return ""
        return (
            f"experiment '{experiment}' keeps its files in {place}, beside the store {other}: if "
            f"{store} is a copy of that, both write there; --set experiment=NAME begins a new place"
        )

    def latest_experiment(self) -> str | None:
        """The id of the experiment that a run of selfheal went to last."""
        with self._doing("look for the latest run"):
            runs = self._client.search_runs(
                self._all_experiments(),
                "tags.`selfheal.actor` != ''",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
        return str(runs[0].info.experiment_id) if runs else None

    def _holds_ours(self, experiment: Experiment) -> bool:
        ours = "tags.`selfheal.run_id` != ''"
        return experiment.name == JOURNALS or bool(
            self._client.search_logged_models(
                [experiment.experiment_id], filter_string=ours, max_results=1
            )
        )

    def _experiment(self, name: str, tags: Mapping[str, str] | None = None) -> Experiment:
        """An experiment, made where there is none; raises `RegistryError` for a deleted one."""
        known = self._client.get_experiment_by_name(name)
        if known is None:
            with unless_there():
                self._client.create_experiment(name, tags=dict(tags or {}))
            known = self._client.get_experiment_by_name(name)
        if known is None or known.lifecycle_stage != "active":
            raise RegistryError(_deleted(known) if known else f"experiment '{name}' is not there")
        return known

    def _require_place(self, experiment: Experiment) -> None:
        """Where a store's folder was moved, it names the old place still: files would go there."""
        place = _local_place(experiment)
        if place is None or place.exists():
            return
        kept = self._client.search_logged_models([experiment.experiment_id], max_results=1)
        if kept and str(kept[0].status) == "READY":
            raise RegistryError(
                f"experiment '{experiment.name}' keeps its files in {place}, which is not there: "
                f"{MOVED}; or begin another experiment with --set experiment=NAME"
            )

    def _create_run(self, experiment_id: str, tags: Mapping[str, str]) -> str:
        """Begin a run; one that was begun twice, since an answer was lost, is taken away again."""
        begun = uuid.uuid4().hex
        made = self._client.create_run(experiment_id, tags={**tags, BEGUN_TAG: begun})
        run_id = str(made.info.run_id)
        if self.may_repeat:
            for other in self._client.search_runs(
                [experiment_id], f"tags.`{BEGUN_TAG}` = '{begun}'"
            ):
                if other.info.run_id != run_id:
                    self._client.set_tag(other.info.run_id, DOUBLE_TAG, run_id)
                    with unless_gone():
                        self._client.delete_run(other.info.run_id)
        return run_id

    def _doing(self, what: str) -> AbstractContextManager[None]:
        return translated(what, self.uri)


def every(search: Callable[..., Any]) -> Iterator[Any]:
    """What a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def unless_there() -> Iterator[None]:
    """Make what may be there already, also by this very call, whose answer was lost."""
    try:
        yield
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def unless_gone() -> Iterator[None]:
    """Take away what may be gone already, also by this very call, whose answer was lost."""
    try:
        yield
    except MlflowException as exc:
        if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def _deleted(experiment: Experiment) -> str:
    lost = "its versions serve on, and no run can be begun in it"
    if experiment.name == JOURNALS:
        lost = "no model can be healed and no alias moved"
    return (
        f"experiment '{experiment.name}' was deleted, so that {lost}: 'mlflow experiments restore "
        f"--experiment-id {experiment.experiment_id}' brings it back"
    )


def _local_place(experiment: Experiment) -> Path | None:
    """Where an experiment keeps its files, if that is on this machine."""
    return local_path(experiment.artifact_location)


def as_metrics(
    metrics: Mapping[str, float], step: int, model_id: str | None = None, *, at_ms: int
) -> list[Metric]:
    """Figures as MLflow takes them; of a logged model where one is named."""
    return [Metric(key, value, at_ms, step, model_id=model_id) for key, value in metrics.items()]
