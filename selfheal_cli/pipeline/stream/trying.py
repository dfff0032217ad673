"""What begins and ends a canary: heals, its figures, people, and a champion that was moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from selfheal_cli.events.types import CanaryBegan, CanaryEnded, CanaryOrdered, CanaryResumed
from selfheal_cli.heal.engine import Serving
from selfheal_cli.heal.task import AdapterState
from selfheal_cli.pipeline.stream.allowance import Allowance
from selfheal_cli.pipeline.stream.canary import Canary, CanaryTrial, Decided, TriedBefore
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.evaluating import EvaluatedHeal
from selfheal_cli.pipeline.stream.ordered import OrderedCanary
from selfheal_cli.pipeline.stream.outside import CanaryWithdrawn, ModeChange
from selfheal_cli.registry.base import CANARY, CHAMPION, HEAL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfheal_cli.labels.queue import Scored
    from selfheal_cli.records import Batch

NO_CANARIES = "the server's policy tries nothing: it has no canary_share"


class Canaries:
    """One canary at a time beside what serves.

    ``propose`` has a snapshot proposed for a reason; ``on_end`` is called when one ends.
    """

    def __init__(
        self,
        run: SessionContext,
        allowance: Allowance | None,
        propose: Callable[[str, str], None],
        on_end: Callable[[], None],
    ) -> None:
        self.trial = CanaryTrial(run)
        self._live, self._state, self._recorder = run.live, run.state, run.recorder
        self._allowance, self._propose, self._on_end = allowance, propose, on_end
        self._four_eyes = run.config.policy.four_eyes
        self._order: OrderedCanary | None = None  # to be carried out with the next rows

    @property
    def now(self) -> Canary | None:
        """What is tried."""
        return self.trial.now

    @property
    def wanted(self) -> bool:
        """Whether heals are canaries first."""
        return self.trial.limits is not None

    def begin_from(self, tried: TriedBefore | None) -> None:
        """A session begins, which goes on with what was tried before."""
        if tried is not None and tried.canary is not None:
            self.trial.go_on(tried.canary)
        else:
            self.trial.end()

    def resume(self, tried: TriedBefore) -> None:
        """Say what goes on of an earlier run, or why it is over."""
        canary = tried.canary
        if tried.order is not None:
            self.order(tried.order)
        elif canary is None:
            self._refuse(tried.over, batch=0)
        else:
            self._state.proposed.add(canary.served.snapshot)
            self._recorder.restored(canary.served.snapshot, tried.version)
            self._recorder.note(
                CanaryResumed(
                    batch=0, reason="it ran when the run before ended", heal_id=canary.heal_id,
                    snapshot=canary.served.snapshot, version=tried.version,
                    against=canary.against.snapshot, share=canary.share, by=canary.by,
                    since=canary.since, until=canary.until, seen=asdict(canary.seen),
                    rows=canary.rows, through=canary.through.as_dict(), ordered=canary.ordered,
                    base=canary.base,
                )
            )  # fmt: skip

    def observe(
        self, scored: Scored, batch: Batch, may: NDArray[np.bool_] | None, held: Sequence[Scored]
    ) -> None:
        """Show what is tried which rows were scored and which labels came."""
        self.end_if_overtaken()
        decided = self.trial.observe(scored, batch, may, held)
        if decided is not None:
            self._decide(decided)
        if self._order is not None:
            self._carry_out(self._order)

    def try_heal(self, ready: EvaluatedHeal) -> None:
        """Have a heal answer a share."""
        event = ready.event
        served = Serving(ready.network, ready.outcome.after, event.to_snapshot, event.threshold)
        self._state.proposed.add(event.to_snapshot)  # a person may make it the champion
        canary = self.trial.begin(served, event.heal_id)
        self._recorder.note(
            CanaryBegan.of(
                event, against=canary.against.snapshot, share=canary.share, by=canary.by,
                since=canary.since, until=canary.until, through=canary.through.as_dict(),
            )
        )  # fmt: skip
        self._recorder.point(CANARY, event.to_snapshot, f"{HEAL}{event.heal_id}: {event.reason}")

    def order(self, order: OrderedCanary) -> None:
        """Somebody wants a version tried; it takes the place of what is."""
        self._order = None
        if self.now is not None:
            why = f"v{order.move.target} is to be tried in its place: {order.move.reason}"
            self._end(Decided("withdrawn", why, order.move.actor))
        error = order.error or ("" if self.wanted else NO_CANARIES)
        if error:
            self._refuse(error)
        else:
            self._order = order

    def withdraw(self, order: CanaryWithdrawn) -> None:
        """Somebody has the canary tried no more, and took its alias."""
        self._order = None
        if self.now is not None:
            self._end(Decided("withdrawn", order.reason, order.actor))

    def hold(self, reason: str) -> None:
        """A person's word that nothing heals is about what is tried, too."""
        if self._order is not None:
            self._order = None
            self._refuse(reason)
        elif self.now is not None:
            self._end(Decided("withdrawn", reason))

    def change_mode(self, change: ModeChange) -> None:
        """Only heals by themselves are a matter of the mode, not what a person ordered."""
        if change.mode != "auto" and self.now is not None and not self.now.ordered:
            reason = f"mode {change.mode} by {change.actor}: {change.reason}"
            self._end(Decided("withdrawn", reason))

    def end_if_overtaken(self) -> None:
        """What a canary is held against serves no more."""
        canary, serving = self.now, self._live.serving.snapshot
        if canary is None or serving == canary.against.snapshot:
            return
        if serving == canary.served.snapshot:
            self._end(Decided("promoted", "it was made the champion from outside"))
        else:
            self._end(Decided("withdrawn", "the champion was moved, to another version"))

    def _carry_out(self, order: OrderedCanary) -> None:
        self._order = None
        move, tried = order.move, order.tried
        assert tried is not None  # noqa: S101 - else it was refused
        self._state.proposed.add(tried.served.snapshot)
        self._recorder.restored(tried.served.snapshot, tried.version)
        canary = self.trial.begin(tried.served, "", tried, move.actor)
        self._recorder.note(
            CanaryOrdered(
                batch=self._state.batch, reason=move.reason, actor=move.actor,
                version=tried.version, snapshot=tried.served.snapshot, base=tried.base,
                against=canary.against.snapshot, share=canary.share, by=canary.by,
                since=canary.since, until=canary.until, through=canary.through.as_dict(),
            )
        )  # fmt: skip

    def _refuse(self, why: str, *, batch: int | None = None) -> None:
        at = self._state.batch if batch is None else batch
        self._recorder.note(CanaryEnded(batch=at, outcome="withdrawn", reason=why))
        self._recorder.point(CANARY, "", f"canary withdrawn: {why}")

    def _decide(self, decided: Decided) -> None:
        """Do with a canary what was decided, by what heals may do by then."""
        canary = self.now
        assert canary is not None  # noqa: S101 - it was decided about one
        more = self._beyond(canary) if decided.outcome == "promoted" else ""
        if more:
            decided = Decided("proposed", f"{decided.reason}; {more}")
        if decided.outcome == "promoted":
            self._promote(canary, decided.reason)
        elif decided.outcome == "proposed":
            self._propose(canary.served.snapshot, f"{canary.why}: {decided.reason}")
        self._end(decided)

    def _beyond(self, canary: Canary) -> str:
        """Why a person must approve it; empty where nobody must. The budget is that of heals."""
        if not canary.ordered:
            return self._allowance.spent() if self._allowance is not None else ""
        if self._four_eyes:
            return "two people decide what serves"
        return "" if self._state.mode == "auto" else f"mode {self._state.mode}"

    def _promote(self, canary: Canary, reason: str) -> None:
        """Have it serve all; on the champion's base with what was learned meanwhile, on its own
        once the run that knows this one has ended.
        """
        tried, own = canary.served, canary.own
        if self._allowance is not None and not canary.ordered:
            self._allowance.spend()
        if canary.base:
            self._state.leaves = True
            self._state.overtaken = self._state.batch
        else:
            memory = self._live.serving.adapter.memory
            state = AdapterState(tried.adapter.weights, memory)
            self._live.publish(state, tried.snapshot, tried.threshold, tried.network)
        along = own.along if own is not None else ()
        why = f"{canary.why}: canary: {reason}"
        self._recorder.point(CHAMPION, tried.snapshot, why, promotes=bool(along), along=along)

    def _end(self, decided: Decided) -> None:
        """The next heal that is worth a version is the next candidate: it stands on all that was
        learned meanwhile.
        """
        self._recorder.note(
            CanaryEnded(
                batch=self._state.batch, outcome=decided.outcome, reason=decided.reason,
                by=decided.by, **self.trial.told(),
            )
        )  # fmt: skip
        self._on_end()
        self.trial.end()
        if not decided.by:
            self._recorder.point(CANARY, "", f"canary {decided.outcome}: {decided.reason}")
