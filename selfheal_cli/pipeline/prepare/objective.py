"""What nobody said of objective and batch size follows from the model, or the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import Objective, RunConfig, SyntheticSettings
from selfheal_cli.decide import HALF
from selfheal_cli.settings.objective import advise
from selfheal_cli.settings.resolve import ResolvedSettings
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.table import TableSource

if TYPE_CHECKING:
    from selfheal_cli.estimators.spec import EstimatorSpec


def by_the_model(spec: EstimatorSpec | None) -> Objective:
    """What a model's own threshold is the break-even point of, in false alarms; accuracy where it
    decides by the likelier class, or none is known.

    >>> str(by_the_model(None))
    'accuracy'
    """
    if spec is None or spec.decides_from == HALF:
        return Objective()
    return Objective(kind="cost", fn=(1 - spec.decides_from) / spec.decides_from, fp=1.0)


def by_the_data(
    settled: ResolvedSettings, config: RunConfig, source: Source
) -> tuple[RunConfig, str]:
    """The configuration for rare positives, and why; as it is where they are not, or all was said.
    A wrapped model that has a threshold of its own keeps it.

    Own data of two classes alone. The batches of a table that is open already are cut anew.
    """
    chosen, sized = (
        settled.origin(key).kind != "default" for key in (("objective", "kind"), ("batch_size",))
    )
    table = source if isinstance(source, TableSource) and not sized else None
    if isinstance(config.source, SyntheticSettings) or len(source.labels) != 2:
        return config, ""
    own = by_the_model(source.encoding.model)
    if not chosen and own != Objective():
        chosen, config = True, config.model_copy(update={"objective": own})
    if chosen and table is None:
        return config, ""
    counts = np.sum([np.bincount(rows.y, minlength=2) for rows in source.training()], axis=0)
    advice = advise(int(counts[1]), int(counts.sum()), table.streamed if table else None)
    if advice is None:
        return config, ""
    changed: dict[str, object] = {} if chosen else {"objective": Objective(kind="f1")}
    why = [] if chosen else [advice.because]
    if table is not None and advice.batch_size != config.batch_size:
        table.cut_into(advice.batch_size)
        changed["batch_size"] = advice.batch_size
        why.append(advice.held)
    told = f"{advice.rarity}: {'; '.join(why)}" if why else ""
    return config.model_copy(update=changed), told
