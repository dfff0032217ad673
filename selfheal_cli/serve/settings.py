"""What a server is told."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from selfheal_cli.config_sources import Count, Positive, Settings
from selfheal_cli.workspace import WORKSPACE

# what nobody else wants; a small share (niceness 10); as the server
Priority = Literal["idle", "low", "normal"]


class HealerSettings(Settings):
    """What the process beside the server is told; it crosses as JSON.

    ``overrides`` are keys of `RunConfig` that come before those of the run which the champion is
    from. ``reference`` is a table that says what is normal, where that run's own rows are gone.
    """

    model: str
    actor: str
    tracking_uri: str | None = None
    workspace: Path = WORKSPACE
    log: str | None = Field(
        default=None, repr=False, description="URI of the log that replicas share; None: a file"
    )
    heal: bool = True
    overrides: dict[str, Any] = Field(default_factory=dict)
    reference: dict[str, Any] | None = None
    max_wait: Positive = Field(
        default=5.0, description="seconds after which rows that do not fill a batch are one"
    )
    keep_rows: Count = Field(default=1_000_000, description="answered rows that the spool keeps")
    priority: Priority = Field(default="idle", description="of the processor's time")


class Limits(Settings):
    """What a caller may ask of the server."""

    body_bytes: Count = Field(default=10_000_000, description="of a request")
    rows: Count = Field(default=100_000, description="of a request")
    requests: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="a second and caller, on average; 0: any number"
    )
    seconds: Positive = Field(default=30.0, description="until a request is there and answered")
    connections: Count = Field(default=1_000, description="at once from an address")

    def of_one(self, processes: int) -> Self:
        """The part of one of several processes, so that together they let through no more."""
        each = -(-self.connections // processes)
        return self.model_copy(update={"requests": self.requests / processes, "connections": each})


def network(text: str) -> str:
    """An address, or a network such as 10.0.0.0/8; raises ValueError."""
    ip_network(text)
    return text


class Right(StrEnum):
    """What a caller may do."""

    SCORE = "score"
    LABEL = "label"
    LOOK = "look"
    OPERATE = "operate"


# what the two tokens of the first releases may do
SCORING = frozenset((Right.SCORE, Right.LABEL, Right.LOOK))
OPERATING = frozenset((Right.OPERATE, Right.LOOK))


class Token(Settings):
    """A caller: its name, its secret and what it may do."""

    name: str
    secret: str = Field(repr=False)
    rights: frozenset[Right]


class Tokens(Settings):
    """The callers; ``open`` are the rights that whoever comes has."""

    callers: tuple[Token, ...] = ()
    open: frozenset[Right] = frozenset(Right)

    @classmethod
    def of(cls, scoring: str | None = None, operating: str | None = None) -> Self:
        """The two tokens of the first releases: the rights of a missing one are anybody's, but
        for looking.
        """
        given = (("scoring", scoring, SCORING), ("operating", operating, OPERATING))
        callers = [Token(name=n, secret=t, rights=r) for n, t, r in given if t is not None]
        taken: frozenset[Right] = frozenset().union(*(one.rights for one in callers))
        return cls(callers=tuple(callers), open=frozenset(Right) - taken)


class Sites(Settings):
    """Which names this server is asked by. ``hosts`` are allowed in the Host header where no token
    is needed, beside loopback and addresses; ``public_url`` is where a proxy shows the server.
    """

    hosts: tuple[str, ...] = ()
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+[^\s]*)?$")] = ""


class Exploring(Settings):
    """Of the rows that fail a condition, a share is let through by lot, to be labelled."""

    only_when: str
    share: Annotated[float, Field(gt=0, le=1)]


class Webhook(Settings):
    """Whom to post to what happened; no ``kinds``: all. The URL may be a secret, as Slack's is."""

    name: str
    url: str = Field(repr=False)
    shape: Literal["plain", "slack"] = "plain"
    kinds: tuple[str, ...] = ()
    secret: str = Field(default="", repr=False)


class ServerSettings(Settings):
    """What the scoring process is told."""

    healer: HealerSettings
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 5001
    key: str | None = Field(default=None, description="column that names rows for labels")
    limits: Limits = Limits()
    exploring: Exploring | None = None
    tokens: Tokens = Tokens()
    sites: Sites = Sites()
    trusted_proxies: tuple[Annotated[str, AfterValidator(network)], ...] = Field(
        default=(), description="addresses whose X-Forwarded-For is believed"
    )
    access_log: Path | None = Field(default=None, description="a file; -: standard output")
    access_format: Literal["json", "combined"] = "json"
    webhooks: tuple[Webhook, ...] = ()
    on_event: str | None = Field(default=None, description="a command; it may run twice")
    log_level: Literal["critical", "error", "warning", "info"] = "warning"
