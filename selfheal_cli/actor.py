"""Who does something, and when."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from functools import partial

MAX_ACTOR = 100  # characters of a name that somebody gives
CLAIMED = " (claimed)"


def actor() -> str:
    """Who does it: SELFHEAL_ACTOR, which is a claim, else the account that the system knows."""
    named = printable(os.environ.get("SELFHEAL_ACTOR", ""))
    return claimed(named) if named else f"{_account()}@{platform.node()}"


def claimed(name: str) -> str:
    """A name that its bearer gives and nobody has checked, as it is kept and shown."""
    return printable(name)[:MAX_ACTOR] + CLAIMED


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, as far as names can say it."""
    return _plain(one) == _plain(other)


def printable(text: str) -> str:
    """A text without what a terminal or a log would act on."""
    return "".join(letter for letter in text if letter.isprintable()).strip()


clock = partial(datetime.now, UTC)  # now, in UTC


def now_text() -> str:
    """Now, as it is written down."""
    return clock().isoformat(timespec="milliseconds")


def _account() -> str:
    """Not `getpass.getuser`, which believes the variables USER and LOGNAME first."""
    import pwd

    identity = os.getuid()
    try:
        return pwd.getpwuid(identity).pw_name
    except KeyError:
        return f"uid-{identity}"  # a container's, that has no name


def _plain(name: str) -> str:
    return name.removesuffix(CLAIMED).strip().casefold()
