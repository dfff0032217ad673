"""The names of built-in parts that a user chooses by; it loads nothing, as `--help` wants it.

What a name stands for is a line in `KINDS` of heal/recipe.py, drift/kinds.py or model/adapters.py.
What other packages bring is in installed.py.
"""

from collections.abc import Mapping
from typing import Literal

PartKind = Literal["recipe", "monitor", "adapter", "source", "rule"]
RECIPES = ("article", "gradient", "anchored", "ensemble")
MONITORS = (
    "fidi", "adwin", "kswin", "page-hinkley", "psi", "two-sample", "prediction-rate",
    "missing", "category", "conflicts",
)  # fmt: skip
# what compare holds beside the recipes; those of own data unless others are named
PEERS = (
    "frozen-trees", "refitted-trees", "refitted-logistic", "retrained-network", "river-logistic",
    "adaptive-tree", "adaptive-forest", "isolation-forest", "one-class-svm",
)  # fmt: skip
OWN_PEERS, RIVER_PEERS = PEERS[:3], PEERS[4:7]
INJECTIONS = (
    "covariate", "prior", "concept", "units", "missing", "swapped-columns", "label-noise",
)  # fmt: skip
VERSIONS = tuple(f"article-v{number}" for number in range(1, 8))  # of the article, before it
UNCHANGED = "no change"  # the same dates without one
# what a heal without labels cannot tell from a world in which its assumption holds
UNSEEN = {
    "positives-stable": "more positives than in training, or a relation that turned while inputs "
    "moved",
    "negatives-stable": "more negatives, noise in place of the positives, or a relation that "
    "turned while inputs moved",
    "inputs-shifted": "a base rate that moved with the inputs, or a relation that turned",
}
ADAPTERS = ("reflexive", "affine", "lora")
# no other package's part can be called so
BUILT_IN: Mapping[PartKind, tuple[str, ...]] = {
    "recipe": (*RECIPES, "assumed", "aligned"),  # the last two heal where no label has come
    "monitor": MONITORS,
    "adapter": (*ADAPTERS, "mixture"),  # the last is what recipe ensemble gives
    "source": ("synthetic", "table", "folder", "ndjson", "sql", "stdin", "kafka", "pushed",
               "served", "own"),
    "rule": ("and", "or", "not", "in", "between", "is", "missing"),
}  # fmt: skip
