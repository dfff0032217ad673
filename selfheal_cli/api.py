"""selfheal inside a service of your own: wrap a module, predict, observe, roll back."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from selfheal_cli.actor import actor, clock, now_text
from selfheal_cli.config import HealSettings, LabelSettings, PushedSettings, RunConfig, checked
from selfheal_cli.errors import DataError, SelfhealError, one_line
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.heal.recipe import check_place, check_recipe
from selfheal_cli.model.adapters import REFLEXIVE
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.cutting import AUTO
from selfheal_cli.model.wrapping import wrap
from selfheal_cli.pipeline.prepare.foreign import SAMPLE, Sample, base_of
from selfheal_cli.pipeline.prepare.wrapped import PREFIX, find_wrapped
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.pipeline.runs.wrap import add_wrapped, require_name, wrapped_on
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.paired import plan_better
from selfheal_cli.rollback.plan import By, execute, plan_previous, plan_version
from selfheal_cli.sources.given import as_array, named_columns
from selfheal_cli.sources.pushed import PushedSource, Reference

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from selfheal_cli.records import FloatArray, LabelArray


class SelfHealing:
    """A trained module that scores, and heals in the background from what it is shown.

    ``x`` (n, ...) and ``y`` (n,) are rows that the module was trained on, or like them: they say
    what is normal, and that the wrapped module decides as before. Every row that is given is of
    that shape. ``rules`` are domain rules over ``columns`` (``x0``, ``x1``, ... where none are
    named), a value of a row each. ``at`` is the layer that the ``adapter`` (``reflexive``,
    ``affine`` or ``lora:RANK``) goes to; docs/models.md says which recipe fits where.
    ``settings`` are others of `HealSettings`, such as ``learning_rate`` and ``steps``.
    A service that is begun again with the same module and rows goes on from the champion that was
    healed; another module, or other rows, are a new baseline, which becomes the champion if neither
    a hold nor four eyes forbid it.
    Tables (DataFrames) are taken by their columns' names, arrays by position. ``output`` says what
    the module gives where that cannot be seen: ``logits`` or ``probabilities``. Torch computes on
    one thread in this process from here on.
    Heals run in a process of their own; with ``mode="sync"`` in this one, batch after batch, so
    that the same rows give the same bytes. Usable from any number of threads; close it, or use it
    as a context manager. Raises `SelfhealError` kinds.
    """

    def __init__(
        self,
        module: nn.Module,
        x: ArrayLike,
        y: ArrayLike,
        *,
        name: str,
        columns: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        rules: Sequence[str] = (),
        batch_size: int = 100,
        recipe: str = "anchored",
        at: str = AUTO,
        adapter: str = REFLEXIVE,
        init: Mapping[str, Any] | None = None,
        output: str = ANY_OUTPUT,
        mode: Literal["async", "sync"] = "async",
        settings: Mapping[str, Any] | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        require_name(name)
        flat, sample = self._shown(x, columns)
        network = wrap(
            module, sample.rows, shape=sample.shape, dtype=sample.dtype, at=at, adapter=adapter,
            init=init, output=output,
        )  # fmt: skip
        by = {"better_by": "f1" if recipe == "article" else "paired"}
        heal = checked(
            HealSettings, {**by, **(settings or {}), "recipe": recipe, "mode": mode},
            where="SelfHealing",
        )  # fmt: skip
        check_recipe(heal, LabelSettings(regime="timed"), max(network.architecture.outputs, 2))
        check_place(heal, network)
        base = base_of(network, sample, labels)
        self._labels = tuple(base.describe()["labels"])
        self._registry = MlflowRegistry(tracking_uri, create=True)
        self._name = name
        around = RunContext(self._registry, clock, actor(), on_live=self._went_live)
        number = wrapped_on(self._registry, name, base)
        if number is None:
            origin = type(module).__qualname__
            number = add_wrapped(network, base, name, origin, around, promote=True).version
        config = _config_of(f"{PREFIX}{name}/{number}", name, self._names, heal, batch_size, rules)
        wrapped = find_wrapped(self._registry, config.model or name)
        reference = Reference(flat, self._classes(y, len(flat)), self._names, self._labels)
        self._source = PushedSource(reference, batch_size, wrapped.encoding)
        self._live: LiveModel | None = None
        self._network = wrapped.network
        self._error: BaseException | None = None
        self.finished: Finished | None = None
        self._thread = threading.Thread(
            target=self._run, args=(config, around), name=f"selfheal-{name}", daemon=True
        )
        self._thread.start()

    def _shown(self, x: ArrayLike, columns: Sequence[str] | None) -> tuple[FloatArray, Sample]:
        """The rows (n, d) that say what is normal, and whole ones to try the module on."""
        table = named_columns(x)
        self._names: tuple[str, ...] = tuple(columns or table or ())
        given = as_array(x, self._names)
        self._shape = given.shape[1:]
        flat = self._rows(given)
        names = self._names or tuple(f"x{place}" for place in range(flat.shape[1]))
        if len(names) != flat.shape[1]:
            raise DataError(f"{len(names)} columns are named, a row has {flat.shape[1]} values")
        self._names = names
        whole = flat[np.isfinite(flat).all(axis=1)]
        if not len(whole):
            raise DataError("x: every row misses a value; some whole rows are needed")
        dtype = "int64" if np.issubdtype(given.dtype, np.integer) else "float32"
        return flat, Sample(whole[:SAMPLE], names, self._shape, dtype)

    def predict(self, x: ArrayLike) -> FloatArray:
        """Rows (n, ...) to probabilities, (n,) for two classes, else (n, K); takes no lock."""
        rows, live = self._rows(as_array(x, self._names)), self._live
        rows = self._source.encoding.filled(rows)
        try:
            return self._network.predict(rows) if live is None else live.predict(rows)
        except Exception as exc:  # the module's own code
            raise DataError(f"the model fails on these rows: {one_line(exc)}") from exc

    def observe(self, x: ArrayLike, labels: ArrayLike | None = None) -> bool:
        """Show rows (n, ...) that were scored, with their classes (n,) where they are known.

        Returns at once; False where the rows were turned away, since healing is far behind.
        Raises what ended the background run, if something did.
        """
        self._require_running()
        rows = self._rows(as_array(x, self._names))
        unknown = np.full(len(rows), -1, dtype=np.int8)
        y = unknown if labels is None else self._classes(labels, len(rows))
        return self._source.push(rows, y)

    def rollback(
        self,
        reason: str = "asked for by the program",
        *,
        to: int | Literal["better", "previous"] = "better",
    ) -> int:
        """Make a version the champion, once everything about it is checked: by its number, the one
        that served before, or a better one.

        Better is what would have lost less than what served, row by row on the latest labelled
        rows, beyond chance; with recipe article, and where the rows are too few to say, what had
        the highest F1. It serves within about a second. Returns its number. Raises
        `NoCandidateError`, also where no version is better than the serving one,
        `ConflictError` where somebody else moved the champion meanwhile (ask again),
        `ApprovalNeeded` where the model wants two people for that.
        """
        registry, name = self._registry, self._name
        if to == "better":
            plan = plan_better(registry, name)
        elif to == "previous":
            plan = plan_previous(registry, name)
        else:
            plan = plan_version(registry, name, to)
        execute(self._registry, plan, By(actor(), now_text(), reason))
        return plan.target.version

    def close(self) -> Finished:
        """Heal with what was shown, bring everything to the registry, and end the run."""
        if self._thread.is_alive():
            self._source.end()
            self._thread.join()
        self._require_no_error()
        if self.finished is None:
            raise SelfhealError(f"the run of '{self._name}' ended without a result")
        return self.finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _run(self, config: RunConfig, around: RunContext) -> None:
        try:
            self.finished = run(config, self._source, around, go_on=True)
        except BaseException as exc:  # told by the next call
            self._error = exc

    def _went_live(self, live: LiveModel) -> None:
        self._live = live

    def _require_running(self) -> None:
        self._require_no_error()
        if not self._thread.is_alive():
            raise SelfhealError(f"'{self._name}' is closed")

    def _require_no_error(self) -> None:
        """Raise what ended the background run, as an error of ours."""
        if isinstance(self._error, SelfhealError) or not isinstance(self._error, Exception | None):
            raise self._error
        if self._error is not None:
            reason = one_line(self._error)
            raise SelfhealError(f"the run of '{self._name}' ended: {reason}") from self._error

    def _rows(self, x: NDArray[Any]) -> FloatArray:
        if x.shape[1:] != self._shape:
            raise DataError(f"rows have shape {x.shape[1:]}, the model takes {self._shape}")
        with np.errstate(over="ignore"):  # what is too large is infinite, and said to be below
            rows = np.ascontiguousarray(x.reshape(len(x), prod(self._shape)), dtype=np.float32)
        if np.isinf(rows).any():
            row, place = np.argwhere(np.isinf(rows))[0]
            raise DataError(f"row {row}, value {place}: {rows[row, place]} is not a finite number")
        return rows

    def _classes(self, labels: ArrayLike, rows: int) -> LabelArray:
        y = as_array(labels)
        if y.shape != (rows,):
            raise DataError(f"labels have shape {y.shape}, {rows} rows need ({rows},)")
        if not np.isin(y, np.arange(-1, len(self._labels))).all():
            raise DataError(
                f"labels are classes from 0 to {len(self._labels) - 1}, -1 where unknown; "
                f"found {sorted(set(y.tolist()))[:5]}"
            )
        return y.astype(np.int8)


def _config_of(
    model: str, name: str, inputs: tuple[str, ...], heal: HealSettings, batch_size: int,
    rules: Sequence[str],
) -> RunConfig:  # fmt: skip
    """The configuration of a run whose rows a program pushes."""
    values = {
        "source": PushedSettings(inputs=inputs),
        "model": model,
        "model_name": name,
        "heal": heal,
        "labels": LabelSettings(regime="timed"),
        "batch_size": batch_size,
        "rules": tuple(rules),
        "plots": False,
    }
    return checked(RunConfig, values, where="SelfHealing")
