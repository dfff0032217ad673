"""``selfheal status``."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.output import figure, line, make_console, make_table
from selfheal_cli.errors import ConfigurationError, NoAnswer, RegistryUnreachable
from selfheal_cli.scores import title_of

DEFAULT_URL = "http://127.0.0.1:5001"
EVERY_SECONDS = 2.0
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("status", cls=Command)
@click.argument("url", required=False)
@click.option(
    "--model",
    "model_name",
    metavar="NAME",
    callback=lambda ctx, param, value: value and options.checked_name(ctx, param, value),
    help="Read the registry instead of asking a server: champion, hold, lease, last versions.",
)
@click.option(
    "--token-file",
    type=FILE,
    help="Read the server's token from this file; see 'selfheal serve --token-file'.",
)
@click.option("--watch", is_flag=True, help="Look again every two seconds until Ctrl-C.")
@options.tracking_uri
@options.as_json
def command(
    url: str | None,
    model_name: str | None,
    token_file: Path | None,
    watch: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Show the state of a served model: live against the frozen baseline, drift, last heals.

    URL is that of 'selfheal serve', http://127.0.0.1:5001 where none is given.
    """
    if url and model_name:
        raise click.UsageError("give the URL of a server, or --model to read the registry")
    if tracking_uri and not model_name:
        raise click.UsageError("--tracking-uri is for --model")
    if token_file and model_name:
        raise click.UsageError("--token-file is for a server")
    if watch and as_json:
        raise click.UsageError("--json prints one document: leave --watch out")

    if model_name:
        look = _registry_look(model_name, tracking_uri)
    else:
        look = _server_look(url or DEFAULT_URL, token_file)
    if watch:
        keep_showing(look, EVERY_SECONDS)
    elif as_json:
        from selfheal_cli.cli import output

        output.print_json(look())
    else:
        show(look())


def _server_look(url: str, token_file: Path | None) -> Any:
    from functools import partial

    token = ""
    if token_file is not None:
        from selfheal_cli.serve.token_file import looking, read_tokens

        token = looking(read_tokens(token_file))
    return partial(ask_status, url, token)


def _registry_look(model: str, tracking_uri: str | None) -> Any:
    from functools import partial

    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    return partial(_from_registry, MlflowRegistry(tracking_uri), model)


def _from_registry(registry: Any, model: str) -> dict[str, Any]:
    """What the registry alone knows."""
    from dataclasses import asdict

    from selfheal_cli.registry.base import CHAMPION
    from selfheal_cli.registry.journal import standing
    from selfheal_cli.rollback.plan import champion_of

    serving, now = champion_of(registry, model), standing(registry, model)
    move = now.moves.get(CHAMPION)
    known = move is not None and serving is not None and move.target == serving.version
    return {
        "model": model,
        "champion": serving.as_dict() if serving else None,
        "moved": move.as_dict() if known and move else None,
        "hold": asdict(now.hold) if now.hold else None,
        "lease": asdict(now.lease) if now.lease else None,
        "versions": [version.as_dict() for version in registry.versions(model, limit=5)],
    }


STATE_COLOURS = {"HEALTHY": "green", "DRIFTING": "yellow", "HEALING": "blue", "ROLLED_BACK": "red"}
TONES = {"better": "green", "worse": "red", "mixed": "magenta"}
FIGURES = ("f1", "accuracy", "precision", "recall", "roc_auc", "log_loss", "cost")
SEGMENTS = 5  # in a line
Document = Mapping[str, Any]


def show(document: Document) -> None:
    """Print it once."""
    make_console().print(rendered(document))


