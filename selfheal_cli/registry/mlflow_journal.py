"""Journals as parameters of MLflow runs: a parameter is written once, by whoever comes first."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from selfheal_cli.registry.journal import Entry, parse_entry
from selfheal_cli.registry.mlflow_runs import MlflowRuns

EXPERIMENT = "selfheal-journal"
JOURNAL_TAG = "selfheal.journal"  # on the registered model: the run with the first entries
LATEST_TAG = "latest."  # on the experiment, and a hint: the run that a model's journal is in now
NEXT = "next"  # the parameter that names the run with the entries after this one's
ENTRIES_A_RUN = 100  # reading a run reads all of its parameters
TAKEN = "INVALID_PARAMETER_VALUE"  # another value was written before
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(slots=True)
class _Place:
    """The run that the journal has come to, and the last entry that was seen in it.

    ``hinted`` is the run that the experiment's hint names.
    """

    run_id: str
    last: Entry | None = None
    hinted: str = ""


class MlflowJournal(MlflowRuns):
    """See `JournalStore`."""

    def __init__(self, uri: str | None = None) -> None:
        super().__init__(uri)
        self._places: dict[str, _Place] = {}
        self._lock = threading.RLock()  # a run's writer and its follower both read

    def last_entry(self, model: str) -> Entry | None:
        """See `JournalStore`."""
        with self._lock, self._doing(f"read the journal of '{model}'"):
            place = self._places.get(model) or self._find(model)
            if place is None:
                return None
            self._places[model] = place
            self._move_on(model, place)
            return place.last

    def put_entry(self, model: str, entry: Entry) -> Entry:
        """See `JournalStore`."""
        with self._lock, self._doing(f"write into the journal of '{model}'"):
            place = self._places.get(model) or self._find(model) or self._found(model)
            self._places[model] = place
            if entry.sequence > 1 and _opens_page(entry.sequence):
                self._turn_page(model, place)
            key = _key(entry.sequence)
            stored = self._put(place.run_id, key, entry.as_text())
            found = parse_entry(stored, f"journal of '{model}', entry {key}")
            place.last = found
            if found == entry and place.hinted != place.run_id:
                # only now: whoever starts from an empty page would find no journal
                self._remember(model, place.run_id)
                place.hinted = place.run_id
            return found

    def entries(self, model: str) -> Iterator[Entry]:
        """See `JournalStore`."""
        with self._doing(f"read the journal of '{model}'"):
            run_id = self._model_tags(model).get(JOURNAL_TAG)
        while run_id:
            with self._doing(f"read the journal of '{model}', run {run_id}"):
                parameters = self._client.get_run(run_id).data.params
            run_id = parameters.pop(NEXT, None)
            for key in sorted(parameters):
                yield parse_entry(parameters[key], f"journal of '{model}', entry {key}")

    def delete_journal(self, model: str) -> None:
        """Remove a model's journal with the model."""
        run_id = self._model_tags(model).get(JOURNAL_TAG)
        self._places.pop(model, None)
        while run_id:
            following = self._client.get_run(run_id).data.params.get(NEXT)
            self._client.delete_run(run_id)
            run_id = following
        self._remember(model, "")

    def _find(self, model: str) -> _Place | None:
        """Where to begin to read. MLflow reads every version of a model to tell its tags, so that
        the experiment, which has a few, is asked first.
        """
        known = self._client.get_experiment_by_name(EXPERIMENT)
        hint = known.tags.get(_hint(model)) if known else None
        run_id = hint or self._model_tags(model).get(JOURNAL_TAG)
        return _Place(run_id, hinted=hint or "") if run_id else None

    def _remember(self, model: str, run_id: str) -> None:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        if known is not None:
            self._client.set_experiment_tag(known.experiment_id, _hint(model), run_id)

    def _found(self, model: str) -> _Place:
        """Begin a journal with the model itself: a model's name is taken once.

        Of two who begin the journal of an older model at once one tag stays; both go on with it.
        """
        run_id = self._new_run(model, 1)
        try:
            self._client.create_registered_model(model, tags={JOURNAL_TAG: run_id})
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            if JOURNAL_TAG not in self._model_tags(model):
                self._client.set_registered_model_tag(model, JOURNAL_TAG, run_id)
        return _Place(self._model_tags(model)[JOURNAL_TAG])

    def _move_on(self, model: str, place: _Place) -> None:
        """Read on to the last entry."""
        while True:
            parameters = self._client.get_run(place.run_id).data.params
            following = parameters.pop(NEXT, None)
            if parameters:
                key = max(parameters)
                place.last = parse_entry(parameters[key], f"journal of '{model}', entry {key}")
            if following is None:
                return
            place.run_id = following

    def _turn_page(self, model: str, place: _Place) -> None:
        """Go on in a new run; all who come here at once agree on one."""
        parameters = self._client.get_run(place.run_id).data.params
        following = parameters.get(NEXT)
        if following is None:
            if len(parameters) < ENTRIES_A_RUN:
                return  # on the new page already
            page = 1 + place.last.sequence // ENTRIES_A_RUN if place.last else 1
            fresh = self._new_run(model, page)
            following = self._put(place.run_id, NEXT, fresh)
            if following != fresh:
                self._client.delete_run(fresh)
        place.run_id = following

    def _put(self, run_id: str, key: str, value: str) -> str:
        """Write a parameter unless it is there; returns what is there."""
        try:
            self._client.log_param(run_id, key, value)
        except MlflowException:
            stored = self._client.get_run(run_id).data.params.get(key)
            if stored is None:
                raise  # not taken: the store is away
            return str(stored)
        return value

    def _new_run(self, model: str, page: int) -> str:
        try:
            identity = self._client.create_experiment(EXPERIMENT)
        except MlflowException:  # it is there
            known = self._client.get_experiment_by_name(EXPERIMENT)
            if known is None:
                raise
            identity = known.experiment_id
        name = f"journal of {model}, page {page}"
        tags = {"mlflow.runName": name, "selfheal.model": model, "selfheal.kind": "journal"}
        run_id = str(self._client.create_run(identity, tags=tags).info.run_id)
        self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
        return run_id

    def _model_tags(self, model: str) -> dict[str, str]:
        try:
            return dict(self._client.get_registered_model(model).tags)
        except MlflowException as exc:
            if exc.error_code in ABSENT:
                return {}
            raise


def _hint(model: str) -> str:
    """The experiment's tag for a model; its name may hold what a tag's may not."""
    return LATEST_TAG + hashlib.sha256(model.encode()).hexdigest()[:32]


def _opens_page(sequence: int) -> bool:
    return (sequence - 1) % ENTRIES_A_RUN == 0


def _key(sequence: int) -> str:
    return f"{sequence:08}"
