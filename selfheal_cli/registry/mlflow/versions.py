"""Versions as MLflow's store tells of them: one, many, the best."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from functools import partial
from heapq import merge
from itertools import islice, takewhile

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from selfheal_cli.errors import RegistryError, VersionCorrupt, VersionNotFound
from selfheal_cli.records import (
    PROPOSAL_TAG,
    SHOWN_TAGS,
    AnyVersion,
    ForeignVersion,
    Phase,
    VersionRecord,
    read_counts,
)
from selfheal_cli.registry.journal import WAITS
from selfheal_cli.registry.mlflow.journal import MlflowJournal
from selfheal_cli.registry.mlflow.runs import every
from selfheal_cli.registry.staleness import Sound

VERSIONS_TAG = "mlflow.modelVersions"  # on the logged model; the interface reads it too
PHASE_TAG = "selfheal.phase"  # on each version that selfheal registers
LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")  # in the place where its files are kept
READ_AS: dict[str, Callable[[str], object]] = {
    PHASE_TAG: Phase,
    "selfheal.batch": int,
    "selfheal.eval_rows": int,
    "selfheal.threshold": float,
    "selfheal.counts": read_counts,
}
ENDED = "waits no more; 'selfheal history' says what became of it"
CANDIDATES = 20  # asked for at once where several are looked at
FIRST = 2  # where one is: one whose version was deleted behind its logged model is passed over


class MlflowVersions(MlflowJournal):
    """The part of `Registry` that reads versions, and shows at them what became of proposals."""

    def __init__(self, uri: str | None = None, *, create: bool = False) -> None:
        super().__init__(uri, create=create)
        self._places_of_bases: dict[str, list[str]] = {}  # experiments, by base
        self._sound = Sound()
        self._made: dict[str, str] = {}  # the last snapshot that was registered, by its source
        self._shown_proposals: dict[str, dict[int, str]] = {}

    def version(self, model: str, number: int) -> VersionRecord:
        """See `Registry`."""
        version = self.any_version(model, number)
        if isinstance(version, ForeignVersion):
            raise _not_ours(model, number)
        return version

    def any_version(self, model: str, number: int) -> AnyVersion:
        """See `Registry`."""
        entry = self._present_entry(model, number)
        if not _is_ours(entry):
            return ForeignVersion(model, number, str(entry.source), entry.creation_timestamp)
        with self._doing(f"read {model} v{number}"):
            return self._read(entry)

    def snapshot_of(self, model: str, number: int) -> str | None:
        """See `Registry`. A logged model that was made from here is not asked again."""
        entry = self._present_entry(model, number)
        if not _is_ours(entry):
            return None
        with self._doing(f"read {model} v{number}"):
            made = self._made.get(str(entry.source))
            return made or self._read(entry).tags["selfheal.snapshot"]

    def _present_entry(self, model: str, number: int) -> ModelVersion:
        entry = self._entry(model, number)
        if entry is None:
            raise VersionNotFound(
                f"model '{model}' has no version {number}; see 'selfheal snapshots'"
            )
        return entry

    def born_ms(self, model: str) -> int:
        """See `Registry`."""
        with self._doing(f"look up '{model}'"):
            return int(self._client.get_registered_model(model).creation_timestamp)

    def numbers(self, model: str, *, enough: int | None = None) -> list[int]:
        """See `Registry`."""
        numbers: list[int] = []
        token = None
        with self._doing(f"list the versions of '{model}'"):
            while True:
                page = self._client.search_model_versions(
                    f"name = '{model}'", 1_000, page_token=token
                )
                numbers += [int(entry.version) for entry in page]
                token = page.token
                if not token or (enough is not None and len(numbers) >= enough):
                    break
        if not numbers:
            self._require_known(model)
        return sorted(numbers)

    def versions(
        self, model: str, *, phase: Phase | None = None, sort: str = "version", limit: int = 100
    ) -> list[VersionRecord]:
        """See `Registry`."""
        conditions = {PHASE_TAG: phase.value} if phase else {}
        versions = list(islice(self._all(model, conditions, sort, limit), limit))
        if not versions:  # only then, since MLflow reads every version to tell of a model
            self._require_known(model)
        return versions

    def _require_known(self, model: str) -> None:
        with self._doing(f"list the versions of '{model}'"):
            if not self._client.search_registered_models(f"name = '{model}'"):
                raise VersionNotFound(
                    f"no registered model '{model}'; run 'selfheal run' or give --model"
                )

    def ranked(
        self, model: str, *, base: str, run_id: str | None = None
    ) -> Iterator[VersionRecord]:
        """See `Registry`."""
        return self._ranked(model, base, run_id, CANDIDATES)

    def _ranked(
        self, model: str, base: str, run_id: str | None, at_once: int
    ) -> Iterator[VersionRecord]:
        conditions = {PHASE_TAG: Phase.POST_HEAL.value, "selfheal.base": base}
        if run_id is None:
            versions = self._on_base(model, conditions, base, at_once)
        else:
            conditions["selfheal.run_id"] = run_id
            versions = self._search(model, conditions, "f1", at_once)
        scored = takewhile(lambda version: version.f1 is not None, versions)
        return self._sound.among(self, model, scored)

    def _on_base(
        self, model: str, conditions: Mapping[str, str], base: str, at_once: int
    ) -> Iterator[VersionRecord]:
        """One query where all versions on a base are of one model.

        Where another name shows up among them, its versions may have been copied or renamed to
        ``model``: only then is that asked, and whatever lies further down.
        """
        told: set[int] = set()
        for logged in self._logged(conditions, "f1", at_once, self._experiments_of(base)):
            if logged.tags.get("selfheal.model") != model:
                rest = self._all(model, conditions, "f1", at_once)
                yield from (version for version in rest if version.version not in told)
                return
            version = self._confirmed(model, logged)
            if version is not None:
                told.add(version.version)
                yield version

    def _experiments_of(self, base: str) -> list[str]:
        """Versions are kept where their base is."""
        if base not in self._places_of_bases:
            with suppress(MlflowException):  # a base that was deleted: its versions are asked for
                place = str(self._client.get_logged_model(base).experiment_id)
                self._places_of_bases[base] = [place]
        return self._places_of_bases.get(base) or self._all_experiments()

    def best(self, model: str, *, base: str, run_id: str | None = None) -> VersionRecord | None:
        """See `Registry`."""
        return next(self._ranked(model, base, run_id, FIRST), None)

    def _all(
        self, model: str, conditions: Mapping[str, str], sort: str, at_once: int
    ) -> Iterator[VersionRecord]:
        """Those that were registered under this name, and those that came from another one."""

        def height(version: VersionRecord) -> float:
            if sort == "version":
                return version.version
            return version.metrics.get(sort, float("-inf"))

        adopted = sorted(self._adopted(model, conditions), key=height, reverse=True)
        return merge(
            self._search(model, conditions, sort, at_once), adopted, key=height, reverse=True
        )

    def _adopted(self, model: str, conditions: Mapping[str, str]) -> Iterator[VersionRecord]:
        """Versions that were copied from another model, or whose model has had another name."""
        other = f"name = '{model}' AND tags.`selfheal.model` != '{model}'"
        on_entry = {key: value for key, value in conditions.items() if key in SHOWN_TAGS}
        wanted = " AND ".join((other, *_equal(on_entry)))
        with self._doing(f"search the versions of '{model}'"):
            for entry in every(partial(self._client.search_model_versions, wanted)):
                present = self._entry(model, int(entry.version))  # a search tells no aliases
                if present is not None:
                    with suppress(VersionCorrupt):
                        version = self._read(present)
                        if conditions.items() <= version.tags.items():
                            yield version

    def _search(
        self, model: str, conditions: Mapping[str, str], sort: str, at_once: int
    ) -> Iterator[VersionRecord]:
        """Versions that were registered under this name."""
        experiments = self._experiments or self._all_experiments()
        named = {"selfheal.model": model, **conditions}
        for logged in self._logged(named, sort, at_once, experiments):
            version = self._confirmed(model, logged)
            if version is not None:
                yield version

    def _logged(
        self, conditions: Mapping[str, str], sort: str, at_once: int, experiments: list[str]
    ) -> Iterator[LoggedModel]:
        """A query on the logged models, page by page."""
        field = "creation_timestamp" if sort == "version" else f"metrics.{sort}"
        token = None
        while True:
            with self._doing("search the versions"):
                page = self._client.search_logged_models(
                    experiments,
                    filter_string=" AND ".join(_equal(conditions)),
                    order_by=[
                        {"field_name": field, "ascending": False},
                        {"field_name": "creation_timestamp", "ascending": False},
                    ][: 1 if sort == "version" else 2],
                    max_results=min(at_once, 100),
                    page_token=token,
                )
            yield from page
            token = page.token
            if not token:
                return

    def _confirmed(self, model: str, logged: LoggedModel) -> VersionRecord | None:
        """The version of a logged model, if there is one still that can be read."""
        entry = self._entry_of(model, logged)
        if entry is not None:
            with suppress(VersionCorrupt):  # whoever asks for it by number is told
                return _record(entry, logged)
        return None

    def show_proposals(self, model: str, told: Mapping[int, str], waiting: Set[int]) -> None:
        """See `JournalStore`.

        The first time it looks for what one who was killed left as waiting.
        """
        shown = self._shown_proposals.get(model)
        with suppress(RegistryError), self._doing(f"show the proposals of '{model}'"):
            if shown is None:
                left = self._client.search_model_versions(
                    f"name = '{model}' AND tags.`{PROPOSAL_TAG}` LIKE '{WAITS}%'"
                )
                shown = {int(one.version): one.tags[PROPOSAL_TAG] for one in left}
                self._shown_proposals[model] = shown
            ended = {one for one in shown if shown[one].startswith(WAITS)} - waiting
            for number, text in {**dict.fromkeys(ended, ENDED), **told}.items():
                if shown.get(number) == text or (entry := self._entry(model, number)) is None:
                    continue
                now = str(entry.tags.get(PROPOSAL_TAG, ""))  # others write there, too
                if number in told or now.startswith(WAITS):
                    self._client.set_model_version_tag(model, str(number), PROPOSAL_TAG, text)
                    now = text
                shown[number] = now

    def _entry(self, model: str, number: int) -> ModelVersion | None:
        try:
            return self._client.get_model_version(model, str(number))
        except MlflowException as exc:
            if exc.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            with self._doing(f"read {model} v{number}"):
                raise

    def _entry_of(self, model: str, logged: LoggedModel) -> ModelVersion | None:
        """The version of a logged model; a deleted model's name may have been taken again."""
        linked = json.loads(logged.tags.get(VERSIONS_TAG, "[]"))
        numbers = [int(link["version"]) for link in linked if link["name"] == model]
        entry = self._entry(model, numbers[-1]) if numbers else None
        return entry if entry and entry.source == f"models:/{logged.model_id}" else None

    def _read(self, entry: ModelVersion) -> VersionRecord:
        return _record(entry, self._client.get_logged_model(self._logged_model_of(entry)))

    def _logged_model_of(self, entry: ModelVersion) -> str:
        """The logged model behind a version.

        A copy's source is the version that it was copied from, which may be a copy as well, or
        gone; as in MLflow the place of the files says what both stand on.
        """
        source = str(entry.source).removeprefix("models:/")
        if not is_copy(entry):
            return source
        place = self._client.get_model_version_download_uri(entry.name, entry.version)
        named = LOGGED_MODEL.findall(place)
        if not named:
            raise VersionNotFound(
                f"{entry.name} v{entry.version} is a copy of {source} that names no logged model"
            )
        return str(named[-1])


