"""Layers to the configuration that holds: defaults that hang on others, checks, files it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfheal_cli.config import HealSettings, Policy, RunConfig, checked
from selfheal_cli.config_labels import HORIZON
from selfheal_cli.errors import ConfigurationError, OptionError, RuleError
from selfheal_cli.rules.parser import parse_condition
from selfheal_cli.rules.ruleset import parse_rule, read_rules
from selfheal_cli.settings import own_data, policy_file
from selfheal_cli.settings.address import with_kind
from selfheal_cli.settings.layers import (
    DEFAULT,
    Key,
    Layer,
    Origin,
    dotted,
    merge,
    model_name_of,
    shown,
    without,
)
from selfheal_cli.settings.schema import KINDS, SYNTHETIC, RunFile, expanded, fields_of
from selfheal_cli.sources.synthetic import RULE

GROUPS = ("model_type", "model_attributes_type", "dict_type")
LISTS = ("tuple_type", "list_type")
ALIKE = 0.5


def blame(origin: Origin, key: Key, value: object = DEFAULT) -> str:
    """The beginning of a message: who said it, which key, which value."""
    text = shown(value if origin.text is None else origin.text)
    said = "" if value is DEFAULT else f" = {text!r}"
    if origin.kind == "option":
        named = "" if str(origin).endswith(dotted(key)) else f" ({dotted(key)})"
        return f"options: {origin}{named}{said}"
    if origin.kind == "env":
        return f"{origin} ({dotted(key)}){said}"
    return f"{origin}: {shown(dotted(key))}{said}"


def complain(error: ValidationError, given: Layer, kind: str) -> ConfigurationError:
    """The complaint that stands first in the file, and how many more there are."""
    complaints = [(_key(one["loc"], kind), one) for one in error.errors()]
    complaints.sort(key=lambda pair: given.origin(pair[0]).line or 0)
    key, first = complaints[0]
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    if first["type"] == "missing":
        return _missing(key, given, kind, more)
    origin = given.origin(key)
    if first["type"] == "extra_forbidden":
        hint = _known(key, fields_of(RunFile, kind, key[:-1]))
        inside = (one for at, one in given.origins.items() if at[: len(key)] == key)
        origin = origin if origin is not DEFAULT else next(inside, DEFAULT)
        return ConfigurationError(f"{blame(origin, key)}: unknown key{hint}{more}")
    return ConfigurationError(
        f"{blame(origin, key, first['input'])}: {_allowed(first, key, kind)}{more}"
    )


def as_text_where_text_is_wanted(error: ValidationError, given: Layer, kind: str) -> bool:
    """Put the written text of a scalar where a text is wanted: ``positive: yes`` is no boolean.

    Changes the values of ``given``; returns whether there was any such scalar.
    """
    changed = False
    for one in error.errors():
        key = _key(one["loc"], kind)
        text = given.origin(key).text
        if one["type"] != "string_type" or key not in given.origins or text is None:
            continue
        if one["input"] is None:  # null says that there is none
            continue
        holder: Any = given.values
        for part in key[:-1]:
            holder = holder[part]
        holder[key[-1]] = text
        changed = True
    return changed


# what a source of its kind cannot do without, as options say it
OPTIONS: dict[Key, str] = {
    ("source", "target"): "--target COLUMN",
    ("source", "query"): "--query SELECT",
    ("source", "topic"): "--topic",
}


def unknown_kind(origin: Origin, value: object) -> ConfigurationError:
    """A source of a kind that there is not."""
    hint = _known((str(value),), tuple(KINDS))
    return ConfigurationError(f"{blame(origin, ('source', 'kind'), value)}: unknown kind{hint}")


def _key(location: tuple[int | str, ...], kind: str) -> Key:
    """pydantic's location without the tag of the union."""
    if len(location) > 1 and location[0] == "source" and location[1] == kind:
        return ("source", *location[2:])
    return location


def _missing(key: Key, given: Layer, kind: str, more: str) -> ConfigurationError:
    head = given.origin(("source", "kind"))
    if key in OPTIONS and head.kind in ("option", "env"):
        path = given.get("source", "path")
        data = head if path is None else shown(path)
        return OptionError(f"{OPTIONS[key]} is needed with {data}{more}")
    needed = f"; a source of kind '{kind}' needs it" if key[0] == "source" else ""
    origin = given.origin(key)
    return ConfigurationError(f"{origin}: key '{dotted(key)}' is missing{needed}{more}")


