"""Looks, beside the stream, for what others decide about the model: its champion, a hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from selfheal_cli.errors import RegistryUnreachable, SelfhealError
from selfheal_cli.events.types import ChampionFollowed
from selfheal_cli.lookout import Lookout
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.stream.ordered import OrderedCanary, ordered
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.aliases import OnSettled, Unsettled, settle, unsettled, untold
from selfheal_cli.registry.base import CANARY, CHAMPION, NOTHING, Registry
from selfheal_cli.registry.journal import Hold, JournalState, ModeOrder, standing
from selfheal_cli.registry.staleness import StaleWatch
from selfheal_cli.rollback.verify import load_verified

ASIDE = "another tool"
ELSEWHERE = "is on another base than this run's network"


@dataclass(frozen=True, slots=True)
class ChampionMove:
    """Somebody else moved the champion by ``batch``: the move, and the version, checked and loaded.

    ``error`` says why the version cannot be served; then there are no weights.
    """

    move: AliasMove
    version: VersionRecord | None
    weights: Weights
    error: str = ""
    batch: int = 0

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is selfheal's, and a run on another base serves and heals it."""
        return self.error.endswith(ELSEWHERE)


class Others(Protocol):
    """What others decide about a run's model."""

    @property
    def hold(self) -> Hold | None:
        """Healing is stopped from outside."""

    @property
    def mode(self) -> ModeOrder | None:
        """What the heals of a served model may do; None where nobody said anything."""

    def take(self) -> ChampionMove | None:
        """A move of the champion by somebody else since the last call, ready to be served."""

    def take_withdrawn(self) -> AliasMove | None:
        """By what somebody withdrew the canary since the last call."""

    def take_ordered(self) -> OrderedCanary | None:
        """What somebody wanted tried since the last call, ready to be."""


class NullWatcher:
    """`Others` where there are none."""

    hold = None
    mode = None

    def take(self) -> ChampionMove | None:
        """See `Others`."""
        return None

    def take_withdrawn(self) -> AliasMove | None:
        """See `Others`."""
        return None

    def take_ordered(self) -> OrderedCanary | None:
        """See `Others`."""
        return None


class ChampionWatcher(Lookout):
    """Asks the registry every second from a thread of its own; the stream only picks up."""

    at_once = False

    def __init__(
        self, registry: Registry, model: str, run_id: str, base: str, known: int,
        on_settled: OnSettled = untold,
    ) -> None:  # fmt: skip
        super().__init__("follower")
        self._registry = registry
        self._model = model
        self._run_id = run_id
        self._base = base
        self._seen = known
        self.known = known  # the last move by others that the stream picked up
        now = standing(registry, model)
        self.hold: Hold | None = now.hold
        self.mode: ModeOrder | None = now.mode
        self._moved: ChampionMove | None = None
        self._withdrawn: AliasMove | None = None
        self._ordered: OrderedCanary | None = None
        self._canary = _order_of(now)
        self._aside: tuple[int, int] | None = None  # an alias that no entry of the journal set
        self._aside_taken: tuple[int, int] | None = None
        self._left: Unsettled | None = None
        self._on_settled = on_settled
        self._stale = StaleWatch(registry, model)

    def take(self) -> ChampionMove | None:
        """See `Others`."""
        moved, self._moved = self._moved, None
        if moved is not None:
            self.known = moved.move.sequence
        return moved

    def take_withdrawn(self) -> AliasMove | None:
        """See `Others`."""
        withdrawn, self._withdrawn = self._withdrawn, None
        return withdrawn

    def take_ordered(self) -> OrderedCanary | None:
        """See `Others`."""
        ordered, self._ordered = self._ordered, None
        return ordered

    def look(self) -> None:
        """Ask once."""
        now = standing(self._registry, self._model)
        self.hold, self.mode = now.hold, now.mode
        if _order_of(now) > self._canary:
            self._look_at_canary(now.moves[CANARY])
        self._stale.look(now)
        last = now.moves.get(CHAMPION)
        if last is not None and last.sequence > self._seen and last.run != self._run_id:
            self._moved, self._seen = self._load(last), last.sequence
            return
        move = self._moved_aside(last)
        if move is not None:
            self._moved = self._load(move)

    def _look_at_canary(self, move: AliasMove) -> None:
        if move.target == NOTHING:
            self._withdrawn, self._ordered = move, None
        else:
            self._ordered, self._withdrawn = ordered(self._registry, move, self._base), None
        self._canary = move.sequence

    def _moved_aside(self, last: AliasMove | None) -> AliasMove | None:
        """A move by a tool that keeps no journal: the alias reads otherwise, twice in a row.

        Once may be a move that is written down already and not carried out yet.
        """
        number = self._registry.alias(self._model, CHAMPION)
        before, self._aside = self._aside, None
        if number is None or (last is not None and last.target == number):
            self._aside_taken = None
            return None
        if self._settled():
            return None
        sequence = last.sequence if last else 0
        self._aside = (sequence, number)
        if self._aside == self._aside_taken or self._aside != before:
            return None
        self._aside_taken = self._aside
        source = last.target if last else None
        return AliasMove(self._model, CHAMPION, source, number, ASIDE, "", ASIDE, sequence)

    def _settled(self) -> bool:
        """Whether the alias is what an interrupted writer left, and is put right.

        A move that was only begun may be on its way: it is finished at the second look.
        """
        left = unsettled(self._registry, self._model, CHAMPION)
        before, self._left = self._left, left
        if left is not None and (left.late or left == before):
            for one in settle(self._registry, self._model):
                self._on_settled(one)
        return left is not None

    def recall(self, recorded: ChampionFollowed) -> ChampionMove:
        """The move that a recorded run followed, from the event that it wrote."""
        self.known = recorded.move_sequence
        self._seen = max(self._seen, self.known)
        who, why = recorded.actor, recorded.reason
        move = AliasMove(self._model, CHAMPION, None, recorded.version, who, "", why, self.known)
        return ChampionMove(move, None, {}, recorded.error) if recorded.error else self._load(move)

    def _load(self, move: AliasMove) -> ChampionMove:
        try:
            version = self._registry.version(self._model, move.target)
            if version.base != self._base:
                raise SelfhealError(f"v{version.version} {ELSEWHERE}")
            return ChampionMove(move, version, load_verified(self._registry, version))
        except RegistryUnreachable:
            raise
        except SelfhealError as exc:
            return ChampionMove(move, None, {}, str(exc))


def _order_of(now: JournalState) -> int:
    """The number of the entry by which a person moved the canary's alias last; 0: nobody did."""
    last = now.moves.get(CANARY)
    return 0 if last is None or last.run else last.sequence
