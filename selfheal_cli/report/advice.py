"""What to do after a run: each step with its reason and the command, from the log alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from selfheal_cli.history.events import Kind
from selfheal_cli.report.story import Story
from selfheal_cli.report.telling import WORSE, telling

FEW_ROWS = 500  # behind a version's F1, from which on it may be trusted as it is
MODEL = "fraud"  # the commands' own default


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do. ``commands`` may be none where it is not this tool that does it."""

    title: str
    why: str
    commands: tuple[str, ...] = ()


def steps(story: Story) -> list[Step]:
    """Most pressing first; never empty."""
    found = [*_the_run(story), *_retrain(story), *_the_model(story), *_the_world(story)]
    name = _model_name(story)
    look = Step(
        "Look closer",
        "Which version serves and why, what was done to the model by whom, and each version's "
        "figures.",
        (f"selfheal champion{name}", f"selfheal history --run {_run(story)}", "selfheal ui"),
    )
    calm = Step("Nothing presses", "The run ended, and nothing in its log asks for a person.")
    return [*(found or [calm]), look]


def _the_run(story: Story) -> Iterator[Step]:
    """Is the run itself whole?"""
    outcome = story.view.finished.get("outcome")
    if outcome != "FINISHED":
        yield Step(
            "Go on with the run" if outcome else "If the run's process has died, go on with it",
            "Its recorded batches are gone through again, and the rest follows.",
            (f"selfheal run --resume {_run(story)}",),
        )
    left = sum(row.version is None for row in story.view.snapshots.values())
    if left:
        yield Step(
            "Bring what waits to the registry",
            f"{left:,} snapshots have no version yet: they are on the disk of the machine that "
            "made them.",
            (f"selfheal flush {_run(story)}",),
        )
    if story.held:
        yield Step(
            "Allow healing again when its reason is gone",
            "Healing was held when the log ended.",
            (f"selfheal release{_model_name(story)}",),
        )


def _the_model(story: Story) -> Iterator[Step]:
    """Should something else serve?"""
    view, name = story.view, _model_name(story)
    baseline = next((row for row in view.snapshots.values() if row.phase == "baseline"), None)
    serving, best = story.serving, view.best()
    harmed = telling(story).tone == WORSE
    if harmed and baseline is not None and baseline.version is not None:
        yield Step(
            "Serve the trained version again",
            "Healing did worse than doing nothing. Look at the plan first; nothing moves in a dry "
            "run.",
            (
                f"selfheal rollback --to {baseline.version} --dry-run{name}",
                f"selfheal hold --reason 'healing did harm'{name}",
            ),
        )
    elif serving is not None and best is not None and best.f1 and best.id != serving.id:
        few = best.rows < FEW_ROWS
        why = f"v{best.version} had F1 {best.f1:.3f} on {best.rows:,} rows; v{serving.version} "
        why += "serves. " if serving.f1 is None else f"serves, with {serving.f1:.3f}. "
        why += "Each was scored on the rows of its own time"
        why += ", few of them: let both be scored again on the latest rows." if few else "."
        again = " --revalidate 5" if few else ""
        yield Step(
            "Consider the version with the highest F1",
            why,
            (f"selfheal rollback --to-best{again} --dry-run{name}",),
        )


def _retrain(story: Story) -> Iterator[Step]:
    """What no heal can mend."""
    diagnoses = story.view.latest(Kind.DIAGNOSIS)
    if diagnoses and diagnoses[-1]["advice"] == "gone":
        yield Step(
            "Retrain with new features",
            f"The last diagnosis (batch {diagnoses[-1]['batch']}) says that the information which "
            "told the classes apart is gone; no heal brings it back.",
        )


def _the_world(story: Story) -> Iterator[Step]:
    """Rules, labels and assumptions, for a person to look at."""
    view = story.view
    if story.stale:
        yield Step(
            "Look at the rules",
            f"Stale at the end: {'; '.join(story.stale)}. A rule that no longer fires as in "
            "training teaches the wrong thing.",
        )
    odd = view.latest(Kind.QUARANTINED)
    if odd:
        yield Step(
            "Look where the labels come from",
            f"{view.times(Kind.QUARANTINED):,} times their rate was out of all proportion, last in "
            f"batch {odd[-1]['batch']}.",
        )
    refused = view.latest(Kind.HEAL_REFUSED)
    if refused:
        yield Step(
            "Get labels, or another assumption",
            f"{view.times(Kind.HEAL_REFUSED):,} heals without labels were refused, last in batch "
            f"{refused[-1]['batch']}: {refused[-1]['reason']}",
        )
    config = view.started.get("config", {})
    heal, regime = config.get("heal", {}), config.get("labels", {}).get("regime")
    healed = view.times(Kind.HEAL) > 0
    if regime == "none" and not heal.get("assume"):
        yield Step(
            "Name an assumption, or let labels come",
            "Without labels nothing heals unless it is said what may be relied on; the assumption "
            "is tested on every window.",
            ("selfheal run --help",),
        )
    if heal.get("recipe") == "article" and healed:
        yield Step(
            "Hold the recipes against each other",
            "The article's recipe is judged on the rows it learned from, and no guard acts on it.",
            ("selfheal compare --recipes article,anchored",),
        )


def _run(story: Story) -> str:
    return str(story.view.started.get("run_id", "latest"))[:8]


def _model_name(story: Story) -> str:
    name = str(story.view.started.get("model", MODEL))
    return "" if name == MODEL else f" --model-name {shlex.quote(name)}"
