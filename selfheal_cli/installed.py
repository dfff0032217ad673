"""Parts that other packages bring by entry points, and parts that a program hands over.

Packages are looked at only where a name is no built-in one, or where all names are listed;
nothing of them is imported before it is used. docs/own-parts.md says what each kind is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfheal_cli.errors import ConfigurationError, PartError, one_line
from selfheal_cli.kinds import ADAPTERS, BUILT_IN, MONITORS, RECIPES, PartKind

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

NAME = re.compile(r"[A-Za-z_][\w.-]*")
CHOICES = {
    **BUILT_IN, "recipe": RECIPES, "monitor": MONITORS, "adapter": ADAPTERS,
    "source": (), "rule": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnPart:
    """A part that is not built in, and the distribution that brings it; without one a program
    handed it over.
    """

    kind: PartKind
    name: str
    distribution: str = ""
    version: str = ""

    def __str__(self) -> str:
        by = f" of {self.distribution} {self.version}" if self.distribution else ""
        return f"{self.kind} '{self.name}'{by}"

    def as_dict(self) -> dict[str, str]:
        """As a log keeps it."""
        return asdict(self)

    def failed(self, error: BaseException | str) -> PartError:
        """The error that says what it did."""
        told = error if isinstance(error, str) else f"raised {type(error).__name__}"
        if isinstance(error, BaseException) and str(error):
            told += f": {one_line(error)}"
        return PartError(f"{self} {told}")


# what programs handed over, by kind and name
_handed: dict[tuple[PartKind, str], Any] = {}


def hand_over(kind: PartKind, part: Any) -> str:
    """Make a part known in this process, and in the process that heals for it; returns its name.

    That is its module's and its own (of an object, its class's) with a number where that is an
    object's, or another part has it already.
    """
    own = hasattr(part, "__qualname__")
    named = part if own else type(part)
    plain = re.sub(r"[^\w.-]+", "-", f"{named.__module__}.{named.__qualname__}").strip("-")
    name, count = (plain, 1) if own else (f"{plain}-1", 1)
    while _handed.setdefault((kind, name), part) is not part:
        count += 1
        name = f"{plain}-{count}"
    return name


def name_of(kind: PartKind, part: Any) -> str:
    """The name of a part: a text is one, what an installed package offers has its own, and anything
    else is handed over.
    """
    if isinstance(part, str):
        return part
    place = f"{getattr(part, '__module__', '')}:{getattr(part, '__qualname__', '')}"
    same = (name for name, point in _entry_points(kind).items() if point.value == place)
    return next(same, None) or hand_over(kind, part)


def importable(kind: PartKind, name: str) -> bool:
    """Whether another process gets the same part by its name: it is built in or installed, or a
    class or function of a module.
    """
    part = _handed.get((kind, name))
    if part is None:
        return True
    module, _, own = name.rpartition(".")
    return module != "__main__" and getattr(sys.modules.get(module), own, None) is part


def handed_over(kind: PartKind, name: str) -> bool:
    """Whether a program handed it over."""
    return (kind, name) in _handed


def take_over(kind: PartKind, name: str) -> None:
    """Know by its name what a program handed over in another process.

    Raises `ConfigurationError` where it cannot be imported here.
    """
    module, _, own = name.rpartition(".")
    try:
        _handed[kind, name] = getattr(import_module(module), own)
    except Exception as exc:
        raise ConfigurationError(
            f"{kind} '{name}' cannot be imported here: {type(exc).__name__}: {one_line(exc)}"
        ) from exc


def names(kind: PartKind) -> tuple[str, ...]:
    """What other packages bring, and what was handed over in this process."""
    handed = (name for of, name in _handed if of == kind)
    return (*sorted(_entry_points(kind)), *handed)


def choices(kind: PartKind) -> tuple[str, ...]:
    """All names that a user may choose."""
    return (*CHOICES[kind], *names(kind))


def require(kind: PartKind, name: str) -> None:
    """Raise `ConfigurationError` for a name that is neither built in, installed nor handed over."""
    if name in CHOICES[kind] or (kind, name) in _handed or name in _entry_points(kind):
        return
    for text in refused(kind):
        if f"'{name}'" in text:
            raise ConfigurationError(text)
    installed = names(kind)
    near = get_close_matches(name, (*CHOICES[kind], *installed), n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    known = f"; built in: {', '.join(CHOICES[kind])}" if CHOICES[kind] else ""
    raise ConfigurationError(
        f"unknown {kind} '{name}'{hint}{known}; installed: {', '.join(installed) or 'none'}"
    )


def known(kind: PartKind) -> Callable[[str], str]:
    """The same as a check of a setting's value, which raises ValueError."""

    def check(name: str) -> str:
        try:
            require(kind, name)
        except ConfigurationError as exc:
            raise ValueError(str(exc)) from exc
        return name

    return check


