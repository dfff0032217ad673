"""``selfheal check-model``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say
from selfheal_cli.cli.wrap import command as wrap
from selfheal_cli.cli.wrap import read_asked, require_model
from selfheal_cli.cli.wrap_estimator import taken_estimator

if TYPE_CHECKING:
    from selfheal_cli.pipeline.prepare.trial import ModelTrial


OPTIONS = [one for one in wrap.params if one.name not in ("name", "promote", "listed")]
WIDEST, WIDTH = len("adapter") + 2, 80


@click.command("check-model", cls=Command, params=OPTIONS)
def command(tracking_uri: str | None, as_json: bool, **given: Any) -> None:
    """Say what a model takes and gives, where an adapter can go and what a heal costs.

    Arguments as of wrap, without --as. Nothing is registered. Exit code 3, with the reason, for a
    model that cannot be wrapped.
    """
    given = require_model(given)
    from selfheal_cli.cli import output
    from selfheal_cli.model.allowed import allow
    from selfheal_cli.pipeline.prepare.foreign import taken
    from selfheal_cli.pipeline.prepare.trial import tried, tried_estimator
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry

    allow([(given["target"] or "").partition(":")[0]])
    registry = MlflowRegistry(tracking_uri) if given["model"] is not None else None
    classifier = None if registry is None else taken_estimator(registry, given)
    if classifier is not None:
        name, trial = given["model"], tried_estimator(classifier)
    else:
        origin, stored, sample = read_asked(registry, given)
        original = taken(stored, sample, origin, given["gives"])
        sample = sample.as_taken(original)
        name, trial = str(origin), tried(original, sample, at=given["at"], adapter=given["adapter"])
    if as_json:
        output.print_json({"model": name, **trial.as_dict()})
        return
    say(f"{name}:")
    for name, text in _lines(trial):
        begun = f"  {name:<{WIDEST}}"
        say(*textwrap.wrap(text, WIDTH, initial_indent=begun, subsequent_indent=" " * len(begun)))
    for line in trial.cautions:
        say(*textwrap.wrap(line, WIDTH))


def _lines(trial: ModelTrial) -> list[tuple[str, str]]:
    batch = f"{trial.batch_ms:.3g} ms for a batch of {trial.batch_rows} rows"
    step = f"{trial.step_ms:.3g} ms a gradient step on {trial.batch_rows} rows, the network's own "
    return [
        ("takes", f"{trial.takes}: {trial.columns:,} values a row"),
        ("gives", trial.gives),
        ("adapter", f"{trial.adapter} {trial.where}, {trial.parameters:,} parameters"),
        ("recipes", ", ".join(trial.recipes)),
        ("scoring", batch),
        ("a heal", f"{step}layers before the adapter not counted: they run once a row"),
        ("storage", f"{trial.base_kb:,.0f} KB a run, {trial.version_kb:,.1f} KB a version"),
    ]
