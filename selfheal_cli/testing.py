"""What must hold of each kind of part, as checks that a package's own tests call.

Each takes the part (a class, function or object; or the name of a built-in or installed one) and
raises `AssertionError` with a sentence where something does not hold; what the part raises is an
`AssertionError` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch

from selfheal_cli.config import HealSettings, MonitorSettings
from selfheal_cli.config_sources import OwnSettings
from selfheal_cli.drift.kinds import build
from selfheal_cli.drift.monitor import BatchView, Level, Reading, TrainingSample
from selfheal_cli.errors import SelfhealError
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.experts.random_features import draw_features
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.installed import hand_over
from selfheal_cli.kinds import PartKind
from selfheal_cli.model.adapter import Adapter, Room
from selfheal_cli.model.adapters import MIXTURE, parse_adapter
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import seeded
from selfheal_cli.records import Rows
from selfheal_cli.rules.conditions import RuleTable
from selfheal_cli.rules.ruleset import parse_rule
from selfheal_cli.sources.own import open_own

INPUTS, HIDDEN, ROWS = 4, 8, 240
CALM = 40  # batches
BATCH = 100  # rows


def check_recipe(part: Any) -> None:
    """Pure, seeded, blind to held-out labels, and its weights fit the adapter and are finite."""
    name = _name("recipe", part)
    for classes in (2, 3):
        with _told(name):
            kind = kind_of(name)
            if kind.classes is not None and classes > kind.classes:
                continue
            network = _network(kind.adapter, classes)
            first = _heals(name, network, classes)
            again = _heals(name, network, classes)
            blind = _heals(name, network, classes, turned=True)
        _require(_bytes(first) == _bytes(again), f"'{name}' heals the same rows to other weights")
        if kind.guarded:
            same = _bytes(first) == _bytes(blind)
            _require(same, f"'{name}' learns from labels of held-out rows, by which it is judged")
        unchanged = pack(network.state_dict()) == pack(_network(kind.adapter, classes).state_dict())
        _require(unchanged, f"'{name}' changes the network that it is given")


def check_monitor(part: Any) -> None:
    """Deterministic, quiet on rows like training's, and at ease with empty and missing values."""
    name = _name("monitor", part)
    with _told(name):
        first = _readings(name, CALM)
        again = _readings(name, CALM)
        build(MonitorSettings(name=name), _sample()).update(_missing())
    _require(first == again, f"'{name}' reads the same batches otherwise")
    loud = sum(reading.level is Level.ALARM for reading in first)
    _require(not loud, f"'{name}' alarms in {loud} of {CALM} batches that are like training")
    finite = all(np.isfinite(one.value) and 0 <= one.p <= 1 for one in first)
    _require(finite, f"'{name}' reads an effect that is not finite, or a p outside of 0 to 1")


def check_adapter(part: Any) -> None:
    """Starts as identity on rows, tokens and pixels, can learn, and is stored by its weights."""
    name = _name("adapter", part)
    with _told(name):
        chosen = parse_adapter(name)
    for room in _rooms(on=chosen.kind.on, at_the_end=chosen.kind.at_the_end):
        with _told(name), seeded(0):
            adapter = chosen.build(room)
            features = torch.randn(100, int(np.prod(room.sizes)))
            given = adapter(features).detach()
            if name == "affine":  # who knows the head fills it in
                adapter.direction = torch.nn.Parameter(torch.ones(room.hidden, room.outputs))
        _require_identity(name, adapter, room, features, given)


def _require_identity(
    name: str, adapter: Adapter, room: Room, features: torch.Tensor, given: torch.Tensor
) -> None:
    at = f"for features of the shape {room.sizes}"
    expected = room.together(room.apart(features)[:, room.taken :], len(features))
    _require(given.shape == expected.shape, f"'{name}' gives {tuple(given.shape)} {at}")
    _require(torch.equal(given, expected), f"'{name}' does not start as identity {at}")
    for rows in (1, 7):
        alone = adapter(features[:rows]).detach()
        near = torch.allclose(alone, given[:rows], atol=1e-6)
        _require(near, f"'{name}' gives a row another answer among {rows} rows than among 100")
    _require(bool(adapter.learning()), f"'{name}' has no parameter that a gradient moves")
    adapter(features).square().sum().backward()
    slopes = [one.grad for one in adapter.learning().values() if one.grad is not None]
    moved = any(bool((slope != 0).any()) for slope in slopes)
    _require(moved, f"'{name}' has no parameter that a gradient moves {at}")
    weights = {key: value + 0.1 for key, value in adapter.state_dict().items()}
    twin = adapter.around(weights)
    kept = pack(twin.state_dict()) == pack(weights)
    _require(kept, f"'{name}' is not the same after it was stored {at}")


def check_source(part: Any, **options: str) -> None:
    """Gives rows, the same ones each time that it is asked."""
    name = _name("source", part)
    settings = OwnSettings(
        provider=name, options=tuple(f"{key}={value}" for key, value in options.items()), target=""
    )
    with _told(name):
        first, again = open_own(settings), open_own(settings)
        frames = [list(table.chunks(None)) for table in (first, again)]
    _require(first.columns == again.columns, f"'{name}' has other columns when it is asked again")
    same = len(frames[0]) == len(frames[1]) and all(map(_equal, *frames))
    _require(same, f"'{name}' gives other rows when it is asked again: a run could not be resumed")


