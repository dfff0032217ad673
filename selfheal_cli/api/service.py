"""A model inside a program: it scores, and heals in the background from what it is shown."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
from filelock import FileLock

from selfheal_cli.actor import actor, clock, now_text
from selfheal_cli.api.deciding import HealDecisions
from selfheal_cli.api.estimator import live_estimator, live_pipeline
from selfheal_cli.api.intake import ProgramModel, live_module
from selfheal_cli.api.own import named_adapter, named_monitors, named_rules
from selfheal_cli.api.replica import Program, Replica, champion_for
from selfheal_cli.api.report import Report, report_of
from selfheal_cli.api.state import Labelled, ModelState, Summary, state_of
from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    Policy,
    PushedSettings,
    RunConfig,
    checked,
)
from selfheal_cli.errors import (
    Closed,
    ConfigurationError,
    DataError,
    ModelError,
    SelfhealError,
    one_line,
)
from selfheal_cli.estimators.taking import is_estimator
from selfheal_cli.forks import expect_forks
from selfheal_cli.heal.recipe import check_place, check_recipe
from selfheal_cli.installed import name_of
from selfheal_cli.model.adapters import REFLEXIVE
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.cutting import AUTO
from selfheal_cli.model.description import name_of as maker
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.inputs import AskedInput, parse_inputs
from selfheal_cli.pipeline.prepare.objective import by_the_model
from selfheal_cli.pipeline.prepare.wrapped import PREFIX
from selfheal_cli.pipeline.runs.run import Finished, RunContext
from selfheal_cli.pipeline.runs.wrap import add_wrapped, require_name, usual_recipe, wrapped_on
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.mlflow.store import close_connections
from selfheal_cli.rollback.paired import plan_better
from selfheal_cli.rollback.plan import By, RollbackPlan, execute, plan_previous, plan_version
from selfheal_cli.serve.http.model import Scorer
from selfheal_cli.settings import own_data
from selfheal_cli.sources.pushed import Reference
from selfheal_cli.spool.entries import Feedback
from selfheal_cli.spool.file import spool_path
from selfheal_cli.workspace import OWNERS_FOLDER

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import nn

    from selfheal_cli.records import FloatArray

KEEP_ROWS = 1_000_000
To = int | Literal["better", "previous"]


class SelfHealing(HealDecisions):
    """A trained module that scores, and heals in the background from what it is shown.

    ``x`` (n, ...) and ``y`` (n,) are rows that the module was trained on, or like them: they say
    what is normal, and that the wrapped module decides as before. Every row that is given is of
    that shape. ``rules`` are domain rules over ``columns`` (``x0``, ``x1``, ... where none are
    named), a value of a row each. ``labels`` are the classes' words, in their order. ``at`` is the
    layer that the ``adapter`` (``reflexive``, ``affine`` or ``lora:RANK``) goes to; docs/models.md
    says which recipe fits where; None is ``ensemble``, and ``gradient`` where that does not fit.
    ``settings`` are others of `HealSettings`, such as
    ``learning_rate`` and ``steps``; ``policy`` are thresholds. ``monitors`` say whether rows moved:
    None are those of own data, ``[]`` is none. ``recipe``, ``adapter``, ``rules``
    and ``monitors`` are named, or parts of the program's own: docs/own-parts.md.

    ``module`` may be a classifier of scikit-learn's, LightGBM's, XGBoost's or CatBoost's as well:
    then ``x`` is a table as in its training, and what is said here of a module's layers, inputs and
    constructor is refused. ``preprocess`` is a fitted pipeline of scikit-learn's that the table
    goes through before a module. ``inputs`` say what a module takes where it is not one row of
    numbers, as ``wrap --input`` does: ``["x_num=age,amount", "x_cat=tokens:job"]``. A module is
    built again from its class and layers, with the arguments ``init`` where it does not keep them,
    or by a ``factory``, a function of a module that can be imported, with these arguments. Tables
    (DataFrames) are taken by their columns' names, arrays by position. ``gives`` says what the
    module gives where that cannot be seen: ``logits``, ``probabilities``, or the KEY of one of
    several outputs; ``output`` is its old name.

    What is scored and told is kept in this folder, the latest ``keep_rows`` rows of it, until it
    was healed on and beyond, for labels that come later. A program that is begun again with the
    same module and rows goes on where it ended, also after it was killed; `load` does without
    either. Another module, or other rows, are a new baseline, which becomes the champion if neither
    a hold nor four eyes forbid it. Any number of processes of one folder may make the same: one of
    them heals, the others follow and hand over what they are told, and one takes over where it
    dies. A fork goes on as one of them.

    Rows that do not fill a batch of ``batch_size`` wait for ``max_wait`` seconds, or for more.
    Heals run in a process of their own; with ``mode="sync"`` in this one, batch after batch, so
    that the same rows give the same bytes. Usable from any number of threads; close it, or use it
    as a context manager. Raises `SelfhealError` kinds.
    """

    def __init__(
        self,
        module: nn.Module | Any,
        x: ArrayLike,
        y: ArrayLike,
        *,
        name: str,
        columns: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        rules: Sequence[str | Callable[..., Any]] = (),
        monitors: Sequence[Any] | None = None,
        batch_size: int = 100,
        recipe: Any = None,
        at: str = AUTO,
        adapter: Any = REFLEXIVE,
        inputs: Sequence[str] = (),
        init: Mapping[str, Any] | None = None,
        factory: str | Callable[..., Any] | None = None,
        preprocess: Any = None,
        gives: str = ANY_OUTPUT,
        output: str | None = None,
        mode: Literal["async", "sync"] = "async",
        settings: Mapping[str, Any] | None = None,
        policy: Policy | None = None,
        max_wait: float = float("inf"),
        keep_rows: int = KEEP_ROWS,
        tracking_uri: str | None = None,
    ) -> None:
        require_name(name)
        _require_pace(max_wait, keep_rows)
        policy = _without_canary(own_data.PUBLISHING if policy is None else policy)
        adapter = named_adapter(adapter)
        how = {"at": at, "adapter": adapter, "init": init, "output": _gives(gives, output)}
        how["factory"] = factory if factory is None or isinstance(factory, str) else maker(factory)
        given = _model_of(module, preprocess, x, (columns, labels), parse_inputs(inputs), how)
        network, base, intake = given.network, given.base, given.intake
        recipe = usual_recipe(network) if recipe is None else name_of("recipe", recipe)
        heal = _heal_settings(recipe, mode, settings)
        check_recipe(heal, LabelSettings(regime="arriving"), max(network.architecture.outputs, 2))
        check_place(heal, network)
        classes = intake.classes(y, len(given.x), "y")
        if len(set(classes.tolist()) - {-1}) < 2 and not rules:
            raise DataError("y: is of one class; rows of two or more say what is normal")
        with _alone(name):
            registry = MlflowRegistry(tracking_uri, create=True)
            number = wrapped_on(registry, name, base)
            if number is None:
                origin, around = type(module).__qualname__, RunContext(registry, clock, actor())
                number = add_wrapped(network, base, name, origin, around, promote=True).version
            config = _config_of(
                number, name, intake.names, heal, batch_size, rules, monitors, policy
            ).model_copy(update={"objective": by_the_model(encoding_of(base).model)})
            settled = config.model_dump_json()
            reference = Reference(
                given.x, classes, intake.names, intake.labels, intake.shape, settled,
                given.vocabulary,
            )  # fmt: skip
            reference.save(spool_path(name).parent)
        self._begin(Program(config, reference, max_wait, keep_rows), registry, tracking_uri)

    @classmethod
    def load(
        cls, name: str, *, max_wait: float = float("inf"), keep_rows: int = KEEP_ROWS,
        tracking_uri: str | None = None,
    ) -> Self:  # fmt: skip
        """A model that was made in this folder before, as it serves now, without its module.

        Raises `DataError` where none of that name was made here, and `RegistryError`.
        """
        require_name(name)
        _require_pace(max_wait, keep_rows)
        registry = MlflowRegistry(tracking_uri)
        reference = Reference.load(spool_path(name).parent)
        config = RunConfig.model_validate_json(reference.settings)
        model = cls.__new__(cls)
        model._begin(Program(config, reference, max_wait, keep_rows), registry, tracking_uri)
        return model

    def _begin(self, program: Program, registry: MlflowRegistry, tracking_uri: str | None) -> None:
        self._program = program
        self._intake = program.intake
        self._tracking_uri = tracking_uri
        self._scorer = Scorer(champion_for(registry, program))
        self._closing = threading.Lock()
        self._summary: Summary | None = None
        self._replica = Replica(program, self._scorer, registry)
        _forked.add(self)

    @property
    def name(self) -> str:
        """The registered model's."""
        return self._program.name

    @property
    def classes_(self) -> tuple[str, ...]:
        """The classes' words, in the order of `predict_proba`'s columns."""
        return self._intake.labels

    @property
    def finished(self) -> Finished | None:
        """The run that ended, once the model is closed, in the process that healed."""
        return self._replica.finished

    def predict(self, x: Any) -> FloatArray:
        """Rows (n, ...) to probabilities, (n,) for two classes, else (n, K); takes no lock."""
        return self._answer(self._intake.rows(x))

    def predict_one(self, row: Mapping[str, Any]) -> float | dict[str, float]:
        """The probability of one row, as a dictionary by column; of more than two classes, each's
        by its word.
        """
        p = self._answer(self._intake.rows(row, "row"))[0]
        if p.ndim == 0:
            return float(p)
        return dict(zip(self.classes_, map(float, p), strict=True))

    def predict_proba(self, x: Any) -> FloatArray:
        """Rows (n, ...) to a probability for each class (n, K), as scikit-learn has it."""
        p = self.predict(x)
        return p if p.ndim == 2 else np.stack([1 - p, p], axis=1)

    def score(
        self, rows: Any, ids: ArrayLike | None = None, *, durable: bool = False
    ) -> FloatArray:  # fmt: skip
        """`predict`, and keep rows and answers: to be watched, and learned from once `label` says
        what they were. ``ids`` (n,) name them; one that comes again stands for the later row.

        On disk within about 30 ms, which a process that is killed loses; with ``durable`` when
        this returns. Raises `RepeatedId` kinds, `Closed`, and with ``durable`` `StorageError`.
        """
        taken = self._intake.rows(rows, "rows")
        names = None if ids is None else self._intake.ids(ids, len(taken))
        replica, served = self._running(), self._scorer.served
        answers = self._answer(taken)
        replica.scored(taken, answers, served, names, durable=durable)
        return answers

    def label(self, ids: ArrayLike, y: Any) -> Labelled:
        """Say what scored rows really were: late, in any order, from any process, more than once.

        Kept on disk when this returns. A row keeps its first label; ids that were never scored
        here, or long ago, are given back. Raises `UnknownClass` before anything is kept.
        """
        names = [str(one) for one in self._intake.ids(ids, np.size(np.asarray(ids, dtype=object)))]
        classes = self._intake.classes(y, len(names), "y").tolist()
        replica = self._running()
        told = [Feedback(y, key=key) for key, y in zip(names, classes, strict=True) if y >= 0]
        joined = replica.label(told)
        return Labelled(joined.joined, joined.repeated, joined.other, joined.strangers)

    def observe(self, x: Any, labels: Any = None) -> bool:
        """Show rows (n, ...) with their classes (n,) where they are known.

        Returns at once; False where the rows were turned away, since the disk is far behind.
        Raises what prevents healing, if something does.
        """
        rows = self._intake.rows(x)
        unknown = np.full(len(rows), -1, dtype=np.int8)
        y = unknown if labels is None else self._intake.classes(labels, len(rows))
        replica = self._running()
        kept = replica.shown(rows, y)
        self._require_no_error()
        return kept

    def learn_one(self, row: Mapping[str, Any], y: Any) -> None:
        """`observe` for one row, as river has it."""
        self.observe([row], [y])

    async def apredict(self, x: Any) -> FloatArray:
        """`predict`, while the event loop does something else."""
        return await asyncio.to_thread(self.predict, x)

    async def ascore(
        self, rows: Any, ids: ArrayLike | None = None, *, durable: bool = False
    ) -> FloatArray:  # fmt: skip
        """`score`, while the event loop does something else."""
        return await asyncio.to_thread(self.score, rows, ids, durable=durable)

    async def alabel(self, ids: ArrayLike, y: Any) -> Labelled:
        """`label`, while the event loop does something else."""
        return await asyncio.to_thread(self.label, ids, y)

    async def aobserve(self, x: Any, labels: Any = None) -> bool:
        """`observe`, while the event loop does something else."""
        return await asyncio.to_thread(self.observe, x, labels)

    @property
    def state(self) -> ModelState:
        """How it stands, by the process that heals; asks no registry, which a thread does."""
        if self._summary is not None:
            return self._summary.state
        return state_of(self._here(), self.name)

    def report(self, path: str | Path | None = None) -> Report:
        """The page of the run that heals, or healed last, written to ``path`` or beside its log;
        raises `SelfhealError` where nothing was healed in this folder yet.
        """
        run = self.state.run_id
        if not run:
            raise SelfhealError(f"'{self.name}': no run has begun in this folder yet")
        return report_of(run, None if path is None else Path(path))

    @overload
    def rollback(self, reason: str = ..., *, to: To = ..., plan: Literal[False] = ...) -> int: ...

    @overload
    def rollback(self, reason: str = ..., *, to: To = ..., plan: Literal[True]) -> RollbackPlan: ...

    def rollback(
        self,
        reason: str = "asked for by the program",
        *,
        to: To = "better",
        plan: bool = False,
    ) -> int | RollbackPlan:
        """Make a version the champion, once everything about it is checked: by its number, the one
        that served before, or a better one. With ``plan`` nothing is moved: what would be is
        returned.

        Better is what would have lost less than what served, row by row on the latest labelled
        rows, beyond chance; with recipe article, and where the rows are too few to say, what had
        the highest F1. It serves within about a second. Returns its number. Raises
        `NoCandidateError`, also where no version is better than the serving one,
        `ConflictError` where somebody else moved the champion meanwhile (ask again),
        `ApprovalNeeded` where the model wants two people for that.
        """
        registry, name = self._here().registry, self.name
        if to == "better":
            planned = plan_better(registry, name)
        elif to == "previous":
            planned = plan_previous(registry, name)
        else:
            planned = plan_version(registry, name, to)
        if plan:
            return planned
        execute(registry, planned, By(actor(), now_text(), reason))
        self._replica.known.look()
        return planned.target.version

    def close(self) -> Summary:
        """Write down what was given, and in the process that heals: heal on it, bring everything to
        the registry, and end the run. `predict` goes on working.
        """
        with self._closing:
            if self._summary is None:
                replica = self._here()
                replica.end()
                self._require_no_error()
                replica.known.look()
                self._summary = Summary(replica.finished, state_of(replica, self.name))
                replica.release()
            return self._summary

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def __repr__(self) -> str:
        served = self._scorer.served
        what = "closed" if self._summary is not None else f"v{served.shown_version} serves"
        return f"<SelfHealing '{self.name}': {what}>"

    def _answer(self, rows: FloatArray) -> FloatArray:
        if self._replica.pid != os.getpid() and self._summary is None:
            self._here()  # so that a fork which only predicts follows
        served = self._scorer.served
        try:
            return served.scoring.predict(self._intake.inputs(rows, served.quick))
        except Exception as exc:  # the module's own code
            raise DataError(f"the model fails on these rows: {one_line(exc)}") from exc

    def _here(self) -> Replica:
        """This process's own, also after a fork."""
        if self._replica.pid != os.getpid():
            with self._closing:
                if self._replica.pid != os.getpid():
                    # OpenMP's threads stay with the parent: who asked for one would wait for ever
                    use_one_thread()
                    _left_to_parents.append(self._replica)
                    registry = MlflowRegistry(self._tracking_uri)
                    self._replica = Replica(self._program, self._scorer, registry)
        return self._replica

    def _running(self) -> Replica:
        if self._summary is not None:
            raise Closed(f"'{self.name}' is closed")
        return self._here()

    def _require_no_error(self) -> None:
        """Raise what prevents healing, as an error of ours."""
        error = self._replica.error
        if isinstance(error, SelfhealError):
            raise error
        if error is not None:
            raise SelfhealError(f"healing '{self.name}' ended: {one_line(error)}") from error


