"""Values that are right by themselves and would be ignored, or contradict, beside the others."""

from __future__ import annotations

from collections.abc import Mapping

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import ConfigurationError, OptionError
from selfheal_cli.settings.complaints import blame
from selfheal_cli.settings.layer import Key, Layer, Origin
from selfheal_cli.settings.shape import KINDS, SYNTHETIC

# each kind of source, as options say it
WHERE = {
    SYNTHETIC: "the synthetic stream",
    "table": "a DATA file",
    "folder": "a DATA folder",
    "ndjson": "an NDJSON file",
    "sql": "--sql",
    "stdin": "standard input (-)",
    "kafka": "--kafka",
}
RANK = {"default": 0, "policy": 0, "file": 1, "env": 2, "option": 3}
FOR_GRADIENTS = ("steps", "learning_rate", "label_weight", "rule_weight", "entropy_weight")


def refuse_misfits(given: Layer, kind: str) -> None:
    """Raise `OptionError` for options, `ConfigurationError` for a file."""
    _refuse_of_other_kinds(given, kind)
    labels, timed = ("labels", "regime"), ("source", "label_time")
    recipe = ("heal", "recipe")
    if given.get(*timed) is not None and given.get(*labels) not in (None, "timed"):
        raise _misfit(given, labels, timed, "--labels and --label-time exclude each other")
    joined = ("source", "label_topic")
    if given.get(*joined) is not None and given.get(*labels) not in (None, "arriving"):
        raise _misfit(given, labels, joined, "--labels and --label-topic exclude each other")
    if given.get(*labels) == "timed" and given.get(*timed) is None:
        raise _misfit(given, labels, labels, "'timed' needs source.label_time (--label-time)")
    own = kind != SYNTHETIC
    if (given.get(*recipe) or ("anchored" if own else "article")) != "anchored":
        return
    for name in FOR_GRADIENTS:
        origin, value = given.origin(("heal", name)), given.get("heal", name)
        if origin.kind != "option" and value == HealSettings.model_fields[name].default:
            continue  # a whole configuration that was written down
        if value is not None and _rank(origin) >= _rank(given.origin(recipe)):
            raise _refusal(
                origin,
                ("heal", name),
                "it is for --recipe article or gradient: an anchored heal has no steps and no "
                "learning rate",
            )


def _refuse_of_other_kinds(given: Layer, kind: str) -> None:
    source = given.get("source")
    for name in source if isinstance(source, Mapping) else ():
        origin = given.origin(("source", name))
        if origin.kind == "file" or name in KINDS[kind].model_fields:
            continue
        fitting = [one for one, model in KINDS.items() if name in model.model_fields]
        if not fitting:
            continue
        needed = " or ".join(dict.fromkeys(WHERE[one] for one in fitting))
        if kind == SYNTHETIC:
            raise OptionError(f"{origin} needs {needed}{_because(given, kind)}")
        raise OptionError(f"{origin} is for {needed}, not for {WHERE[kind]}{_because(given, kind)}")


def _because(given: Layer, kind: str) -> str:
    origin = given.origin(("source", "kind"))
    return f" ({origin} says kind {kind})" if origin.kind == "file" else ""


def _misfit(given: Layer, first: Key, second: Key, what: str) -> ConfigurationError:
    """Of two that exclude each other, the one from the nearer layer is to blame."""
    key = max((first, second), key=lambda one: _rank(given.origin(one)))
    return _refusal(given.origin(key), key, what)


def _refusal(origin: Origin, key: Key, what: str) -> ConfigurationError:
    if origin.kind in ("option", "env"):
        return OptionError(f"{origin}: {what}")
    return ConfigurationError(f"{blame(origin, key)}: {what}")


def _rank(origin: Origin) -> int:
    return RANK[origin.kind]