def check_rule(part: Any, columns: Mapping[str, Any]) -> None:
    """A pure function of each row of ``columns`` (n,) by itself; ``part`` may be a rule's text."""
    name = "" if isinstance(part, str) and "=>" in part else _name("rule", part)
    with _told(name or part):
        rule = parse_rule(f"`{name}`() => 1" if name else part)
        arrays = {column: np.asarray(values) for column, values in columns.items()}
        table = RuleTable(arrays)
        fires = rule.fires(table)
        again = rule.fires(RuleTable(arrays))
        few = max(1, table.rows // 2)
        half = rule.fires(RuleTable({key: values[:few] for key, values in arrays.items()}))
    _require(np.array_equal(fires, again), f"'{rule}' says something else of the same rows")
    alone = np.array_equal(fires[:few], half)
    _require(alone, f"'{rule}' says something else of a row when other rows stand beside it")


def _name(kind: PartKind, part: Any) -> str:
    return part if isinstance(part, str) else hand_over(kind, part)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What a part raises as an `AssertionError`."""
    try:
        yield
    except SelfhealError as exc:
        raise AssertionError(f"'{name}': {exc}") from exc


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _network(adapter: str, classes: int) -> SelfHealingNetwork:
    with seeded(0):
        network = SelfHealingNetwork.build(
            Architecture(INPUTS, HIDDEN, outputs=1 if classes == 2 else classes)
        )
        network.freeze()
        if adapter != network.architecture.adapter:
            network = network.anchored(beside=adapter in ("affine", MIXTURE), adapter=adapter)
        if adapter == MIXTURE:
            draw = np.random.default_rng(0)
            x = draw.normal(size=(ROWS, INPUTS)).astype(np.float32)
            network = network.mixed(*draw_features(x))
    return network


def _heals(
    name: str, network: SelfHealingNetwork, classes: int, *, turned: bool = False
) -> list[HealOutcome]:
    """Two heals, the second on the first; with held-out labels ``turned`` into others."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(ROWS, INPUTS)).astype(np.float32)
    y = np.digitize(x[:, 0] + 0.5 * draw.normal(size=ROWS), (1.0, 2.0)[: classes - 1])
    held_out = draw.random(ROWS) < 0.2
    seen = AnchorRows(network, classes)
    features, labels = network.features(x), y.astype(np.int8)
    seen.add(x, features, labels)
    if turned:
        labels = np.where(held_out, (labels + 1) % classes, labels).astype(np.int8)
    arrival = np.repeat(np.arange(6, dtype=np.int32), ROWS // 6)
    rules = draw.integers(-1, classes, ROWS).astype(np.int8)
    rows = HealRows(features, labels, rules, arrival, held_out)
    settings = HealSettings(recipe=name)
    recipe = kind_of(name).build(network, seen.anchor(), settings)
    state, outcomes = AdapterState(network.adapter.state_dict(), {}), []
    for batch in (1, 2):
        outcomes.append(recipe.heal(state, HealTask(f"h{batch}", batch, "", name, rows)))
        state = outcomes[-1].after
    return outcomes


def _bytes(outcomes: list[HealOutcome]) -> list[bytes]:
    return [
        pack({**one.after.weights, **{f"memory.{key}": t for key, t in one.after.memory.items()}})
        for one in outcomes
    ]


def _columns(draw: np.random.Generator, rows: int) -> dict[str, Any]:
    texts = np.array(["web", "shop", "phone"], dtype=object)
    return {
        "a": draw.normal(size=rows),
        "b": draw.normal(5.0, 2.0, rows),
        "flat": np.full(rows, 7.0),
        "kind": texts[draw.choice(3, rows, p=(0.6, 0.3, 0.1))],
    }


def _scores(draw: np.random.Generator, rows: int) -> Any:
    return np.clip(draw.normal(0.2, 0.1, rows), 0, 1).astype(np.float32)


def _sample() -> TrainingSample:
    draw, rows = np.random.default_rng(0), 4_000
    none = np.zeros((rows, 3), dtype=np.float32), np.zeros(rows, dtype=np.int8)
    classes = (draw.random(rows) < 0.1).astype(np.int8)
    return TrainingSample(
        Rows(*none, _columns(draw, rows)), _scores(draw, rows), classes, rows // 100,
        ("no", "yes"), ("a", "b", "flat"), {"kind": ("phone", "shop", "web")},
        {"a": 0.9, "b": 0.1, "flat": 0.0},
    )  # fmt: skip


def _readings(name: str, batches: int) -> list[Reading]:
    monitor = build(MonitorSettings(name=name), _sample())
    draws = map(np.random.default_rng, range(1, batches + 1))
    return [
        monitor.update(
            BatchView(
                _columns(draw, BATCH), _scores(draw, BATCH),
                (draw.random(BATCH) < 0.1).astype(np.int8), 1,
                (draw.random(BATCH) < 0.05).astype(np.float64),
            )
        )
        for draw in draws
    ]  # fmt: skip


def _missing() -> BatchView:
    """One row without a value."""
    columns: dict[str, Any] = {name: np.array([np.nan]) for name in ("a", "b", "flat")}
    columns["kind"] = np.array([None], dtype=object)
    score = np.array([0.2], dtype=np.float32)
    return BatchView(columns, score, np.zeros(1, dtype=np.int8), 0, np.empty(0))


def _rooms(*, on: bool, at_the_end: bool) -> list[Room]:
    """Rows, tokens and pixels, where the adapter can go there."""
    taken = HIDDEN if on else 0
    flat = Room(INPUTS, 1, (HIDDEN + taken,), HIDDEN, taken=taken)
    tokens = Room(INPUTS, 1, (3, HIDDEN + taken), 3 * HIDDEN, taken=taken)
    pixels = Room(INPUTS, 1, (HIDDEN, 3, 3), HIDDEN * 9, axis=0)
    places = chain([flat], [] if at_the_end else [tokens], [] if on or at_the_end else [pixels])
    return list(places)


def _equal(one: Any, other: Any) -> bool:
    return bool(one.equals(other))