def _known(key: Key, known: tuple[str, ...]) -> str:
    near = get_close_matches(str(key[-1]), known, n=1, cutoff=ALIKE)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{hint}; known: {', '.join(known)}" if known else hint


def _allowed(error: Any, key: Key, kind: str) -> str:
    if error["type"] in GROUPS:
        known = ", ".join(fields_of(RunFile, kind, key))
        return f"expected keys with values{f'; known: {known}' if known else ''}"
    if error["type"] in LISTS:
        return "expected a list, such as [a, b]"
    if error["type"] == "string_type":
        return "expected text"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}"


# each kind of source, as options say it
WHERE = {
    SYNTHETIC: "the synthetic stream",
    "table": "a DATA file",
    "folder": "a DATA folder",
    "ndjson": "an NDJSON file",
    "sql": "--sql",
    "stdin": "standard input (-)",
    "kafka": "--kafka",
    "own": "--source",
}
RANK = {"default": 0, "policy": 0, "file": 1, "env": 2, "option": 3}
VALIDATION = 0.2  # share of own training rows that end training and are held out
WITHOUT_GRADIENTS = ("anchored", "ensemble")  # recipes whose heals take none of these
FOR_GRADIENTS = ("steps", "learning_rate", "label_weight", "rule_weight", "entropy_weight")


REGIME, MATURE = ("labels", "regime"), ("labels", "negative_after")
REGIME_OF = {"label_time": "timed", "label_topic": "arriving"}  # of a source that says when


def nearest_labels(given: Layer) -> Layer:
    """Of two that say when labels come, the one from the nearer layer alone."""
    for name, regime in REGIME_OF.items():
        column = ("source", name)
        if given.get(*column) is None or given.get(*REGIME) in (None, regime):
            continue
        nearer = _rank(given.origin(column)) - _rank(given.origin(REGIME))
        if nearer > 0:
            given = without(given, ("labels",))
        elif nearer < 0 and name == "label_time":
            given = without(given, column)
    return given


def refuse_misfits(given: Layer, kind: str) -> None:
    """Raise `OptionError` for options, `ConfigurationError` for a file."""
    _refuse_of_other_kinds(given, kind)
    recipe = ("heal", "recipe")
    for name, regime in REGIME_OF.items():
        column = ("source", name)
        if given.get(*column) is not None and given.get(*REGIME) not in (None, regime):
            what = f"labels and source.{name} exclude each other: leave one of them out"
            raise _misfit(given, REGIME, column, what)
    if given.get(*MATURE) is not None:
        _refuse_immature(given, kind)
    elif given.get(*REGIME) == "timed" and given.get("source", "label_time") is None:
        raise _misfit(given, REGIME, REGIME, "'timed' needs source.label_time=COLUMN")
    own = kind != SYNTHETIC
    chosen = given.get(*recipe) or (own_data.RECIPE if own else "article")
    if chosen not in WITHOUT_GRADIENTS:
        return
    for name in FOR_GRADIENTS:
        origin, value = given.origin(("heal", name)), given.get("heal", name)
        if origin.kind != "option" and value == HealSettings.model_fields[name].default:
            continue  # a whole configuration that was written down
        if value is not None and _rank(origin) >= _rank(given.origin(recipe)):
            raise _refusal(
                origin,
                ("heal", name),
                f"it is for --recipe article or gradient: a heal of {chosen} has no steps and no "
                "learning rate",
            )


def _refuse_immature(given: Layer, kind: str) -> None:
    """Rows grow old by their own times, whatever else is said of when labels come."""
    origin, regime = given.origin(MATURE), given.get(*REGIME)
    if given.get("source", "time") is None:
        what = "it needs the column with the rows' times: source.time=COLUMN"
        if "time" not in KINDS[kind].model_fields:
            what = f"it is for a table that has a column of times, not for {WHERE[kind]}"
        raise _refusal(origin, MATURE, what)
    if regime not in (None, "timed"):
        raise _misfit(given, REGIME, MATURE, f"labels {regime} and negative_after exclude "
                      "each other: leave one of them out")  # fmt: skip


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


STDIN = "-"
FEW_HELD_OUT = 0.1  # share of asked labels that no heal learns from


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """The configuration that holds, and who said what of it."""

    config: RunConfig
    given: Layer
    policy: Mapping[str, Origin]
    tracking_uri: str | None = None

    def origin(self, key: Key) -> Origin:
        """Where an effective value came from."""
        if key in self.given.origins or key[0] not in ("policy", "rules"):
            exact = self.given.origin(key)
            return exact if _said(self.given, key) else DEFAULT
        if key[0] == "policy":
            return self.policy[str(key[1])]
        return self.given.origin(("rules_file",))