def keep_showing(look: Callable[[], Document], every: float) -> None:
    """Show it anew every so many seconds until Ctrl-C; what does not answer is told and asked on.

    Raises what the first look raises.
    """
    console = make_console()
    shown = rendered(look())
    try:
        with Live(shown, console=console, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                try:
                    shown = rendered(look())
                    live.update(shown, refresh=True)
                except (NoAnswer, RegistryUnreachable) as exc:
                    told = line((f"What is above may be old: {exc}", "red"))
                    live.update(Group(shown, told), refresh=True)
    except KeyboardInterrupt:
        return


def rendered(document: Document) -> RenderableType:
    """A server's document, or the registry's."""
    return _server(document) if "standing" in document else _registry(document)


def _server(document: Document) -> RenderableType:
    server, told, standing = (document[name] for name in ("server", "told", "standing"))
    state, tone = standing["state"], told["tone"]
    version = "not numbered yet" if server["version"] is None else f"v{server['version']}"
    head = line(
        f"Model '{server['model']}', {version}: ", (state, STATE_COLOURS.get(state, "bold"))
    )
    words = " ".join((f"{told['state']}.", *told["sentences"]))
    parts: list[RenderableType] = [
        head,
        line((f"{told['headline']}.", f"bold {TONES.get(tone, '')}".strip())),
        line(words),
        *(line((f"! {one}", "yellow")) for one in told["warnings"]),
        *_facts(document),
    ]
    if standing["live"] or standing["shadow"]:
        parts.append(_against(standing))
    if standing["candidates"]:
        parts.append(_candidates(standing))
    if document.get("replicas"):
        parts.append(_replicas(document))
    if standing["happenings"]:
        rows = [[one["at"][:19].replace("T", " "), one["text"]]
                for one in standing["happenings"][:8]]  # fmt: skip
        parts.append(make_table("Last heals and rollbacks", ("when (UTC)", "what"), rows))
    return Group(*parts)


def _facts(document: Document) -> list[Text]:
    server, standing = document["server"], document["standing"]
    drift, heals = standing["drift"], standing["heals"]
    lines = []
    if drift:
        side = "it drifts" if drift["drifting"] else "no drift"
        lines.append(
            f"Drift: {drift['feature']} is {drift['z']:.2f} training standard deviations away "
            f"(threshold {drift['threshold']:g}): {side}"
        )
    if standing["monitors"]:
        readings = (
            f"{name} {value:.3f}{' ALARM' if name in standing['alarms'] else ''}"
            for name, value in standing["monitors"].items()
        )
        lines.append(f"Monitors: {', '.join(readings)}")
    drifted = [f"{one['by']} {one['segment']} in {one['column']} by {one['effect']:.2f}"
               for one in standing.get("segments", ())]  # fmt: skip
    if drifted:
        more = f" and {len(drifted) - SEGMENTS} more" if len(drifted) > SEGMENTS else ""
        lines.append(f"Segments that drifted: {', '.join(drifted[:SEGMENTS])}{more}")
    outcomes = ", ".join(f"{count} {name}" for name, count in heals.items() if count)
    lines.append(f"Heals: {outcomes or 'none yet'}; {standing['rollbacks']} rollbacks")
    if allowed := standing.get("allowed"):
        lines.append(f"Heals, {allowed}")
    if canary := standing.get("canary"):
        lines.append(_canary(canary))
    age = document["label_age_seconds"]
    last = "" if age is None else f", the last {age:.0f} s ago"
    lines.append(f"Labels: {standing['labels']:,}{last}")
    lines.append(
        f"Waiting: {standing['waiting']:,} rows for the healer, {server['queue']:,} rows for the "
        f"disk, {standing['pending_writes']:,} writes for the registry"
    )
    return [line(text) for text in lines]


def _canary(canary: Document) -> str:
    name = canary["snapshot"] if canary["version"] is None else f"v{canary['version']}"
    text = f"Canary: {name} answers {canary['share']:.0%} of requests until {canary['until'][:16]}Z"
    if canary["difference"] is None:
        return f"{text}; nothing was compared yet"
    low, high = canary["low"], canary["high"]
    bounds = "" if low is None else f" ({low:+.4f} to {high:+.4f})"
    rows = f"{canary['rows']:,} labelled rows"
    return f"{text}; the champion loses {canary['difference']:+.4f}{bounds} a row more, on {rows}"


def _against(standing: Document) -> RenderableType:
    live, shadow = standing["live"] or {}, standing["shadow"] or {}
    left, right = live.get("figures", {}), shadow.get("figures", {})
    rows = [
        [title_of(name), figure(left.get(name)), figure(right.get(name)),
         f"{left[name] - right[name]:+.3f}" if name in left and name in right else "-"]
        for name in FIGURES if name in left or name in right
    ]  # fmt: skip
    title = f"Live on {live.get('rows', 0):,} labelled rows, shadow on {shadow.get('rows', 0):,}"
    return make_table(title, ("figure", ">live", ">shadow", ">lift"), rows)


def _replicas(document: Document) -> RenderableType:
    """Those that share the log."""
    rows = [
        [one["name"], "not numbered yet" if one["version"] is None else f"v{one['version']}",
         f"{one['queue']:,}", f"{one['unrecorded']:,}", f"{document['at'] - one['at']:.0f} s"]
        for one in document["replicas"]
    ]  # fmt: skip
    columns = ("name", ">version", ">rows for the log", ">not kept", ">last word")
    return make_table("Replicas on this log", columns, rows)


def _candidates(standing: Document) -> RenderableType:
    champion = (standing["champion"] or {}).get("version")
    rows = [
        [f"v{one['version']}", figure(one["f1"]), f"{one['rows']:,}", one["phase"], one["recipe"],
         "champion" if one["version"] == champion else ""]
        for one in standing["candidates"]
    ]  # fmt: skip
    columns = (">version", ">F1", ">rows", "phase", "recipe", "")
    return make_table("Versions that a rollback could restore", columns, rows)


def _registry(document: Document) -> RenderableType:
    champion, moved = document["champion"], document["moved"]
    hold, lease = document["hold"], document["lease"]
    lines = [f"Model '{document['model']}', by the registry alone"]
    if champion is None:
        lines.append("Champion: none")
    else:
        how = f", since {moved['at']} by {moved['actor']}: {moved['reason']}" if moved else ""
        foreign = ", which selfheal did not register" if "source" in champion else ""
        lines.append(f"Champion: v{champion['version']}{foreign}{how}")
    lines.append(
        f"Healing: held by {hold['actor']}: {hold['reason']}" if hold else "Healing: allowed"
    )
    lines.append(
        f"Lease: run {lease['run']} of {lease['holder']}, since {lease['since']}"
        if lease
        else "Lease: no run heals it"
    )
    rows = [
        [
            f"v{one['version']}",
            one["phase"],
            figure(one["metrics"].get("f1")),
            one["tags"].get("selfheal.eval_rows", "0"),
        ]
        for one in document["versions"]
    ]
    table = make_table("Last versions", (">version", "phase", ">F1", ">rows"), rows)
    return Group(*(line(text) for text in lines), table)


SECONDS = 10.0
MOST_BYTES = 10_000_000


def ask_status(url: str, token: str) -> dict[str, Any]:
    """The document of ``/status``; raises `NoAnswer` where there is none to be had.

    ``token`` goes to that server alone: a redirection is not followed.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigurationError(f"{url}: a URL such as http://127.0.0.1:5001 is expected")
    where = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    request = urllib.request.Request(f"{where}/status")  # noqa: S310 - http or https
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.build_opener(_NowhereElse).open(request, timeout=SECONDS) as answer:
            document = json.loads(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as exc:
        raise NoAnswer(f"{where}: {_refusal(exc)}") from exc
    except (OSError, urllib.error.URLError) as exc:
        reason = getattr(exc, "reason", exc)
        raise NoAnswer(
            f"{where}: nothing answers ({reason}); start 'selfheal serve NAME', or give "
            "--model NAME to read the registry"
        ) from exc
    except ValueError as exc:
        raise NoAnswer(f"{where}: answers, and is no 'selfheal serve' (no JSON)") from exc
    if not isinstance(document, dict) or not {"standing", "server", "told"} <= document.keys():
        raise NoAnswer(f"{where}: answers, and is no 'selfheal serve' (no status)")
    return document


class _NowhereElse(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Nowhere else."""


def _refusal(exc: urllib.error.HTTPError) -> str:
    if exc.code == 401:
        return "a token is needed: give --token-file"
    try:
        message = str(json.loads(exc.read(MOST_BYTES))["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"answers with status {exc.code}: is it a 'selfheal serve'?"
    return f"status {exc.code}: {message}"
