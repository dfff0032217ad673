"""How a served model stands, on a terminal: once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from selfheal_cli.cli.output import figure, line, make_console, make_table
from selfheal_cli.errors import NoAnswer, RegistryUnreachable

STATE_COLOURS = {"HEALTHY": "green", "DRIFTING": "yellow", "HEALING": "blue", "ROLLED_BACK": "red"}
TONES = {"better": "green", "worse": "red", "mixed": "magenta"}
FIGURES = ("f1", "accuracy", "precision", "recall", "roc_auc", "log_loss", "cost")
Document = Mapping[str, Any]


def show(document: Document) -> None:
    """Print it once."""
    make_console().print(rendered(document))


def watch(look: Callable[[], Document], every: float) -> None:
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
    outcomes = ", ".join(f"{count} {name}" for name, count in heals.items() if count)
    lines.append(f"Heals: {outcomes or 'none yet'}; {standing['rollbacks']} rollbacks")
    age = document["label_age_seconds"]
    last = "" if age is None else f", the last {age:.0f} s ago"
    lines.append(f"Labels: {standing['labels']:,}{last}")
    lines.append(
        f"Waiting: {standing['waiting']:,} rows for the healer, {server['queue']:,} rows for the "
        f"disk, {standing['pending_writes']:,} writes for the registry"
    )
    return [line(text) for text in lines]


def _against(standing: Document) -> RenderableType:
    live, shadow = standing["live"] or {}, standing["shadow"] or {}
    left, right = live.get("figures", {}), shadow.get("figures", {})
    rows = [
        [name.replace("_", " "), figure(left.get(name)), figure(right.get(name)),
         f"{left[name] - right[name]:+.3f}" if name in left and name in right else "-"]
        for name in FIGURES if name in left or name in right
    ]  # fmt: skip
    title = f"Live on {live.get('rows', 0):,} labelled rows, shadow on {shadow.get('rows', 0):,}"
    return make_table(title, ("figure", ">live", ">shadow", ">lift"), rows)


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
        else "Lease: nobody heals it"
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