def resolve(layers: Sequence[Layer]) -> ResolvedSettings:
    """Lay the layers over one another, the last on top, and check what comes of it.

    Raises `ConfigurationError` naming file, line and key, the variable or the option; `OptionError`
    for one that would be ignored.
    """
    merged = Layer()
    for layer in map(expanded, layers):
        merged = merge([merged, with_kind(layer, merged)])
    given = nearest_labels(Layer(deepcopy(dict(merged.values)), merged.origins))
    kind = _kind(given)
    refuse_misfits(given, kind)
    validated: Any = _validated(given, kind)
    policy, origins = _policy(
        validated.policy, given, {} if kind == SYNTHETIC else own_data.PUBLISHING
    )
    values = {name: getattr(validated, name) for name in RunConfig.model_fields}
    values |= {"policy": policy, "rules": _rules(validated, given)}
    _check_selection(validated.labels.only_when, given)
    config = _beside_the_file(RunConfig.model_construct(**values), given)
    return ResolvedSettings(config, given, origins, validated.tracking_uri)


def _said(given: Layer, key: Key) -> bool:
    """Whether the key itself was given, not only a group that it is in."""
    return key in given.origins or any(
        key[:end] in given.origins and not isinstance(given.get(*map(str, key[:end])), Mapping)
        for end in range(1, len(key))
    )


def _kind(given: Layer) -> str:
    """The kind of source, which decides what may stand beside it."""
    source = given.get("source")
    if source is not None and not isinstance(source, Mapping):
        return SYNTHETIC  # no group at all: the check that follows says so
    kind = given.get("source", "kind")
    if kind is None:
        written = [key for key in source or () if given.origin(("source", key)).kind == "file"]
        odd = [key for key in written if key not in KINDS[SYNTHETIC].model_fields]
        if odd:
            raise ConfigurationError(
                f"{given.origin(('source',))}: key 'source.kind' is missing; known: "
                f"{', '.join(KINDS)}"
            )
        return SYNTHETIC
    if kind not in KINDS:
        raise unknown_kind(given.origin(("source", "kind")), kind)
    return str(kind)


def _validated(given: Layer, kind: str) -> RunConfig:
    while True:
        try:
            return RunFile.model_validate(_filled(given, kind))
        except ValidationError as exc:
            if not as_text_where_text_is_wanted(exc, given, kind):
                raise complain(exc, given, kind) from exc


def _filled(given: Layer, kind: str) -> dict[str, Any]:
    """The given values, and what follows from them where nobody said it."""
    values = deepcopy(dict(given.values))
    own = kind != SYNTHETIC
    recipe = given.get("heal", "recipe") or (own_data.RECIPE if own else "article")
    defaults: dict[str, dict[str, Any]] = {
        "source": {"kind": kind},
        "heal": {
            "recipe": recipe,
            **own_data.healing(recipe if own else "article"),
            "assume_strictly": given.get("heal", "assume") is not None,
            # of four labels a batch one would be a quarter
            **({} if given.get("labels", "ask") is None else {"held_out": FEW_HELD_OUT}),
        },
        "network": {"shadow": "frozen", "validation": VALIDATION} if own else {"shadow": "plain"},
    }
    matures = given.get(*MATURE) is not None
    timed = given.get("source", "label_time") is not None or matures
    if timed:
        defaults["labels"] = {"regime": "timed"} | ({"horizon": HORIZON} if matures else {})
    joined = given.get("source", "label_topic") is not None
    if joined:
        defaults["labels"] = {"regime": "arriving"}
    if "unlabelled" in KINDS[kind].model_fields:
        regime = given.get("labels", "regime")
        defaults["source"]["unlabelled"] = timed or joined or regime not in (None, "full")
    if "drop_identifiers" in KINDS[kind].model_fields:
        # a file names the columns that it leaves out
        said = (origin.kind for key, origin in given.origins.items() if key[0] == "source")
        defaults["source"]["drop_identifiers"] = "file" not in said
    for group, inner in defaults.items():
        if isinstance(values.get(group, {}), Mapping):
            values[group] = inner | dict(values.get(group, {}))
    if not own and "rules" not in values and values.get("rules_file") is None:
        values["rules"] = [RULE]
    if own:
        values.setdefault("drift_by", own_data.DRIFT_BY)
        labelled = given.get("labels", "regime") != "none"
        values.setdefault("monitors", own_data.monitors(labelled=labelled))
    name = model_name_of(given)
    return ({"model_name": name} if name is not None else {}) | values


