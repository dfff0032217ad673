"""``selfheal demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.actor import actor, clock
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say

if TYPE_CHECKING:
    from selfheal_cli.cli.run_screen import RunScreen
    from selfheal_cli.pipeline.offline.demo import Demonstration
    from selfheal_cli.pipeline.runs.run import Finished
    from selfheal_cli.settings.resolve import ResolvedSettings
    from selfheal_cli.sources.payments import Payments

MODEL, FILE = "payments", "payments.csv"
FOLDER = Path("selfheal-demo")


@click.command("demo", cls=Command)
@click.option(
    "--write",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only write the table to DIR, to try 'selfheal init' and 'selfheal run' on.",
)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True,
              help="The seed of the payments and of the network.")  # fmt: skip
@options.tracking_uri
@options.quiet
@options.as_json
def command(
    folder: Path | None, seed: int, tracking_uri: str | None, quiet: bool, as_json: bool
) -> None:
    """Show healing on payments that change three times, and how much of the possible it gains.

    The table is drawn from a seed: 24,000 payments with times, money, categories and labels that
    come hours later. Its generator knows the best that any model could do.
    """
    from selfheal_cli.sources.payments import ROWS, draw_payments

    payments = draw_payments(seed, ROWS)
    path = _write(payments, folder or FOLDER)
    if folder is not None:
        say(f"{len(payments):,} payments are in {path}. Try:")
        say(f"  cd {folder}", f"  selfheal init {FILE} --target is_fraud", "  selfheal run")
        return
    from selfheal_cli.cli.run_screen import RunScreen

    screen = RunScreen(quiet=quiet or as_json)
    settled = _settings(path, seed)
    if not (quiet or as_json):
        say(f"{len(payments):,} payments are in {path}; the first quarter trains a network.")
    finished, shown = _run(settled, payments, tracking_uri, screen)
    if as_json:
        from selfheal_cli.cli import output

        output.print_json(_document(finished, shown))
        return
    _show(shown)
    _conclude(finished)


def _write(payments: Payments, folder: Path) -> Path:
    from selfheal_cli.errors import StorageError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return payments.write(folder / FILE)
    except OSError as exc:
        raise StorageError(f"{folder / FILE}: cannot be written ({exc.strerror})") from exc


def _settings(path: Path, seed: int) -> ResolvedSettings:
    """What a run of the table is told: its columns, and nothing of how to heal or to watch."""
    from selfheal_cli.settings.layers import Layer
    from selfheal_cli.settings.resolve import resolve
    from selfheal_cli.sources.payments import LABEL_TIME, TARGET, TELL_NOTHING, TIME

    source = {"kind": "table", "path": str(path), "target": TARGET, "positive": "yes",
              "time": TIME, "label_time": LABEL_TIME, "drop": list(TELL_NOTHING)}  # fmt: skip
    values = {
        "source": source, "seed": seed, "model_name": MODEL,
        "export_dir": str(path.parent / "monitoring_export"),
    }  # fmt: skip
    return resolve([Layer(values)])


def _run(
    settled: ResolvedSettings, payments: Payments, tracking_uri: str | None, screen: RunScreen
) -> tuple[Finished, Demonstration]:
    from dataclasses import replace

    from selfheal_cli.cli.run import Interrupts, answering
    from selfheal_cli.pipeline.offline.demo import demonstrate
    from selfheal_cli.pipeline.prepare.objective import by_the_data
    from selfheal_cli.pipeline.prepare.rows import open_source
    from selfheal_cli.pipeline.runs.run import RunContext, run
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.report.demo_picture import draw_demo

    source = open_source(settled.config)
    config, _ = by_the_data(settled, settled.config, source)
    registry = MlflowRegistry(tracking_uri, create=True)
    with screen, answering(Interrupts(training=True)) as interrupts:
        around = RunContext(
            registry, clock, actor(), on_epoch=screen.on_epoch,
            watchers=[screen.on_event, interrupts.on_event], on_left=screen.on_left,
            on_results=lambda end: interrupts.conclude(), stop=interrupts.asked,
            leave=interrupts.leave,
        )  # fmt: skip
        finished = run(config, source, around)
    if finished.outcome == "KILLED" or interrupts.leave():
        raise KeyboardInterrupt
    shown = demonstrate(config, source, payments, finished.view)
    picture = draw_demo(
        shown.curves, shown.ends, [(one.change.row, one.change.name) for one in shown.noticed],
        _gain(shown), Path(config.export_dir).parent / "demo.png",
    )  # fmt: skip
    return replace(finished, files=(picture, *finished.files)), shown


def _show(shown: Demonstration) -> None:
    from selfheal_cli.cli import output
    from selfheal_cli.scores import title_of

    names = list(shown.lines[0].figures)
    rows = [[one.title, *(output.figure(one.figures[name]) for name in names)]
            for one in shown.lines]  # fmt: skip
    say("")
    title = f"Results on {shown.rows:,} payments, each scored before its label came"
    output.print_table(title, ("", *(f">{title_of(name)}" for name in names)), rows)
    say("")
    _tell(f"{_gain(shown)}.", "")
    changes = [
        [one.change.name, f"{one.change.row:,}", str(one.began),
         str(one.seen) if one.seen > 0 else "-", one.monitor or "not seen", one.change.effect]
        for one in shown.noticed
    ]  # fmt: skip
    columns = ("change", ">from row", ">batch", ">seen in", "by", "what changed")
    output.print_table("The three changes", columns, changes)


def _gain(shown: Demonstration) -> str:
    gained = shown.gained
    return (
        f"Healing gained {100 * gained.share:.0f} % of the F1 that any model could have gained "
        f"(95 % interval {100 * gained.low:.0f} to {100 * gained.high:.0f})"
    )


def _conclude(finished: Finished) -> None:
    from selfheal_cli.report.page import PAGE
    from selfheal_cli.report.recommendation import recommend

    advice = recommend(finished.view)
    back = f"selfheal rollback --to-best --model {MODEL}"
    report = next(path for path in finished.files if path.name == PAGE)
    _tell(
        "",
        advice.sentence,
        f"Recommended: {back if advice.back else 'keep what serves'}.",
        f"Picture: {finished.files[0]}; report: {report}.",
        f"Next: selfheal snapshots --model {MODEL}, or selfheal ui.",
    )


def _tell(*lines: str) -> None:
    """In whole words at the terminal's width."""
    from selfheal_cli.cli import output

    console = output.make_console()
    for one in lines:
        console.print(output.line(one))


def _document(finished: Finished, shown: Demonstration) -> dict[str, Any]:
    from dataclasses import asdict

    from selfheal_cli.report.recommendation import recommend

    return {
        "run_id": finished.run_id,
        **asdict(shown),
        "recommendation": asdict(recommend(finished.view)),
        "files": [str(path) for path in finished.files],
    }
