"""What is tried beside the champion, on the channel: from the one who heals to those who score."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from typing import Any

from selfheal_cli.spool.answer_log import Bulletin
from selfheal_cli.spool.control import ControlChannel, Published

TOPIC, ADAPTER = "canary", "canary-adapter"
REMEMBERED = 50  # snapshots that were tried


@dataclass(frozen=True, slots=True)
class TriedVersion:
    """A version that answers a ``share`` of the requests ``until`` a time (seconds since 1970), by
    the hash of column ``by``, or of their ids. ``wanted`` is without its number in the registry
    until there is one.
    """

    wanted: Published
    share: float
    by: str
    until: float

    @property
    def mark(self) -> tuple[str, str, float, str]:
        """By which another one is known to be another."""
        return self.wanted.snapshot, self.by, self.share, self.wanted.sha256


def put_tried(
    channel: ControlChannel, tried: TriedVersion | None, lease: int | None = None
) -> None:
    """Have it answer, or with None nothing but the champion, by who heals under ``lease``.
    Raises `StorageError`.
    """
    before = channel.status(TOPIC)[0].get("snapshots", [])
    if tried is None:
        channel.set_status(TOPIC, {"snapshots": before}, lease)
        return
    snapshot = tried.wanted.snapshot
    known = [one for one in before if one != snapshot]
    adapter = base64.b85encode(tried.wanted.adapter).decode()
    channel.set_status(ADAPTER, {"snapshot": snapshot, "adapter": adapter}, lease)
    told = asdict(replace(tried.wanted, adapter=b""))
    told.pop("adapter")
    how = {"share": tried.share, "by": tried.by, "until": tried.until}
    latest = [*known, snapshot][-REMEMBERED:]
    channel.set_status(TOPIC, {"wanted": told, **how, "snapshots": latest}, lease)


def number_tried(
    channel: ControlChannel, snapshot: str, version: int, lease: int | None = None
) -> None:
    """The registry gave it a number. Raises `StorageError`."""
    told = channel.status(TOPIC)[0]
    if told.get("wanted", {}).get("snapshot") == snapshot:
        told["wanted"]["version"] = version
        channel.set_status(TOPIC, told, lease)


def tried_now(channel: Bulletin, known: TriedVersion | None = None) -> TriedVersion | None:
    """What is tried now, None for nothing; what is ``known`` already is not read again. Raises
    `StorageError`.
    """
    told: dict[str, Any] = channel.status(TOPIC)[0]
    if "wanted" not in told:
        return None
    wanted = Published(**told["wanted"], adapter=known.wanted.adapter if known else b"")
    tried = TriedVersion(wanted, told["share"], told["by"], told["until"])
    if known is not None and known.mark == tried.mark:
        return tried
    stored = channel.status(ADAPTER)[0]
    if stored.get("snapshot") != wanted.snapshot:
        return None  # it is just being replaced
    adapter = base64.b85decode(stored["adapter"])
    return replace(tried, wanted=replace(wanted, adapter=adapter))


def once_tried(channel: ControlChannel) -> set[str]:
    """The snapshots that were tried lately, and that which is. Raises `StorageError`."""
    return set(channel.status(TOPIC)[0].get("snapshots", []))
