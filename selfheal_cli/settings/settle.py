"""Layers to the configuration that holds: defaults that hang on others, checks, files it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfheal_cli.config import Policy, RunConfig, checked
from selfheal_cli.decide import policy_file
from selfheal_cli.errors import ConfigurationError, RuleError
from selfheal_cli.monitor.rule_file import read_rules
from selfheal_cli.monitor.rules import parse_rule
from selfheal_cli.settings.complaints import (
    as_text_where_text_is_wanted,
    blame,
    complain,
    unknown_kind,
)
from selfheal_cli.settings.fit import refuse_misfits
from selfheal_cli.settings.layer import DEFAULT, Key, Layer, Origin, dotted, merge
from selfheal_cli.settings.naming import model_name_of
from selfheal_cli.settings.shape import KINDS, SYNTHETIC, RunFile
from selfheal_cli.settings.short_forms import expanded
from selfheal_cli.source.article import RULE

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Settled:
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


def settle(layers: Sequence[Layer]) -> Settled:
    """Lay the layers over one another, the last on top, and check what comes of it.

    Raises `ConfigurationError` naming file, line and key, the variable or the option; `OptionError`
    for one that would be ignored.
    """
    merged = merge([expanded(layer) for layer in layers])
    given = Layer(deepcopy(dict(merged.values)), merged.origins)
    kind = _kind(given)
    refuse_misfits(given, kind)
    found: Any = _validated(given, kind)
    policy, origins = _policy(found.policy, given)
    values = {name: getattr(found, name) for name in RunConfig.model_fields}
    values |= {"policy": policy, "rules": _rules(found, given)}
    config = _beside_the_file(RunConfig.model_construct(**values), given)
    return Settled(config, given, origins, found.tracking_uri)


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
    defaults: dict[str, dict[str, Any]] = {
        "source": {"kind": kind},
        "heal": {"recipe": "anchored" if own else "article"},
        "network": {"shadow": "frozen" if own else "plain"},
    }
    timed = given.get("source", "label_time") is not None
    if timed:
        defaults["labels"] = {"regime": "timed"}
    joined = given.get("source", "label_topic") is not None
    if joined:
        defaults["labels"] = {"regime": "arriving"}
    if "unlabelled" in KINDS[kind].model_fields:
        regime = given.get("labels", "regime")
        defaults["source"]["unlabelled"] = timed or joined or regime not in (None, "full")
    for group, inner in defaults.items():
        if isinstance(values.get(group, {}), Mapping):
            values[group] = inner | dict(values.get(group, {}))
    if not own and "rules" not in values and values.get("rules_file") is None:
        values["rules"] = [RULE]
    name = model_name_of(given)
    return ({"model_name": name} if name is not None else {}) | values


def _policy(choice: Any, given: Layer) -> tuple[Policy, dict[str, Origin]]:
    """The policy that holds, and who set each threshold of it."""
    base = _beside(choice.base, given.origin(("policy", "base")), ("policy", "base"), given)
    known = policy_file.available()
    try:
        policy = policy_file.load(base)
        path = known.get(base, Path(base))
        origins = dict.fromkeys(Policy.model_fields, Origin("policy", str(path)))
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
    retention = values["retention"] | changed.pop("retention", {})
    values |= changed | {"retention": retention}
    return checked(Policy, values, where="policy"), origins


def _rules(found: Any, given: Layer) -> tuple[str, ...]:
    """The rules of the file of rules, then the others; those of a file are parsed here."""
    rules: list[str] = []
    if found.rules_file is not None:
        key: Key = ("rules_file",)
        path = Path(_beside(str(found.rules_file), given.origin(key), key, given))
        try:
            rules += [str(named.rule) for named in read_rules(path)]
        except RuleError as exc:
            if given.origin(key).kind == "option":
                raise
            raise RuleError(f"{blame(given.origin(key), key)}: {exc}") from exc
    for place, text in enumerate(found.rules):
        origin = given.origin(("rules", place))
        if origin.kind in ("file", "env"):
            start = blame(origin, ("rules", place))
            parse_rule(text, lambda at, start=start: f"{start}, position {at + 1}")  # type: ignore[misc]
        rules.append(text)
    return tuple(rules)


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


def quoted_in(message: str, settled: Settled) -> list[str]:
    """Where in a file the values stand that a later message quotes: ``FILE:LINE (KEY)``."""
    found = []
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
            found.append(f"{origin} ({dotted(key)})")
    return found


def _value_at(values: Any, key: Key) -> Any:
    """The value at a key; None where there is none."""
    for part in key:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values
