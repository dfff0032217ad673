"""Who does something, and when."""

from __future__ import annotations

import getpass
import os
import platform
from datetime import UTC, datetime


def actor() -> str:
    """Who does it: SELFHEAL_ACTOR, else user@machine."""
    named = os.environ.get("SELFHEAL_ACTOR")
    return named or f"{getpass.getuser()}@{platform.node()}"


def clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def now_text() -> str:
    """Now, as it is written down."""
    return clock().isoformat(timespec="milliseconds")