def _equal(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{key}` = '{value}'" for key, value in tags.items()]


def _is_ours(entry: ModelVersion) -> bool:
    return PHASE_TAG in entry.tags and str(entry.source).startswith("models:/")


def is_copy(entry: ModelVersion) -> bool:
    """Whether a version was copied from another one, whose files it uses."""
    return "/" in str(entry.source).removeprefix("models:/")


def _not_ours(model: str, number: int) -> VersionNotFound:
    return VersionNotFound(
        f"{model} v{number} was not registered by selfheal: it has none of its tags"
    )


def _record(entry: ModelVersion, logged: LoggedModel) -> VersionRecord:
    if PHASE_TAG not in entry.tags:
        raise _not_ours(entry.name, int(entry.version))
    both = {**logged.tags, **entry.tags}
    tags = {key: str(value) for key, value in both.items() if key.startswith("selfheal.")}
    for name, read in READ_AS.items():
        try:
            if name in tags:
                read(tags[name])
        except ValueError as exc:
            raise VersionCorrupt(
                f"{entry.name} v{entry.version}: tag {name} is {tags[name]!r}, which selfheal "
                "never writes; see 'selfheal audit'"
            ) from exc
    return VersionRecord(
        model=entry.name,
        version=int(entry.version),
        phase=Phase(tags[PHASE_TAG]),
        batch=int(tags.get("selfheal.batch", 0)),
        metrics={metric.key: metric.value for metric in logged.metrics or ()},
        tags=tags,
        created_ms=entry.creation_timestamp,
        aliases=tuple(sorted(entry.aliases)),
    )
