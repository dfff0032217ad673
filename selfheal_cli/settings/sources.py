"""A YAML file as a `Layer`: read node by node, so that each key has its line.

No tag can make an object, no alias can swell, and a key that is there twice is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from selfheal_cli.errors import ConfigurationError, OptionError, one_line
from selfheal_cli.settings.layers import Key, Layer, Origin, beside, dotted, shown
from selfheal_cli.settings.schema import RunFile, every_key, expanded
from selfheal_cli.settings.variables import NAME, PREFIX, key_of, variable_of

MAX_BYTES = 1 << 18
TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")
}
TIMESTAMP = "tag:yaml.org,2002:timestamp"
BLOCKS = ("|", ">")  # of YAML; here they are text, such as a separator
EXAMPLE = "expected keys with values, such as 'batch_size: 100'"


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            problem = "an alias (*) is not supported, write the value out"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def read_file(path: Path) -> Layer:
    """The values of a file; raises `ConfigurationError` naming file, line and key."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(
                f"{path}: larger than {MAX_BYTES:,} bytes; this is no configuration"
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"{path}: no such file; 'selfheal init' writes {NAME}, --config names another"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc})") from exc
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Layer:
    """A document's text; ``name`` is what errors call it. An empty one is an empty layer."""
    root = _compose(text, name)
    if root is None or (isinstance(root, ScalarNode) and not root.value and not root.style):
        return Layer()
    reader = _DocumentReader(name)
    if not isinstance(root, MappingNode):
        raise ConfigurationError(f"{name}:{root.start_mark.line + 1}: {EXAMPLE}")
    values = reader.mapping(root, ())
    return Layer(values, reader.origins)


def parse_value(text: str, key: Key, origin: Origin) -> Layer:
    """What a variable or ``--set`` says of ``key``; what is not YAML is taken as text."""
    try:
        node = _compose(text, origin.name)
    except ConfigurationError:
        node = None
    if node is None or (isinstance(node, ScalarNode) and node.style in BLOCKS):
        node = ScalarNode("tag:yaml.org,2002:str", text)
    reader = _DocumentReader(origin.name, origin.kind)
    value = reader.value(node, key)
    for part in reversed(key):
        value = {part: value}
    return Layer(value, reader.origins)


def _compose(text: str, name: str) -> Node | None:
    loader = None
    try:
        loader = _Loader(text)
        node: Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f":{mark.line + 1}" if mark else ""
        at = f" at column {mark.column + 1}" if mark else ""
        what = shown(exc.problem or exc.context)
        raise ConfigurationError(f"{name}{place}: not YAML{at} ({what})") from exc
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise ConfigurationError(f"{name}: not YAML ({one_line(exc)})") from exc
    finally:
        if loader is not None:
            loader.dispose()
    return node


class _DocumentReader:
    """Nodes to values; what each key's origin is gathers in ``origins``."""

    def __init__(self, name: str, kind: Any = "file") -> None:
        self._name, self._kind = name, kind
        self._scalars = yaml.SafeLoader("")
        self.origins: dict[Key, Origin] = {}

    def mapping(self, node: MappingNode, at: Key) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise ConfigurationError(f"{self._at(key_node)}: a key must be a word")
            name = str(key_node.value)  # as written: `on` is a key of monitors, not True
            key = (*at, name)
            if name in entries:
                first = self.origins[key]
                raise ConfigurationError(
                    f"{self._at(key_node)}: key '{shown(dotted(key))}' is given twice, first in "
                    f"line {first.line}"
                )
            self._write(key, key_node, None)
            entries[name] = self.value(value_node, key)
        return entries

    def value(self, node: Node, key: Key) -> Any:
        if isinstance(node, MappingNode):
            self.origins.setdefault(key, Origin(self._kind, self._name))
            return self.mapping(node, key)
        if isinstance(node, SequenceNode):
            self.origins.setdefault(key, Origin(self._kind, self._name))
            return [self._item(one, (*key, place)) for place, one in enumerate(node.value)]
        if not isinstance(node, ScalarNode) or node.tag not in TAGS:
            raise ConfigurationError(
                f"{self._at(node)}: key '{shown(dotted(key))}': the tag {shown(node.tag)} is not "
                "supported; write a plain value"
            )
        self._write(key, node, str(node.value), keep_line=True)
        return self._scalar(node, key)

    def _item(self, node: Node, key: Key) -> Any:
        self._write(key, node, None)
        return self.value(node, key)

    def _scalar(self, node: ScalarNode, key: Key) -> Any:
        if node.tag == TIMESTAMP:
            return str(node.value)
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as exc:
            raise ConfigurationError(
                f"{self._at(node)}: key '{shown(dotted(key))}' = {shown(node.value)}: "
                f"{one_line(exc)}"
            ) from exc

    def _write(self, key: Key, node: Node, text: str | None, *, keep_line: bool = False) -> None:
        """A scalar keeps the line of its key, which is where people look."""
        line = node.start_mark.line + 1 if node.start_mark is not None else None
        if keep_line and key in self.origins:
            line = self.origins[key].line
        self.origins[key] = Origin(
            self._kind, self._name, line if self._kind == "file" else None, text
        )

    def _at(self, node: Node) -> str:
        if self._kind != "file" or node.start_mark is None:
            return self._name
        return f"{self._name}:{node.start_mark.line + 1}"


OTHERS = ("SELFHEAL_ACTOR", "SELFHEAL_ALLOW_MODULE", "SELFHEAL_TOKENS")  # read elsewhere
ALIKE = 0.8
RULES = "SELFHEAL_RULES"  # a list; its text was a file's name up to 0.2


def read_environment(environment: Mapping[str, str], others: Collection[str] = ()) -> Layer:
    """The variables that name keys; ``others`` are those that are read elsewhere.

    Raises `OptionError` for one that looks like a slip of a known one. What else begins so (as
    where a cluster tells of a service called selfheal) is left alone.
    """
    layers = []
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in others or name in OTHERS or not text:
            continue
        key = key_of(name)
        if key[0] in RunFile.model_fields:
            layers.append(_value(text, key, Origin("env", name)))
        else:
            _refuse_slip(name)
    return beside(layers)


def read_settings(given: Iterable[str]) -> Layer:
    """What ``--set KEY=VALUE`` says, each once; raises `OptionError`."""
    layers = []
    for text in given:
        name, equals, value = text.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            raise OptionError(
                f"--set {text}: KEY=VALUE is expected, such as heal.window=10; see "
                "docs/configuration.md for the keys"
            )
        layers.append(_value(value, key, Origin("option", f"--set {name.strip()}")))
    return beside(layers)


def _value(text: str, key: Key, origin: Origin) -> Layer:
    layer = parse_value(text, key, origin)
    if origin.name == RULES and isinstance(layer.get("rules"), str):
        layer = parse_value(text, ("rules_file",), origin)
    return expanded(layer)


def _refuse_slip(name: str) -> None:
    known = [variable_of(key).removeprefix(PREFIX) for key in every_key()]
    near = get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=ALIKE)
    if near:
        raise OptionError(f"{name}: no such variable; did you mean {PREFIX}{near[0]}?")