def part_of(kind: PartKind, name: str) -> OwnPart:
    """Where a part comes from; raises as `require`."""
    require(kind, name)
    if (kind, name) in _handed:
        return OwnPart(kind, name)
    dist = _entry_points(kind)[name].dist
    return OwnPart(kind, name, dist.name if dist else "", dist.version if dist else "")


def load(kind: PartKind, name: str) -> Any:
    """The part itself; raises `ConfigurationError` naming the package where it cannot be loaded."""
    part = part_of(kind, name)
    if (kind, name) in _handed:
        return _handed[kind, name]
    try:
        return _entry_points(kind)[name].load()
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(
            f"{part} cannot be loaded: {type(exc).__name__}: {one_line(exc)}"
        ) from exc


def made(kind: PartKind, name: str) -> Any:
    """An instance where the part is a class, else the part itself; raises as `load`, and
    `PartError` where the class takes arguments.
    """
    part = load(kind, name)
    if not isinstance(part, type):
        return part
    try:
        return part()
    except Exception as exc:
        raise part_of(kind, name).failed(exc) from exc


def refused(kind: PartKind) -> Iterator[str]:
    """What installed packages offer and nobody can choose, and why."""
    for point, twice in _offered(kind):
        dist = point.dist
        by = f"{kind} '{point.name}' of {dist.name} {dist.version}" if dist else point.name
        if point.name in BUILT_IN[kind]:
            yield f"{by} is refused: a built-in one has that name"
        elif not NAME.fullmatch(point.name):
            yield f"{by} is refused: a name has letters, digits, '_', '-' and '.'"
        elif twice:
            yield f"{by} is refused: another package brings one of that name; uninstall one of them"


def require_recorded(parts: Sequence[Mapping[str, str]]) -> None:
    """Raise `ConfigurationError` where a part that made a run is not here."""
    for one in parts:
        part = OwnPart(**one)  # type: ignore[arg-type]
        if (part.kind, part.name) in _handed or part.name in _entry_points(part.kind):
            continue
        if not part.distribution:
            raise ConfigurationError(f"{part}, which a program handed over, is needed and not here")
        pinned = f"{part.distribution}=={part.version}"
        raise ConfigurationError(f"{part} is needed and not installed here: pip install {pinned}")


def other_versions(parts: Sequence[Mapping[str, str]]) -> list[str]:
    """Distributions of recorded parts that are here in another version."""
    from importlib.metadata import version

    recorded = {one["distribution"]: one["version"] for one in parts if one["distribution"]}
    return [
        f"{name} {was}, here {now}"
        for name, was in recorded.items()
        if (now := version(name)) != was
    ]


def _entry_points(kind: PartKind) -> Mapping[str, EntryPoint]:
    """What may be chosen, by name."""
    return {
        point.name: point
        for point, twice in _offered(kind)
        if not twice and point.name not in BUILT_IN[kind] and NAME.fullmatch(point.name)
    }


def _offered(kind: PartKind) -> tuple[tuple[EntryPoint, bool], ...]:
    """Every entry point of a kind, and whether another has its name."""
    return _looked_up(kind, tuple(sys.path))


@cache
def _looked_up(kind: PartKind, path: tuple[str, ...]) -> tuple[tuple[EntryPoint, bool], ...]:
    from importlib.metadata import entry_points  # it loads slowly, and most runs need it not

    points = tuple(entry_points(group=f"selfheal.{kind}s"))
    named = [point.name for point in points]
    return tuple((point, named.count(point.name) > 1) for point in points)
