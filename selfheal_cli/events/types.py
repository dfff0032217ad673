"""All kinds of events together, as a log knows them; `Event` says what all are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.events.batches import *  # noqa: F403
from selfheal_cli.events.canary import *  # noqa: F403
from selfheal_cli.events.event import TYPES, Event
from selfheal_cli.events.heals import *  # noqa: F403
from selfheal_cli.events.labels import *  # noqa: F403
from selfheal_cli.events.moves import *  # noqa: F403
from selfheal_cli.events.runs import *  # noqa: F403
from selfheal_cli.events.runs import BaseStored, ModelTrained, ModelWrapped, SegmentRestored
from selfheal_cli.events.segments import *  # noqa: F403


def event_of(kind: str, data: Mapping[str, Any], **line: Any) -> Event:
    """The event of a line of a log; raises ValueError or TypeError for what is none."""
    known = TYPES.get(kind)
    if known is None:
        raise ValueError(f"'{kind}' is not a kind of event")
    if known is BaseStored:
        named = {"origin": ModelWrapped, "segment": SegmentRestored}
        known = next((one for name, one in named.items() if name in data), ModelTrained)
    return known.from_dict(data, **line)