def _policy(
    choice: Any, given: Layer, unsaid: Mapping[str, Any]
) -> tuple[Policy, dict[str, Origin]]:
    """The policy that holds, and who set each threshold of it; ``unsaid`` is what holds where its
    file says nothing.
    """
    base = _beside(choice.base, given.origin(("policy", "base")), ("policy", "base"), given)
    known = policy_file.available()
    try:
        policy = policy_file.load(base)
        path = known.get(base, Path(base))
        origins = dict.fromkeys(Policy.model_fields, Origin("policy", str(path)))
        unsaid = {k: value for k, value in unsaid.items() if k not in policy.model_fields_set}
        policy = policy.model_copy(update=unsaid)
        origins |= dict.fromkeys(unsaid, DEFAULT)
        if choice.thresholds is not None:
            key = ("policy", "thresholds")
            file = Path(_beside(str(choice.thresholds), given.origin(key), key, given))
            over = policy_file.read_thresholds(file, policy)
            for name in Policy.model_fields:
                if getattr(over, name) != getattr(policy, name):
                    origins[name] = Origin("policy", str(file))
            policy = over
    except ConfigurationError as exc:
        origin = given.origin(("policy",))
        if origin.kind in ("file", "env"):
            raise type(exc)(f"{blame(origin, ('policy',))}: {exc}") from exc
        raise
    changed = choice.model_dump(exclude_unset=True, include=set(Policy.model_fields))
    values = policy.model_dump()
    for group in ("retention", "segments"):
        values[group] |= changed.pop(group, {})
    values |= changed
    return checked(Policy, values, where="policy"), origins


def _rules(validated: Any, given: Layer) -> tuple[str, ...]:
    """The rules of the file of rules, then the others; those of a file are parsed here."""
    rules: list[str] = []
    if validated.rules_file is not None:
        key: Key = ("rules_file",)
        path = Path(_beside(str(validated.rules_file), given.origin(key), key, given))
        try:
            rules += [str(named.rule) for named in read_rules(path)]
        except RuleError as exc:
            if given.origin(key).kind == "option":
                raise
            raise RuleError(f"{blame(given.origin(key), key)}: {exc}") from exc
    for place, text in enumerate(validated.rules):
        origin = given.origin(("rules", place))
        if origin.kind in ("file", "env"):
            start = blame(origin, ("rules", place))
            parse_rule(text, lambda at, start=start: f"{start}, position {at + 1}")  # type: ignore[misc]
        rules.append(text)
    return tuple(rules)


def _check_selection(condition: str | None, given: Layer) -> None:
    """Raise `RuleError` for a condition that is none."""
    if condition is not None:
        key = ("labels", "only_when")
        start = blame(given.origin(key), key)
        parse_condition(condition, lambda at: f"{start} {condition!r}, position {at + 1}")


def _beside_the_file(config: RunConfig, given: Layer) -> RunConfig:
    """Paths in a file are relative to its folder."""
    source = {
        name: Path(_beside(str(value), given.origin(("source", name)), ("source", name), given))
        for name, value in config.source
        if isinstance(value, Path)
    }
    top = {
        name: Path(_beside(str(value), given.origin((name,)), (name,), given))
        for name, value in config
        if isinstance(value, Path)
    }
    return config.model_copy(update={"source": config.source.model_copy(update=source), **top})


def _beside(value: str, origin: Origin, key: Key, given: Layer) -> str:
    """A path as seen from the working folder; a policy's name stays a name."""
    if origin.kind != "file" or value == STDIN or not _said(given, key):
        return value
    if key == ("policy", "base") and value in policy_file.available():
        return value
    return str(Path(origin.name).parent / value)


def quoted_in(message: str, settled: ResolvedSettings) -> list[str]:
    """Where in a file the values stand that a later message quotes: ``FILE:LINE (KEY)``."""
    places = []
    values = settled.config.model_dump(mode="json")
    for key, origin in settled.given.origins.items():
        if origin.kind != "file" or origin.text is None or len(origin.text) < 1:
            continue
        value = _value_at(values, key)
        if not isinstance(value, str):
            continue
        spoken = str(parse_rule(value)) if key[0] == "rules" else value
        if f"'{spoken}'" in message or (
            message.startswith(f"{value}: ") and "row" not in message.split(": ")[1]
        ):
            places.append(f"{origin} ({dotted(key)})")
    return places


def _value_at(values: Any, key: Key) -> Any:
    """The value at a key; None where there is none."""
    for part in key:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values
