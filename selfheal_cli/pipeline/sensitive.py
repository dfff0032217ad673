"""Which feature's drift is watched: a named one, a rule's, or the one the network uses most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

from selfheal_cli.errors import DataError
from selfheal_cli.model.attribution import gradient_times_input
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.moments import Moments
from selfheal_cli.monitor.fidi import Calibration, calibrate, is_category
from selfheal_cli.monitor.rules import RuleSet
from selfheal_cli.source.base import Source
from selfheal_cli.source.encoding import CLIP, Encoding
from selfheal_cli.source.profile import nearest

AUTO = "auto"
TOLD = 5  # features whose shares are written down


def calibrate_sensitive(named: str | None, source: Source, rules: RuleSet) -> Calibration:
    """Mean and spread of the named feature, or of the first rule's numeric one.

    Raises `DataError` where there is none, or it never varies.
    """
    numeric = source.encoding.numeric
    features = [part.feature for rule in rules.rules for part in rule.leaves]
    if not numeric and source.encoding.columns:
        return _calibrate_text(named or (features or source.encoding.names)[0], source)
    feature = named or next((name for name in features if name in numeric), "")
    if feature not in numeric:
        what = (
            f"'{feature}' is not a numeric feature{nearest(feature, numeric)}"
            if feature
            else ("no rule names a numeric feature")
        )
        raise DataError(f"{what}; give --sensitive one of: {', '.join(numeric) or 'none'}")
    moments = Moments()
    for rows in source.training():
        moments.add(rows.columns[feature])
    clip = CLIP if source.encoding.contract == 2 else inf
    return calibrate(feature, moments, clip=clip)


def _calibrate_text(feature: str, source: Source) -> Calibration:
    """Of a table without numbers: the share of a text's commonest category."""
    if feature not in source.encoding.names:
        near = nearest(feature, source.encoding.names)
        names = ", ".join(source.encoding.names)
        raise DataError(f"'{feature}' is not a feature{near}; give --sensitive one of: {names}")
    counts: Counter[str] = Counter()
    for rows in source.training():
        counts.update(text for text in rows.columns[feature] if isinstance(text, str))
    category = min(counts, key=lambda name: (-counts[name], name), default="")
    moments = Moments()
    for rows in source.training():
        moments.add(is_category(rows.columns[feature], category))
    return calibrate(feature, moments, category)


def most_used(network: SelfHealingNetwork, source: Source) -> dict[str, float]:
    """Numeric features by their share of ``|gradient * input|``, largest first; they sum to 1."""
    found = gradient_times_input(network, (rows.x for rows in source.training()))
    used = {name: float(found[place]) for name, place in numeric_inputs(source.encoding)}
    total = sum(used.values()) or 1.0
    ranked = sorted(used, key=lambda name: -used[name])
    return {name: used[name] / total for name in ranked}


def sensitive_auto(used: Mapping[str, float]) -> dict[str, Any]:
    """What is written down of the choice; nothing where there was none."""
    most = [{"feature": name, "share": share} for name, share in used.items()]
    return {"sensitive_auto": most[:TOLD]} if most else {}


def numeric_inputs(encoding: Encoding) -> Iterator[tuple[str, int]]:
    """Each numeric feature with the network's input that it is."""
    place = 0
    for column in encoding.columns:
        if column.kind == "numeric":
            yield column.name, place
        place += column.width
