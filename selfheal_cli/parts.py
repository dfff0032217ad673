"""What parts of your own are made of: recipes, monitors, adapters, sources, rules.

A part is brought by an entry point of your package (``selfheal.recipes``, ``selfheal.monitors``,
``selfheal.adapters``, ``selfheal.sources``, ``selfheal.rules``) or handed over by a program.
docs/own-parts.md shows each in ten lines; `selfheal_cli.testing` checks them. An adapter is a torch
module that is built with a `Room`; it needs nothing from here at all.
"""

from selfheal_cli.drift.monitor import ERRORS, SCORES, BatchView, FeatureReading
from selfheal_cli.drift.own import MonitorPart
from selfheal_cli.heal.own import Lesson, NewWeights, RecipePart
from selfheal_cli.model.adapter import Room
from selfheal_cli.rules.own import RulePart
from selfheal_cli.sources.own import SourcePart

__all__ = [
    "ERRORS",
    "SCORES",
    "BatchView",
    "FeatureReading",
    "Lesson",
    "MonitorPart",
    "NewWeights",
    "RecipePart",
    "Room",
    "RulePart",
    "SourcePart",
]
