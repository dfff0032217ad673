"""How a base's rows become inputs, with the model that is part of that where one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import load

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.estimators.scorer import keep
from selfheal_cli.model.allowed import is_allowed
from selfheal_cli.model.checkpoint import ANCHOR, ESTIMATOR
from selfheal_cli.records import digest
from selfheal_cli.sources.encoding import Encoding

if TYPE_CHECKING:
    from selfheal_cli.records import Base


def encoding_of(base: Base) -> Encoding:
    """Raises `ModelError` where its model cannot be loaded, `VersionCorrupt` for other bytes."""
    encoding = Encoding.model_validate(base.describe()["encoding"])
    if encoding.model is not None:
        data = load(base.weights)[f"{ANCHOR}{ESTIMATOR}"].tobytes()
        if digest(data) != encoding.model.sha256:
            raise VersionCorrupt("the base's model has another hash than its document says")
        keep(encoding.model, data, is_allowed)
    return encoding
