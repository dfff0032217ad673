"""The lines of a commented ``selfheal.yaml``: keys that hold, and behind ``#`` the defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from selfheal_cli import __version__
from selfheal_cli.kinds import RECIPES
from selfheal_cli.rules.ruleset import BREAKS
from selfheal_cli.settings.layers import Layer, shown
from selfheal_cli.settings.resolve import FOR_GRADIENTS, WITHOUT_GRADIENTS, resolve
from selfheal_cli.settings.schema import KINDS, RunFile, settings_of

KEY = re.compile(r"#?(\w+):")  # at the beginning of a line; a comment has a space behind its #
ENDLESS = 1 << 20  # columns of a line
ASIDE = 34  # column from which on comments stand
MOST_LISTED = 8
OWN = {"source": {"kind": "table", "path": "data.csv", "target": "y"}}  # any own data
MONITORS = "[psi, 'fidi:threshold=0.5,triggers=heal']"


def listed(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def percent(part: int, whole: int) -> str:
    """A share."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def flow(value: Any) -> str:
    """A value on one line of YAML.

    >>> flow(["no", 1, None])
    "['no', 1, null]"
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, tuple):
        value = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one
                 for one in value]  # fmt: skip
    text = _dumped(value, readable=True)
    if BREAKS.search(text):
        text = _dumped(value, readable=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _dumped(value: Any, *, readable: bool) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=ENDLESS, allow_unicode=readable,
                          sort_keys=False)  # fmt: skip


class Page:
    """Gathers lines; the order of the calls is that of the file."""

    def __init__(self, made_by: str, schema: str | None) -> None:
        self._lines: list[str] = []
        if schema is not None:
            self._lines.append(f"# yaml-language-server: $schema={schema}")
        self.note(f"Written by '{made_by}' (selfheal {__version__}). 'selfheal run' here uses it.")
        self.note("Options stand over it, and SELFHEAL_* variables between: 'selfheal config show'")
        self.note("says what holds and why. A key behind # shows its default: take the # away to")
        self.note("change it. docs/configuration.md explains the keys; paths are relative to here.")
        self.blank()

    def text(self) -> str:
        """The file."""
        return "\n".join(line.rstrip() for line in self._lines) + "\n"

    def blank(self) -> None:
        """An empty line."""
        self._lines.append("")

    def put(self, line: str) -> None:
        """A line as it is."""
        self._lines.append(line)

    def note(self, text: str, depth: int = 0) -> None:
        """A comment."""
        indent = len(text) - len(text.lstrip())
        self._lines.append(f"{'  ' * depth}# {' ' * indent}{shown(text.strip())}")

    def value(self, key: str, value: Any, comment: str = "", depth: int = 0) -> None:
        """A key that holds."""
        self._entry(f"{'  ' * depth}{key}: {flow(value)}", comment)

    def default(self, key: str, value: Any, comment: str, depth: int = 0) -> None:
        """A key that does not hold, with its default."""
        self._entry(f"{'  ' * depth}#{key}: {flow(value)}", comment)

    def defaults(
        self,
        group: str,
        done: Iterable[str],
        depth: int,
        kind: str = "",
        held: BaseModel | None = None,
    ) -> None:
        """The keys of a group that are not ``done``, each with its default and meaning; the default
        is as ``held`` has it, where the class's is another one.
        """
        model: type[BaseModel] = KINDS[kind] if kind else settings_of(group)
        for name, field in model.model_fields.items():
            if name not in done and not field.is_required():
                default = field.default if held is None else getattr(held, name)
                self.default(name, default, field.description or "", depth)

    def registry(self, model_name: str) -> None:
        """Where versions go."""
        self.value("model_name", model_name or "fraud", "registered model; of snapshots, rollback")
        for name in ("tracking_uri", "experiment", "model"):
            self._default_of(name)

    def learning(
        self,
        recipe: str,
        labels: str,
        shadow: str,
        *,
        rules: Sequence[str],
        sensitive: str,
        batch_size: int,
        objective: str = "accuracy",
        why: str = "",
        monitors: Sequence[str] = (),
        note: str = "",
    ) -> None:
        """What comes after the source."""
        self.blank()
        self.value("sensitive", sensitive, "feature whose drift is watched; or auto")
        self.put("rules:")
        if note:
            self.note(note, 1)
        for rule in rules:
            self.put(f"  - {flow(rule)}")
        self._default_of("rules_file")
        self.value("monitors", list(monitors), f"such as {MONITORS}; docs/monitors.md")
        drift_by = "monitors" if monitors else "sensitive"
        self.value("drift_by", drift_by, "whose alarm is the state DRIFTING; or sensitive")
        self.blank()
        self.put("heal:")
        self.value("recipe", recipe, f"how to heal: {', '.join(RECIPES)}; docs/healing.md", 1)
        unused = FOR_GRADIENTS if recipe in WITHOUT_GRADIENTS else ()
        own = Layer(OWN | {"heal": {"recipe": recipe}})
        held = resolve([Layer() if recipe == "article" else own]).config
        self.defaults("heal", ("recipe", *unused), 1, held=held.heal)
        self.value("labels", labels, "when they come: full, delayed:K or none")
        for reason in filter(None, why.replace(": ", "; ").split("; ")):
            self.note(reason)
        self.value("objective", objective, "what decisions are for: accuracy, f1 or cost:FN,FP")
        self.put("policy:")
        self.value("base", "default", "'selfheal policy list'; single thresholds stand over it", 1)
        self.default("thresholds", None, "an exported threshold_config.json, put over base", 1)
        self.defaults("policy", ("description", "base", "thresholds"), 1, held=held.policy)
        self.blank()
        self.put("network:")
        self.value("shadow", shadow, "the frozen baseline: a plain network, or frozen", 1)
        self.defaults("network", ("shadow",), 1, held=held.network)
        self.value("batch_size", batch_size, "rows scored together")
        written = {match[1] for match in map(KEY.match, self._lines) if match}
        for name in RunFile.model_fields:
            if name not in written:
                self._default_of(name)

    def _default_of(self, name: str) -> None:
        field = RunFile.model_fields[name]
        self.default(name, field.default, field.description or "")

    def _entry(self, text: str, comment: str) -> None:
        said = comment.replace("None:", "null:")
        self._lines.append(f"{text.ljust(ASIDE - 2)}  # {shown(said)}" if said else text)
