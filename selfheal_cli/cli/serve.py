"""``selfheal serve``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli import options
from selfheal_cli.cli import options as run_options
from selfheal_cli.cli.command import Command, section
from selfheal_cli.cli.part_choice import PartChoice
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.serve.service import ScoringService
    from selfheal_cli.serve.settings import ServerSettings, Tokens

NEEDED = ("fastapi", "uvicorn", "httptools", "prometheus_client")
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

healing = section(
    "Healing",
    click.option("--no-heal", is_flag=True, help="Score and watch; heal nothing."),
    click.option(
        "--recipe",
        type=PartChoice("recipe"),
        help="How it heals. [default: as the run that the champion is from]",
    ),
    click.option(
        "--policy",
        metavar="NAME|FILE",
        help="Thresholds; see 'selfheal policy list'. [default: as that run]",
    ),
    click.option("--batch-size", type=int, help="Rows in each batch. [default: as that run]"),
    click.option(
        "--max-wait",
        type=float,
        help="Seconds after which rows that do not fill a batch are one. [default: 5]",
    ),
    run_options.watching,
    click.option(
        "--reference",
        type=FILE,
        help="CSV or Parquet file that says what is normal (--target).",
    ),
    click.option("--target", metavar="COLUMN", help="Column of the reference with the labels."),
    click.option("--positive", metavar="VALUE", help="The target's positive value."),
    run_options.negative_after,
    run_options.label_only_when,
    click.option(
        "--keep-rows", type=int, help="Answered rows that are kept for labels. [default: 1000000]"
    ),
    click.option(
        "--heal-priority",
        type=click.Choice(("idle", "low", "normal")),
        help="Processor time for healing: only what is idle, a small share, or as the server. "
        "[default: idle]",
    ),
)
limits = section(
    "Limits",
    click.option(
        "--max-connections",
        type=int,
        help="Most connections at once from one address; idle ones go first; of several --workers "
        "each takes its part. [default: 1000]",
    ),
    click.option("--max-body", type=int, help="Largest request, in bytes. [default: 10000000]"),
    click.option("--max-rows", type=int, help="Most rows in a request. [default: 100000]"),
    click.option(
        "--max-rate",
        type=float,
        help="Most requests a second from one address; 0 for any number; of several --workers each "
        "lets its part through. [default: 0]",
    ),
    click.option(
        "--timeout",
        type=float,
        help="Seconds within which a request is read and answered. [default: 30]",
    ),
)


asking = section(
    "Who may ask",
    click.option(
        "--token-file",
        type=FILE,
        help="Callers, a line each: 'NAME: TOKEN score label look operate'; needed with another "
        "--host. Else the lines of SELFHEAL_TOKENS.",
    ),
    click.option("--insecure", is_flag=True, help="Allow another --host without tokens."),
    click.option(
        "--allowed-host",
        metavar="NAME",
        multiple=True,
        help="A name that the server is asked by where no token is needed; may be repeated.",
    ),
    click.option(
        "--public-url", metavar="URL", help="Where a proxy shows the server, for the page's forms."
    ),
    click.option(
        "--trusted-proxy",
        metavar="ADDRESS",
        multiple=True,
        help="Whose X-Forwarded-For is believed; may be repeated. [default: nobody's]",
    ),
    click.option(
        "--access-log",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="Write who asked for what there; - for standard output.",
    ),
    click.option(
        "--access-format",
        type=click.Choice(("json", "combined")),
        help="How its lines are written. [default: json]",
    ),
)


telling = section(
    "Who is told",
    click.option(
        "--on-event",
        metavar="COMMAND",
        help="Run it, without a shell, on what happens: the event is on its standard input, its id "
        "in SELFHEAL_EVENT_ID; it may run twice for one. Webhooks: SELFHEAL_WEBHOOKS.",
    ),
)


@click.command("serve", cls=Command)
@options.served_model
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=5001,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that score behind the port, beside one healer; SIGHUP renews them one by one.",
)
@options.engine(
    "Who keeps the processes that score: this command, or Ray Serve, whose replicas --workers "
    "counts; they share --log."
)
@click.option(
    "--key",
    metavar="COLUMN",
    help="Column of a request, no input of the model, that names rows for labels.",
)
@asking
@healing
@limits
@telling
@options.allow_module
@options.device
@options.log
@options.tracking_uri
def command(name: str, workers: int, engine: str, **given: Any) -> None:
    """Serve a model's champion over HTTP, as MLflow does, and heal it on what comes.

    /invocations scores, /feedback takes labels; stop it with SIGTERM or Ctrl-C.
    """
    _require_extra()
    settings = _settings(name, given)

    def tell(url: str, version: object, by: str = "") -> None:
        say(f"selfheal: '{name}' v{version} is served{by} at {url}", err=True)

    if engine == "ray":
        from selfheal_cli.engine.cluster import require_ray
        from selfheal_cli.engine.serving import serve_on_cluster

        require_ray()
        serve_on_cluster(
            settings, workers, lambda url, version: tell(url, version, " by Ray Serve")
        )
        return
    if workers > 1:
        # a token file is read again; what stood in the environment is not there any more
        _serve_with_workers(lambda: _settings(name, given, settings.tokens), workers, tell)
        return
    from selfheal_cli.estimators.describing import changed_libraries
    from selfheal_cli.serve.server import serve

    def ready(url: str, front: ScoringService) -> None:
        served = front.scorer.served
        tell(url, served.shown_version)
        if changed := changed_libraries(served.quick.encoding.model):
            say(f"selfheal: '{name}' v{served.shown_version}: {changed}", err=True)

    serve(settings, ready)


def application(args: dict[str, str]) -> Any:
    """What a configuration of Ray Serve names: ``arguments`` are those of `selfheal serve`."""
    from selfheal_cli.engine.serving import application as on_serve

    context = command.make_context("serve", shlex.split(args["arguments"]))
    given = {k: v for k, v in context.params.items() if k not in ("engine", "workers")}
    return on_serve(_settings(given.pop("name"), given), context.params["workers"])


def _serve_with_workers(
    settings: Callable[[], ServerSettings], count: int, tell: Callable[..., None]
) -> None:
    from selfheal_cli.errors import ConfigurationError

    if sys.platform == "win32":
        raise ConfigurationError("--workers: one process serves on Windows")
    from selfheal_cli.serve.workers import serve_with_workers

    def on_ready(url: str, version: int | None) -> None:
        tell(url, "pending" if version is None else version, f" by {count} processes")

    serve_with_workers(settings, count, on_ready)


def _require_extra() -> None:
    from importlib.util import find_spec

    from selfheal_cli.errors import ConfigurationError

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} is not installed: pip install 'selfheal-cli[serve]'"
        )


def _settings(name: str, given: dict[str, Any], known: Tokens | None = None) -> ServerSettings:
    from selfheal_cli.actor import actor
    from selfheal_cli.config import checked
    from selfheal_cli.serve.http.auth import require_guarded
    from selfheal_cli.serve.notify.targets import webhooks_from_environment
    from selfheal_cli.serve.settings import HealerSettings, Limits, ServerSettings, Sites

    file = given["token_file"]
    tokens = _tokens(file) if known is None or file is not None else known
    require_guarded(given["host"], tokens, insecure=given["insecure"])
    healer = {
        "model": name,
        "actor": actor(),
        "tracking_uri": given["tracking_uri"],
        "log": given["log"],
        "heal": not given["no_heal"],
        "overrides": _overrides(given),
        "reference": _reference(given),
        "max_wait": given["max_wait"],
        "keep_rows": given["keep_rows"],
        "priority": given["heal_priority"],
    }
    asked = {
        "body_bytes": given["max_body"],
        "rows": given["max_rows"],
        "requests": given["max_rate"],
        "seconds": given["timeout"],
        "connections": given["max_connections"],
    }
    values = {
        "healer": checked(HealerSettings, _known(healer), where="options"),
        "limits": checked(Limits, _known(asked), where="options"),
        "tokens": tokens,
        "sites": checked(
            Sites,
            _known({"hosts": given["allowed_host"], "public_url": given["public_url"]}),
            where="options",
        ),
        "trusted_proxies": given["trusted_proxy"],
        "exploring": _exploring(healer["overrides"]),
        "access_log": given["access_log"],
        "webhooks": webhooks_from_environment(),
        "on_event": given["on_event"],
        "access_format": given["access_format"],
        "host": given["host"],
        "port": given["port"],
        "key": given["key"],
    }
    return checked(ServerSettings, _known(values), where="options")


def _tokens(file: Path | None) -> Tokens:
    from selfheal_cli.errors import ConfigurationError
    from selfheal_cli.serve.token_file import VARIABLE, read_tokens, tokens_from_environment

    tokens = tokens_from_environment()
    if file is None:
        return tokens
    if tokens.callers:
        raise ConfigurationError(f"give --token-file or {VARIABLE}, not both")
    return read_tokens(file)


def _overrides(given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, as keys of a run's configuration."""
    from selfheal_cli.settings import policy_file
    from selfheal_cli.settings.schema import monitor_from

    overrides: dict[str, Any] = {}
    if given["recipe"] is not None:
        overrides["heal"] = {"recipe": given["recipe"]}
    if given["policy"] is not None:
        overrides["policy"] = policy_file.load(given["policy"]).model_dump(mode="json")
    labels = _labels(given)
    if labels:
        overrides["labels"] = labels
    if given["batch_size"] is not None:
        overrides["batch_size"] = given["batch_size"]
    if given["monitors"]:
        overrides["monitors"] = [monitor_from(one, "--monitor") for one in given["monitors"]]
    return overrides


