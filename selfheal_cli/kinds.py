"""The names of recipes and monitors that a user chooses by; it loads nothing, as `--help` wants it.

What a name stands for is a line in `KINDS` of heal/recipe.py or drift/kinds.py.
"""

from typing import Literal, get_args

RecipeName = Literal["article", "gradient", "anchored"]
MonitorName = Literal[
    "fidi", "adwin", "kswin", "page-hinkley", "psi", "two-sample", "prediction-rate",
    "missing", "category", "conflicts",
]  # fmt: skip
RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)