def _model_of(
    module: Any, preprocess: Any, x: Any,
    spoken: tuple[Sequence[str] | None, Sequence[str] | None],
    asked: Sequence[AskedInput], how: Mapping[str, Any],
) -> ProgramModel:  # fmt: skip
    """What the program handed over, by what it is; ``spoken`` names columns and classes."""
    if not is_estimator(module):
        if preprocess is not None:
            return live_pipeline(preprocess, module, x, *spoken, asked, **how)
        return live_module(module, x, *spoken, asked, **how)
    usual = {"at": AUTO, "adapter": REFLEXIVE, "init": None, "factory": None, "output": ANY_OUTPUT}
    said = [name for name, value in usual.items() if how[name] != value]
    said += ["inputs"] * bool(asked) + ["preprocess"] * (preprocess is not None)
    if said:
        word = "gives" if said[0] == "output" else said[0]
        raise ModelError(
            f"{word}= is for torch modules, and a {type(module).__name__} is none: leave it out"
        )
    return live_estimator(module, x, *spoken)


def load(
    name: str, *, max_wait: float = float("inf"), keep_rows: int = KEEP_ROWS,
    tracking_uri: str | None = None,
) -> SelfHealing:  # fmt: skip
    """As `SelfHealing.load`."""
    return SelfHealing.load(name, max_wait=max_wait, keep_rows=keep_rows, tracking_uri=tracking_uri)


