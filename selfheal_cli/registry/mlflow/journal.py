"""Journals as parameters of MLflow runs: a parameter is written once, by whoever comes first."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlflow.entities import Param, Run, RunStatus
from mlflow.exceptions import MlflowException

from selfheal_cli.errors import RegistryError
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import MAX_ENTRY, Entry, JournalState, Mark, parse_entry
from selfheal_cli.registry.mlflow.runs import JOURNALS, MlflowRuns, unless_gone

JOURNAL_TAG = "selfheal.journal"  # on the registered model: the run with the first entries
LATEST_TAG = "latest."  # on the experiment, and a hint: the run that a model's journal is in now
FIRST_TAG = "first."  # beside it: the run that this journal begins with
NEXT = "next"  # the parameter that names the run with the entries after this one's
CHECKPOINT = "checkpoint."  # parameters with what stood before a page's first entry
MARK = "selfheal.move."  # tags with what was said of a move after it was written down
ENTRIES_A_RUN = 100  # reading a run reads all of its parameters
PARAMS_AT_ONCE = 100  # as many as MLflow takes
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(slots=True)
class _Place:
    """The run that the journal has come to, and the last entry that was seen in it.

    ``hinted`` is the run that the experiment's hint names, ``first`` the one that the journal
    begins with; empty where that is to be looked up.
    """

    run_id: str
    last: Entry | None = None
    hinted: str = ""
    first: str = ""


class _Page:
    """What a run holds of a journal: entries by key, and the parts of a checkpoint before them."""

    def __init__(self, run: Run) -> None:
        parameters, tags = run.data.params, run.data.tags
        self.marks = {
            int(key.removeprefix(MARK)): Mark(value)
            for key, value in tags.items()
            if key.startswith(MARK)
        }
        self.following = parameters.get(NEXT)
        self.entries = {key: text for key, text in parameters.items() if key.isdigit()}
        self._run_id = str(run.info.run_id)
        self._parts = [parameters[key] for key in sorted(parameters) if key.startswith(CHECKPOINT)]

    @property
    def stands_alone(self) -> bool:
        """Whether nothing before it is needed to know what stands."""
        first = min(self.entries, default=_key(1))
        return bool(self._parts) or first == _key(1) or '"standing":' in self.entries[first]

    def begins(self, model: str) -> JournalState | None:
        """What stood before its first entry; None where that is not written here."""
        if not self._parts:
            return None
        try:
            return JournalState.from_dict(json.loads("".join(self._parts)))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise RegistryError(
                f"journal of '{model}', run {self._run_id}: not a checkpoint ({exc})"
            ) from exc

    def fold(self, model: str, before: JournalState) -> Iterator[Entry]:
        """Its entries in order."""
        for key in sorted(self.entries):
            entry = parse_entry(self.entries[key], f"journal of '{model}', entry {key}", before)
            before = entry.standing
            yield entry


class MlflowJournal(MlflowRuns):
    """See `JournalStore`."""

    def __init__(self, uri: str | None = None, *, create: bool = False) -> None:
        super().__init__(uri, create=create)
        self._places: dict[str, _Place] = {}
        self._lock = threading.RLock()  # a run's writer and its follower both read

    def last_entry(self, model: str) -> Entry | None:
        """See `JournalStore`."""
        with self._lock, self._doing(f"read the journal of '{model}'"):
            place = self._places.get(model) or self._find(model)
            if place is None:
                return None
            self._places[model] = place
            try:
                self._move_on(model, place)
            except MlflowException as exc:
                if exc.error_code not in ABSENT:
                    raise
                del self._places[model]  # the store was put back to an earlier state
                return self._last_found(model)
            return place.last

    def _last_found(self, model: str) -> Entry | None:
        place = self._find(model)
        if place is not None:
            self._move_on(model, place)
        return place.last if place else None

    def put_entry(self, model: str, entry: Entry) -> bool:
        """See `JournalStore`."""
        with self._lock, self._doing(f"write into the journal of '{model}'"):
            place = self._places.get(model) or self._find(model) or self._found(model)
            self._places[model] = place
            if entry.sequence > 1 and _opens_page(entry.sequence):
                self._turn_page(model, place)
            text = entry.as_text()
            if self._put(place.run_id, _key(entry.sequence), text) != text:
                return False
            place.last = entry
            if place.hinted != place.run_id:
                # only now: whoever starts from an empty page would find no journal
                self._remember(model, place)
                place.hinted = place.run_id
            return True

    def entries(self, model: str) -> Iterator[Entry]:
        """See `JournalStore`.

        Raises `RegistryError` where a page's checkpoint is not what the entries before it give.
        """
        with self._doing(f"read the journal of '{model}'"):
            run_id = self._model_tags(model).get(JOURNAL_TAG)
        before = JournalState()
        while run_id:
            with self._doing(f"read the journal of '{model}', run {run_id}"):
                page = self._page(run_id)
            checkpoint = page.begins(model)
            if checkpoint is not None and checkpoint != before:
                raise RegistryError(
                    f"journal of '{model}', run {run_id}: its checkpoint is not what the entries "
                    "before it say: it was edited"
                )
            for entry in page.fold(model, before):
                before = entry.standing
                yield entry
            before = before.marked(page.marks)  # else every move would stay open to the end
            run_id = page.following

    def mark_move(self, model: str, sequence: int, mark: Mark) -> None:
        """See `JournalStore`."""
        with self._lock, self._doing(f"write into the journal of '{model}'"):
            place = self._places.get(model) or self._find(model)
            if place is not None:
                self._client.set_tag(place.run_id, f"{MARK}{_key(sequence)}", mark.value)

    def delete_journal(self, model: str) -> None:
        """Remove a model's journal with the model."""
        run_id = self._model_tags(model).get(JOURNAL_TAG)
        self._places.pop(model, None)
        while run_id:
            following = self._client.get_run(run_id).data.params.get(NEXT)
            with unless_gone():
                self._client.delete_run(run_id)
            run_id = following
        self._remember(model, _Place(""))

    def _find(self, model: str) -> _Place | None:
        """Where to begin to read. MLflow reads every version of a model to tell its tags, so that
        the experiment, which has a few, is asked first.

        What that says may be of an earlier model of the name, which was deleted or renamed since:
        where this one has no champion, it counts only if both begin with the same run.
        """
        known = self._client.get_experiment_by_name(JOURNALS)
        said = known.tags if known else {}
        hint, first = said.get(_hint(model)), said.get(_hint(model, FIRST_TAG), "")
        if hint and self._has_champion(model):
            return _Place(hint, hinted=hint if first else "", first=first)
        own = self._model_tags(model).get(JOURNAL_TAG, "")
        if hint and own and own == first:
            return _Place(hint, hinted=hint, first=first)
        return _Place(own, hinted=hint or "", first=own) if own else None

    def _has_champion(self, model: str) -> bool:
        try:
            self._client.get_model_version_by_alias(model, CHAMPION)
        except MlflowException as exc:
            if exc.error_code in ABSENT:
                return False
            raise
        return True

    def _remember(self, model: str, place: _Place) -> None:
        known = self._client.get_experiment_by_name(JOURNALS)
        if known is not None:
            first = place.first or self._model_tags(model).get(JOURNAL_TAG, "")
            for tag, run_id in ((FIRST_TAG, first), (LATEST_TAG, place.run_id)):
                self._client.set_experiment_tag(known.experiment_id, _hint(model, tag), run_id)

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
        first = self._model_tags(model)[JOURNAL_TAG]
        return _Place(first, first=first)

    def _move_on(self, model: str, place: _Place) -> None:
        """Read on to the last entry."""
        while True:
            page = self._page(place.run_id)
            place.last = self._last_of(model, page) or place.last
            if page.following is None:
                return
            place.run_id = page.following

    def _last_of(self, model: str, page: _Page) -> Entry | None:
        """The last entry of a page, None where there is none."""
        if page.stands_alone:
            entries = page.fold(model, page.begins(model) or JournalState())
        else:  # 0.1.0 turned the page, and wrote no checkpoint: from the journal's start
            entries = (one for one in self.entries(model) if _key(one.sequence) in page.entries)
        last = max(entries, key=lambda entry: entry.sequence, default=None)
        return replace(last, standing=last.standing.marked(page.marks)) if last else None

    def _turn_page(self, model: str, place: _Place) -> None:
        """Go on in a new run; all who come here at once agree on one."""
        page = self._page(place.run_id)
        following = page.following
        if following is None:
            last = self._last_of(model, page)
            if last is None or len(page.entries) < ENTRIES_A_RUN:
                return  # on the new page already
            fresh = self._new_run(model, 1 + last.sequence // ENTRIES_A_RUN)
            # whole before anybody can come there
            self._write_checkpoint(fresh, _without_old(last))
            following = self._put(place.run_id, NEXT, fresh)
            if following != fresh:
                self._client.delete_run(fresh)
        place.run_id = following

    def _write_checkpoint(self, run_id: str, stands: JournalState) -> None:
        text = json.dumps(stands.as_dict(), sort_keys=True, separators=(",", ":"))
        parts = [text[start : start + MAX_ENTRY] for start in range(0, len(text), MAX_ENTRY)]
        params = [Param(f"{CHECKPOINT}{number:06}", part) for number, part in enumerate(parts)]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])

    def _page(self, run_id: str) -> _Page:
        return _Page(self._client.get_run(run_id))

    def _put(self, run_id: str, key: str, value: str) -> str:
        """Write a parameter unless it is there; returns what is there."""
        try:
            self._client.log_param(run_id, key, value)
        except MlflowException:
            stored = self._client.get_run(run_id).data.params.get(key)
            if stored is None:
                self._experiment(JOURNALS)  # or it was deleted
                raise  # not taken: the store is away
            return str(stored)
        return value

    def _new_run(self, model: str, page: int) -> str:
        known = self._experiment(JOURNALS)
        name = f"journal of {model}, page {page}"
        tags = {"mlflow.runName": name, "selfheal.model": model, "selfheal.kind": "journal"}
        run_id = self._create_run(known.experiment_id, tags)
        self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
        return run_id

    def _model_tags(self, model: str) -> dict[str, str]:
        try:
            return dict(self._client.get_registered_model(model).tags)
        except MlflowException as exc:
            if exc.error_code in ABSENT:
                return {}
            raise


def _without_old(last: Entry) -> JournalState:
    """What stands, without earlier moves whose writers were not heard of for a page."""
    now = last.standing
    left = [
        one
        for one in now.open
        if one.move.sequence > last.sequence - ENTRIES_A_RUN or one.move in now.moves.values()
    ]
    return replace(now, open=tuple(left))


def _hint(model: str, tag: str = LATEST_TAG) -> str:
    """The experiment's tag for a model; its name may hold what a tag's may not."""
    return tag + hashlib.sha256(model.encode()).hexdigest()[:32]


def _opens_page(sequence: int) -> bool:
    return (sequence - 1) % ENTRIES_A_RUN == 0


def _key(sequence: int) -> str:
    return f"{sequence:08}"
