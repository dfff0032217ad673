"""The contract of a recipe, and the recipes by name.

A new recipe is a module in ``recipes/``, a line in `KINDS`, and a name that users may choose; one
of another package is in `own`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from selfheal_cli.config import HealSettings, LabelSettings
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.own import OwnRecipe
from selfheal_cli.heal.recipes.aligned import Aligned
from selfheal_cli.heal.recipes.anchored import Anchored
from selfheal_cli.heal.recipes.article import Article
from selfheal_cli.heal.recipes.assumed import Assumed
from selfheal_cli.heal.recipes.ensemble import Ensemble
from selfheal_cli.heal.recipes.gradient import Gradient
from selfheal_cli.heal.recipes.segmented import Segmented
from selfheal_cli.heal.shards import shards_of
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.installed import choices, importable, load, name_of, part_of
from selfheal_cli.kinds import BUILT_IN, PartKind
from selfheal_cli.model.adapters import AFFINE, LORA, MIXTURE, REFLEXIVE, parse_adapter
from selfheal_cli.model.extent import MOST_BESIDE
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.tree_library import require_trees, why_no_trees

FREE = ("anchored", "ensemble")  # recipes beside which heals without labels may rest on `assume`
UNLABELLED = 25  # batches that an ensemble's heal without labels looks at, at least


class Recipe(Protocol):
    """Turns the adapter before, rows and labels into the adapter after and some figures.

    A pure function of its arguments: the same in, the same bytes out.
    """

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """The adapter after learning from the task's rows.

        Raises `HealError` where no usable weights come out, `HealRefused` where the recipe's
        assumption does not hold on these rows.
        """


@dataclass(frozen=True, slots=True)
class RecipeKind:
    """The properties of a recipe that the session and the commands depend on.

    ``adapter``: the kind whose weights it gives. ``rows``: it learns from the batch at hand, from
    the window of labelled rows, or from a window of rows without labels. ``guarded``: gate,
    quarantine, stale rules and cooldown act on it (the article's recipe is left exactly as it is).
    ``takes``: the adapters that a wrapped network may come with. ``remembers``: its memory holds
    all that it learned, whether its adapter serves or not, so that a heal need not be published.
    ``unlearns``: after a rollback that a run decides on, it begins anew. ``slack``: by how much
    mean log loss may rise on held-out rows whatever their spread, which says nothing where no
    positive is among them.
    """

    adapter: str
    rows: Literal["batch", "labelled", "unlabelled"]
    guarded: bool
    classes: int | None  # the most that it can tell apart; None: any number
    build: Callable[[SelfHealingNetwork, Anchor, HealSettings], Recipe]
    takes: tuple[str, ...] = (REFLEXIVE, AFFINE)
    remembers: bool = False
    unlearns: bool = True
    slack: float = 0.0

    def goes_behind(self, stored: str, *, foreign: bool) -> bool:
        """Whether its adapter is put behind the stored one: the ReflexiveLayer of a network that a
        run trained, or at a wrapped network's end.
        """
        if self.adapter == MIXTURE:
            return stored in (REFLEXIVE, AFFINE)
        other = self.adapter == AFFINE or not foreign
        return stored == REFLEXIVE != self.adapter and other


KINDS = {
    "article": RecipeKind(REFLEXIVE, "batch", False, 2, Article, (REFLEXIVE,)),
    "gradient": RecipeKind(REFLEXIVE, "labelled", True, None, Gradient, (REFLEXIVE, AFFINE, LORA)),
    "anchored": RecipeKind(AFFINE, "labelled", True, None, Anchored, remembers=True),
    "ensemble": RecipeKind(
        MIXTURE, "labelled", True, None, Ensemble, remembers=True, unlearns=False, slack=0.002
    ),
    "assumed": RecipeKind(AFFINE, "unlabelled", True, 2, Assumed),
    "aligned": RecipeKind(AFFINE, "unlabelled", True, None, Aligned),
}


def kind_of(name: str) -> RecipeKind:
    """What the session must know of a recipe, built in or not; raises `ConfigurationError`."""
    if name in KINDS:
        return KINDS[name]
    part = load("recipe", name)
    adapter = name_of("adapter", getattr(part, "adapter", REFLEXIVE))
    every = (one for one in choices("adapter") if importable("adapter", one))
    takes = [name_of("adapter", one) for one in getattr(part, "takes", every)]
    known = choices("adapter")
    odd = [one for one in (adapter, *takes) if one not in known or not importable("adapter", one)]
    odd += [LORA] if adapter == LORA else []
    if odd:
        raise part_of("recipe", name).failed(f"cannot have the adapter {odd[0]!r}")

    def build(network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> Recipe:
        return OwnRecipe(name, network, settings)

    return RecipeKind(adapter, "labelled", True, None, build, tuple(takes))


def label_free(heal: HealSettings) -> str | None:
    """The recipe that heals without labels under the declared assumption, if one is declared."""
    if heal.assume is None:
        return None
    return "aligned" if heal.assume == "inputs-shifted" else "assumed"


def unlabelled_batches(heal: HealSettings) -> int:
    """Batches that a heal without labels looks at: as many as with anchored, whose window is that
    of an ensemble's judges elsewhere.
    """
    return max(heal.window, UNLABELLED) if heal.recipe == "ensemble" else heal.window


def check_recipe(heal: HealSettings, labels: LabelSettings, classes: int) -> None:
    """Raise `ConfigurationError` where the recipe does not go with the labels or the classes."""
    kind = kind_of(heal.recipe)
    if heal.mode == "async" and not importable("recipe", heal.recipe):
        raise ConfigurationError(
            f"recipe '{heal.recipe}' cannot be imported by the process that heals beside scoring: "
            "give a class or function of a module, install it, or heal with mode 'sync'"
        )
    if kind.classes is not None and classes > kind.classes:
        raise ConfigurationError(
            f"recipe '{heal.recipe}' is binary and the target has {classes} values; "
            "use --recipe anchored or gradient"
        )
    if labels.negative_after is not None and classes != 2:
        raise ConfigurationError(
            f"labels.negative_after is for two classes and the target has {classes} values"
        )
    if heal.trees and heal.recipe == "ensemble":
        require_trees("recipe ensemble with heal.trees")
    # the recipe that heals until labels come has conditions of its own
    free = label_free(heal)
    if free is None:
        return
    if heal.recipe not in FREE:
        raise ConfigurationError(
            f"heal.assume heals with --recipe {' or '.join(FREE)}, not '{heal.recipe}'"
        )
    if labels.regime == "full":
        raise ConfigurationError(
            "heal.assume is for labels that are late or missing; give --labels none or delayed:K"
        )
    if KINDS[free].classes == 2 < classes:
        raise ConfigurationError(
            f"heal.assume {heal.assume} is for two classes and the target has {classes}; "
            "heal.assume inputs-shifted takes any number"
        )


def without_trees(heal: HealSettings) -> str:
    """What is said of a run whose experts lack trees because there is no LightGBM; or nothing."""
    reason = why_no_trees() if heal.recipe == "ensemble" and not heal.trees else ""
    return f"ensemble learns without boosted trees: no LightGBM here ({reason})" if reason else ""


def check_place(heal: HealSettings, network: SelfHealingNetwork) -> None:
    """Raise `ConfigurationError` where the recipe cannot heal the adapter where it was wrapped."""
    size = network.architecture
    adapter = parse_adapter(size.adapter)
    at = f" at layer '{size.other.at}'" if size.other else ""
    kind = kind_of(heal.recipe)
    if kind.adapter in (AFFINE, MIXTURE) and not network.ends_in_linear:
        raise ConfigurationError(
            f"recipe '{heal.recipe}' fits the linear layer that gives the logits, and this model "
            f"was wrapped with {adapter}{at}: use --recipe gradient, or wrap it again with "
            "--at auto and --adapter reflexive or affine"
        )
    if adapter.name not in (kind.adapter, *kind.takes):
        able = ", ".join(n for n in ("anchored", "gradient") if adapter.name in KINDS[n].takes)
        raise ConfigurationError(
            f"recipe '{heal.recipe}' heals with an adapter of the kind {' or '.join(kind.takes)}, "
            f"and this model was wrapped with {adapter}{at}: use --recipe {able}"
        )
    if label_free(heal) == "aligned" and not network.may_look_beside:
        raise ConfigurationError(
            "heal.assume inputs-shifted needs inputs that are measured, and no more than "
            f"{MOST_BESIDE}; this model takes {size.inputs:,}"
            + (" whole numbers" if size.other and size.other.dtype == "int64" else "")
            + ": wait for labels"
        )


def fitting(adapters: Collection[str]) -> list[str]:
    """The recipes that a user may choose for a place where these adapters go."""
    at_the_end = AFFINE in adapters
    return [
        name
        for name in ("anchored", "ensemble", "gradient", "article")
        if set(adapters) & set(KINDS[name].takes)
        and (at_the_end or KINDS[name].adapter not in (AFFINE, MIXTURE))
    ]


class Recipes:
    """Recipes of one network, built when they are first asked for."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self.network = network
        self.anchor = anchor
        self.settings = settings
        self._built: dict[str, Recipe] = {}

    @property
    def needs_backbone(self) -> bool:
        """Whether a heal runs the backbone again; most work on features that are there."""
        return label_free(self.settings) == "aligned"

    def others(self) -> Iterator[tuple[PartKind, str]]:
        """Recipe and adapter, where they are not built in, so that another process knows them."""
        adapter = self.network.architecture.adapter.partition(":")[0]
        if self.settings.recipe not in KINDS:
            yield "recipe", self.settings.recipe
        if adapter not in BUILT_IN["adapter"]:
            yield "adapter", adapter

    def _build(self, kind: RecipeKind) -> Recipe:
        whole = kind.build(self.network.whole, self.anchor, self.settings)
        if not self.network.architecture.directions:
            return whole
        shards = shards_of(self.settings.engine)
        return Segmented(self.network, self.anchor, whole, shards)

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """Heal by the recipe that the task names; raises as `Recipe.heal` does."""
        # a session heals by one recipe, or two where it heals without labels: the others cost time
        if task.recipe not in self._built:
            self._built[task.recipe] = self._build(kind_of(task.recipe))
        return self._built[task.recipe].heal(before, task)