def _alone(name: str) -> FileLock:
    """Held while a model is registered: of several processes that begin at once, one does it."""
    folder = spool_path(name).parent
    folder.mkdir(OWNERS_FOLDER, parents=True, exist_ok=True)
    return FileLock(folder / "beginning.lock")


def _heal_settings(
    recipe: str, mode: Literal["async", "sync"], settings: Mapping[str, Any] | None
) -> HealSettings:
    """As a run on own data has them, but for what the program says."""
    values = {**own_data.healing(recipe), **(settings or {}), "recipe": recipe, "mode": mode}
    return checked(HealSettings, values, where="SelfHealing")


def _gives(gives: str, output: str | None) -> str:
    if output is None:
        return gives
    warnings.warn("SelfHealing(output=) is gives= now", DeprecationWarning, stacklevel=3)
    return output


def _require_pace(max_wait: float, keep_rows: int) -> None:
    if not max_wait >= 0 or keep_rows < 1:
        raise ConfigurationError(
            f"max_wait = {max_wait}, keep_rows = {keep_rows}: seconds from 0, and rows from 1 are "
            "allowed"
        )


def _without_canary(given: Policy | Mapping[str, Any]) -> Policy:
    """A policy, or the values of one. A program has no requests of which a share could go
    elsewhere; raises `ConfigurationError` where its policy wants that.
    """
    if not isinstance(given, Policy | Mapping):
        raise ConfigurationError(f"policy: a selfheal_cli.Policy is needed, given: {given!r}")
    policy = given if isinstance(given, Policy) else checked(Policy, given, where="policy")
    if policy.canary_share is not None:
        raise ConfigurationError(
            "SelfHealing: policy.canary_share is for a server, which answers requests; leave it "
            "out, or serve the model with 'selfheal serve'"
        )
    return policy


def _config_of(
    number: int, name: str, inputs: tuple[str, ...], heal: HealSettings, batch_size: int,
    rules: Sequence[str | Callable[..., Any]], monitors: Sequence[Any] | None, policy: Policy,
) -> RunConfig:  # fmt: skip
    """The configuration of a run whose rows a program pushes."""
    values = {
        "source": PushedSettings(inputs=inputs),
        "model": f"{PREFIX}{name}/{number}",
        "model_name": name,
        "heal": heal,
        "labels": LabelSettings(regime="arriving"),
        "policy": policy,
        "batch_size": batch_size,
        "rules": named_rules(rules),
        "monitors": own_data.monitors() if monitors is None else named_monitors(monitors),
        "drift_by": own_data.DRIFT_BY,
        "plots": False,
    }
    return checked(RunConfig, values, where="SelfHealing")


_forked: weakref.WeakSet[SelfHealing] = weakref.WeakSet()
_left_to_parents: list[Replica] = []  # never closed here: their files are open in the parent


def _after_fork() -> None:
    """What the child has of its parent's threads: locks that nobody lets go of."""
    for model in list(_forked):
        model._closing = threading.Lock()
        model._replica.leave()


expect_forks(close_connections)
os.register_at_fork(after_in_child=_after_fork)