def _labels(given: dict[str, Any]) -> dict[str, Any]:
    from selfheal_cli.config import LabelSettings, checked
    from selfheal_cli.rules.parser import parse_condition

    said = {"negative_after": given["negative_after"], "only_when": given["label_only_when"]}
    values = _known(said)
    labels = checked(LabelSettings, values, where="options")
    if labels.only_when is not None:
        parse_condition(labels.only_when, lambda at: f"--label-only-when, position {at + 1}")
    return labels.model_dump(mode="json", include=set(values))


def _exploring(overrides: dict[str, Any]) -> dict[str, Any] | None:
    """What the server must know to say which rows are let through by lot."""
    share = overrides.get("policy", {}).get("explore", 0.0)
    condition = overrides.get("labels", {}).get("only_when")
    if not share:
        return None
    if condition is None:
        raise click.UsageError("a policy with explore needs --label-only-when CONDITION")
    return {"share": share, "only_when": condition}


def _reference(given: dict[str, Any]) -> dict[str, Any] | None:
    from selfheal_cli.config import TableSettings, checked

    if given["reference"] is None:
        for name in ("target", "positive"):
            if given[name] is not None:
                raise click.UsageError(f"--{name} is for --reference FILE")
        return None
    if given["target"] is None:
        raise click.UsageError("--target COLUMN is needed with --reference")
    values = {"path": given["reference"], "target": given["target"], "positive": given["positive"]}
    table = checked(TableSettings, _known(values), where="options")
    return table.model_dump(mode="json", exclude_defaults=True)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    """Only what was given."""
    return {name: value for name, value in values.items() if value is not None}
