"""What a server is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

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


class Tokens(Settings):
    """Who may score and who may operate; None: anybody may."""

    scoring: str | None = Field(default=None, repr=False)
    operating: str | None = Field(default=None, repr=False)


class ServerSettings(Settings):
    """What the scoring process is told."""

    healer: HealerSettings
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 5001
    key: str | None = Field(default=None, description="column that names rows for labels")
    limits: Limits = Limits()
    tokens: Tokens = Tokens()
    log_level: Literal["critical", "error", "warning", "info"] = "warning"
