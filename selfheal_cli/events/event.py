"""What every event of a run is: a frozen dataclass a kind, whose fields are the keys of its lines.

A field without a default is a key that every line of the kind has. One with a default is left out
of the line where it has that value, which is also what its absence means in an older log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, dataclass_transform

from selfheal_cli.records import Evaluation
from selfheal_cli.scores import AnyScores, scores_from

# What keys mean in a log and in the files beside it; raised with each change of that. A log that
# names none is of selfheal 0.1.0.
FIRST_FORMAT, FORMAT = 1, 2
TYPES: dict[str, type[Event]] = {}  # by kind


def _scores(scores: Mapping[str, Any] | None) -> AnyScores | None:
    return None if scores is None else scores_from(scores)


SCORES = {"decode": _scores}  # of a field, what its key means
EVALUATION = {"decode": Evaluation}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class _Kinds:
    """Makes a frozen dataclass of each event, and knows those that stand in logs by their kind."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    kind: ClassVar[str] = ""

    def __init_subclass__(cls, kind: str = "") -> None:
        dataclass(frozen=True, kw_only=True)(cls)
        cls.kind = kind or cls.kind
        if kind:
            TYPES[kind] = cast("type[Event]", cls)


class Event(_Kinds):
    """One line of a log, or what is to become one; of a ``kind``, by which the log knows it.

    ``sequence``, ``at``, ``previous`` (the digest of the line before) and ``digest`` (over all the
    rest of the line) are given by the log. ``more`` holds keys beside the typed ones: what a recipe
    measured, and what a later version wrote.
    """

    is_action: ClassVar[bool] = False  # whether it changed a model, as opposed to being seen of it
    more: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = field(default=0, compare=False)
    at: str = field(default="", compare=False)
    previous: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)

    @property
    def why(self) -> str:
        """The reason that a person is told; empty where it needs none."""
        return ""

    def __str__(self) -> str:
        """One line for a person; empty for what nobody needs to read."""
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Its own keys, as they stand in a log."""
        told: dict[str, Any] = {}
        for key in _keys(type(self)):
            value = getattr(self, key.field)
            if key.flat:
                told |= asdict(value)
            elif key.default is MISSING or value != key.default:
                told[key.name] = value.as_dict() if hasattr(value, "as_dict") else value
        return told | dict(self.more)

    if not TYPE_CHECKING:  # in our own code a wrong key must not pass

        def __getitem__(self, key: str) -> Any:
            """By key, as the Python interface of 0.1.0 gave the events of a run's view."""
            return self.as_dict()[key]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **line: Any) -> Self:
        """The inverse of `as_dict`; raises TypeError, which names it, where a key is missing."""
        given, values = dict(data), dict(line)
        for key in _keys(cls):
            if key.flat:
                own = {name: given.pop(name) for name in key.flat if name in given}
                values[key.field] = key.decode(**own)
            elif key.name in given:
                values[key.field] = key.decode(given.pop(key.name))
        return cls(**values, more=given)


@dataclass(frozen=True, slots=True)
class _Key:
    """A field and its name in a log; ``default`` is MISSING for one that every line has.

    ``flat`` are the keys of a record that the line has among its own.
    """

    field: str
    name: str
    default: object
    decode: Callable[..., Any]
    flat: tuple[str, ...]


def _keys(event: type[Event]) -> tuple[_Key, ...]:
    """The keys of a kind; they are looked at once."""
    if event not in _KEYS:
        _KEYS[event] = tuple(_read_keys(event))
    return _KEYS[event]


def _read_keys(event: type[Event]) -> Iterator[_Key]:
    line = {one.name for one in fields(Event)}
    for one in fields(event):
        flat, default = one.metadata.get("flat"), one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        if one.name not in line:
            yield _Key(
                one.name, one.metadata.get("name", one.name), default,
                one.metadata.get("decode", _as_it_is),
                tuple(part.name for part in fields(flat)) if flat else (),
            )  # fmt: skip


def _as_it_is(value: Any) -> Any:
    return value


_KEYS: dict[type[Event], tuple[_Key, ...]] = {}


class OfBatch(Event):
    """What belongs to a batch, by its number."""

    batch: int


class Action(OfBatch):
    """What changed a model, and why."""

    is_action: ClassVar[bool] = True
    reason: str

    @property
    def why(self) -> str:
        """The reason."""
        return self.reason
