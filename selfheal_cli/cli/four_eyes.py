"""``selfheal four-eyes``."""

from __future__ import annotations

import click

from selfheal_cli.actor import actor, now_text
from selfheal_cli.cli import options
from selfheal_cli.cli.command import Command
from selfheal_cli.cli.say import say


@click.command("four-eyes", cls=Command)
@click.option("--on", "wanted", flag_value="on", help="Want two people from now on.")
@click.option("--off", "wanted", flag_value="off", help="Propose that one person is enough again.")
@options.reason
@options.model
@options.tracking_uri
def command(wanted: str | None, reason: str, model_name: str, tracking_uri: str | None) -> None:
    """Have a model want two people for a move of its champion; without an option, say whether.

    The rule belongs to the model and not to a policy: a run whose policy has four_eyes sets it, and
    no run takes it away. Anybody may set it. It is loosened by two people, as the rule has it:
    --off makes a proposal, and 'selfheal approve' of somebody else carries it out.
    """
    from selfheal_cli.registry.journal import Proposal, standing
    from selfheal_cli.registry.mlflow.registry import MlflowRegistry
    from selfheal_cli.registry.orders import propose, set_four_eyes

    registry = MlflowRegistry(tracking_uri)
    registry.versions(model_name, limit=1)  # there must be such a model
    four_eyes = standing(registry, model_name).four_eyes
    if wanted is None or (wanted == "on") == four_eyes:
        people = "two people" if four_eyes else "one person"
        say(f"A move of the champion of '{model_name}' takes {people}.")
    elif wanted == "on":
        set_four_eyes(registry, model_name, on=True, actor=actor(), at=now_text(), reason=reason)
        say(f"A move of the champion of '{model_name}' takes two people from now on.")
    else:
        asked = Proposal(0, "", actor(), now_text(), reason, 0, loosens=True)
        number = propose(registry, model_name, asked).sequence
        say(
            f"Proposal {number}: one person is to be enough; somebody else runs 'selfheal approve "
            f"{number}'."
        )
