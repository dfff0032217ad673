"""A model that somebody else trained: registered as a baseline, and found again by a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import RowSettings
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.metrics import roc_auc
from selfheal_cli.model.adapters import AFFINE, MIXTURE
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.encoding import Encoding

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

PREFIX = "models:/"
FEWEST = 20  # labelled rows of either class, from which on their ranks say something
SURELY = 1.645  # standard errors, one-sided 5 %
WRAPPED = "wrapped"  # alias of what a run starts from; its own baseline is another version


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A registered network of another's, and what it takes and gives."""

    network: SelfHealingNetwork
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    version: VersionRecord
    encoding: Encoding

    def require_better_than_chance(self, predicted: FloatArray, y: LabelArray) -> None:
        """Raise `DataError` where what nobody said to be a logit tells nothing of the labels (n,).

        The chance that a positive ranks above another row is half, within its error under chance
        (Hanley and McNeil 1982).
        """
        other = self.network.architecture.other
        known = y >= 0
        positive = y[known] == 1
        ones, rows = int(positive.sum()), int(known.sum())
        if other is None or not other.assumed or min(ones, rows - ones) < FEWEST:
            return
        area = roc_auc(positive, predicted[known])
        error = ((rows + 1) / (12 * ones * (rows - ones))) ** 0.5
        if area < 0.5 + SURELY * error:
            raise DataError(
                f"model {self.version.model} v{self.version.version}: its number a row was taken "
                f"for the logit of class 1, and ranks {rows:,} labelled training rows no better "
                f"than chance (ROC AUC {area:.3f}, chance {0.5:.3f} to {0.5 + SURELY * error:.3f}):"
                " a regression is not supported; of a logit say --gives logits when you wrap it"
            )

    def network_for(self, encoding: Encoding) -> SelfHealingNetwork:
        """The network for rows that are encoded so; that of a model which is no torch network is
        made anew where its columns are, whose categories are those of a run's training rows.
        """
        if encoding.model is None or encoding.transforms or encoding == self.encoding:
            return self.network
        return SelfHealingNetwork.around_scores(encoding.width, encoding.model.outputs)

    def require_fit(self, labels: Sequence[str]) -> None:
        """Raise `DataError` where the data's target has other values than the model's."""
        if tuple(labels) != self.labels:
            raise DataError(
                f"model {self.version.model} v{self.version.version} tells apart "
                f"{', '.join(self.labels)}; the target's values are {', '.join(labels)}: give "
                "--positive, another --target, or wrap the model with --classes"
            )


def wrapped_of(config: RunConfig, registry: Registry) -> Wrapped | None:
    """The wrapped model that a run heals; None where it trains its own."""
    return find_wrapped(registry, config.model) if config.model is not None else None


def find_wrapped(registry: Registry, name: str) -> Wrapped:
    """By ``NAME``, ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``; a name alone
    means what was wrapped.

    Raises `VersionNotFound`, or `ConfigurationError` for a version that was not wrapped.
    """
    model, number = _parse(registry, name)
    version = registry.version(model, number)
    base = registry.base(version.base)
    document = base.describe()
    described = document["network"]
    healed = version.tags.get("selfheal.recipe") != WRAPPED
    trained_here = "foreign" not in described and not described.get("scored")
    if trained_here or (healed and described["adapter"] in (AFFINE, MIXTURE)):
        raise ConfigurationError(
            f"{model} v{number} comes from a run; --from heals what 'selfheal wrap' registered: "
            "give its name or models:/NAME@wrapped"
        )
    network = assemble(base, load_verified(registry, version), where=f"{model} v{number}")
    encoding = encoding_of(base)
    return Wrapped(network, tuple(encoding.names), tuple(document["labels"]), version, encoding)


def for_wrapped(config: RunConfig, wrapped: Wrapped, model_name: str | None) -> RunConfig:
    """The configuration of a run that heals a wrapped model; raises `ConfigurationError`.

    Versions go to the wrapped model itself unless ``model_name`` names another.
    """
    if not isinstance(config.source, RowSettings):
        raise ConfigurationError("--from needs DATA with the columns that the model takes")
    if config.heal.assume is not None and wrapped.network.architecture.outputs == 2:
        raise ConfigurationError(
            "heal.assume is for models with one logit; this one has two: wait for labels"
        )
    version = wrapped.version
    positive = config.source.positive or (wrapped.labels[1] if len(wrapped.labels) == 2 else None)
    encoding = wrapped.encoding
    taken: dict[str, Any] = {"inputs": wrapped.inputs, "missing": encoding.missing}
    if encoding.model is not None:
        taken["estimator"] = encoding.model.model_dump(mode="json")
        taken["categorical"] = (*config.source.categorical, *encoding.text)
    source = config.source.model_copy(update={"positive": positive, **taken})
    return config.model_copy(
        update={
            "source": source,
            "model": f"{PREFIX}{version.model}/{version.version}",
            "model_name": model_name or version.model,
            "row_contract": encoding.contract,
        }
    )


def _parse(registry: Registry, name: str) -> tuple[str, int]:
    text = name.removeprefix(PREFIX)
    model, _, number = text.rpartition("/")
    number = number.removeprefix("v")
    if model and number.isdigit():
        return model, int(number)
    model, _, alias = text.partition("@")
    version = registry.alias(model, alias or WRAPPED)
    if version is None:
        raise ConfigurationError(
            f"--from {name}: '{model}' has no alias '{alias or WRAPPED}'; give "
            "NAME, models:/NAME/VERSION or models:/NAME@ALIAS of what 'selfheal wrap' registered"
        )
    return model, version
