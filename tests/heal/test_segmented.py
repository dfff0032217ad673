"""Adapters by segment: what a heal gives each, what a row is answered, and what is stored of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.experts.segment import MOST_BYTES, choose_directions
from selfheal_cli.heal.gate import log_losses
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.recipes.segmented import still_known
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import Packed, assemble, make_base, unpack
from selfheal_cli.model.composite import MOST_PACKS, SegmentManifest, joined, split
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import seeded
from selfheal_cli.segment_keys import code_of, codes_of, whole_code
from tests.heal import small

WHOLE = small.small_network().anchored(beside=True)
READ = slice(small.HIDDEN, small.HIDDEN + small.INPUTS)


def recipes() -> Recipes:
    anchor = small.anchor_of(WHOLE)
    network = WHOLE.keyed().segmented(choose_directions(anchor, READ, 1))
    return Recipes(network, anchor, HealSettings(recipe="anchored"))


RECIPES = recipes()


def rows_of(
    seed: int, shops: tuple[str | None, ...], each: int = 40
) -> tuple[NDArray[np.float32], HealRows]:
    """Rows whose label goes by the first input, in every second shop the other way round."""
    draw = np.random.default_rng(seed)
    names = np.repeat(np.array(shops, dtype=object), each)
    x = draw.normal(size=(len(names), small.INPUTS)).astype(np.float32)
    sign = np.repeat([1.0 if place % 2 else -1.0 for place in range(len(shops))], each)
    y = (sign * x[:, 0] + 0.3 * draw.normal(size=len(names)) > 0).astype(np.int8)
    given = np.concatenate([x, codes_of(names)], axis=1)
    none = np.zeros(len(y), dtype=np.bool_)
    features = RECIPES.network.features(given)
    arrival = np.full(len(y), seed, dtype=np.int32)
    return given, HealRows(features, y, np.full_like(y, -1), arrival, none)


def begun() -> AdapterState:
    return AdapterState(RECIPES.network.adapter.state_dict(), {})


def heal(before: AdapterState, rows: HealRows) -> HealOutcome:
    return RECIPES.heal(before, HealTask("h", 1, "", "anchored", rows))


def healed(*batches: tuple[str | None, ...]) -> AdapterState:
    state = begun()
    for seed, shops in enumerate(batches):
        state = heal(state, rows_of(seed, shops)[1]).after
    return state


def test_segments_that_move_apart_are_each_right_and_all_rows_alone_are_not() -> None:
    state = healed(*[("a", "b")] * 4)
    _, rows = rows_of(9, ("a", "b"))
    network = RECIPES.network.with_adapter(state.weights)
    own = log_losses(network.predict_features(rows.features), rows.y).mean()
    whole = network.whole.predict_features(np.ascontiguousarray(rows.features[:, :-2]))
    assert own < 0.45
    assert log_losses(whole, rows.y).mean() > 0.65


def test_a_row_of_an_unknown_segment_or_of_none_is_all_rows_bit_for_bit() -> None:
    network = RECIPES.network.with_adapter(healed(("a", "b"), ("a", "b")).weights)
    given, rows = rows_of(5, ("nowhere", None))
    plain = np.ascontiguousarray(rows.features[:, :-2])
    assert (network.predict(given) == network.whole.predict_features(plain)).all()
    known, _ = rows_of(5, ("a", "b"))
    assert (network.predict(known) != network.predict(given)).mean() > 0.9


def test_what_a_segment_adds_hangs_on_no_other_row() -> None:
    network = RECIPES.network.with_adapter(healed(("a", "b"), ("a", "b")).weights)
    _, rows = rows_of(5, ("a", "b", "c"))
    adapter = network.adapter
    p, features = torch.rand(len(rows)), torch.from_numpy(rows.features)
    together = adapter.by_segment(p, features)  # type: ignore[operator]
    alone = [adapter.by_segment(p[i : i + 1], features[i : i + 1]) for i in range(len(rows))]  # type: ignore[operator]
    assert torch.equal(together, torch.cat(alone))


def test_a_heal_is_the_same_bytes_again_and_leaves_other_segments_as_they_were() -> None:
    before = healed(("a", "b", "c"))
    _, rows = rows_of(1, ("b",))
    once, again = heal(before, rows), heal(before, rows)
    assert Packed.of(once.after.weights) == Packed.of(again.after.weights)
    assert once.measured["segments"] == 3
    assert once.measured["segments_learned"] == 1
    was, now = (split(Packed.of(one.weights).data) for one in (before, once.after))
    assert was is not None
    assert now is not None
    assert [was.segments[code] == now.segments[code] for code in was.segments].count(False) == 1
    assert all(len(data) < MOST_BYTES for data in now.segments.values())
    states = [one.nbytes for name, one in once.after.memory.items() if name.startswith("segment.")]
    assert len(states) == 3
    assert max(states) < MOST_BYTES


def test_where_one_segment_is_put_back_what_the_others_learned_is_kept() -> None:
    first, second = healed(("a", "b")), healed(("a", "b"), ("a",))
    code = int(code_of("a"), 16)
    back = {**second.weights}
    place = int(np.flatnonzero(whole_code(back["code"].numpy()) == code)[0])
    for name in ("share", "theta"):
        back[name] = back[name].clone()
        back[name][place] = first.weights[name][place]
    kept = still_known(second, back)
    assert f"segment.{code}" not in kept
    assert len(kept) == len(second.memory) - 1
    assert still_known(second, second.weights) == second.memory
    assert not still_known(second, first.weights)  # all rows' adapter is another, too
    assert deepcopy(second.memory)[f"segment.{code}"].equal(second.memory[f"segment.{code}"])


def test_a_heal_of_one_segment_stores_its_adapter_and_shares_the_rest_by_hash() -> None:
    before = healed(("a", "b", "c"))
    state, packs = before, dict[str, bytes]()
    manifest: SegmentManifest | None = None
    for number, shop in enumerate(["", *["a", "b"] * MOST_PACKS]):
        if shop:
            state = heal(state, rows_of(number, (shop,))[1]).after
        data = Packed.of(state.weights).data
        parts = split(data)
        assert parts is not None
        manifest, pack = parts.manifest(manifest)
        name = f"p{number}"
        packs[name] = pack
        manifest = replace(manifest, packs=(*manifest.packs[:-1], name))
        read = SegmentManifest.parse(manifest.as_bytes(), "v")
        assert joined(parts.whole, read, packs.__getitem__, "v") == data
        assert len(manifest.packs) <= MOST_PACKS
    assert len(packs["p0"]) > 2 * len(packs["p1"])
    assert manifest is not None
    assert len(manifest.segments) == 3


def test_a_segments_adapter_that_was_changed_is_refused() -> None:
    parts = split(Packed.of(healed(("a", "b")).weights).data)
    assert parts is not None
    manifest, pack = parts.manifest(None)
    other = split(Packed.of(healed(("a", "b"), ("a",)).weights).data)
    assert other is not None
    with pytest.raises(VersionCorrupt, match=r"the adapter of segment [0-9a-f]{12} is not the one"):
        joined(parts.whole, manifest, lambda _: other.manifest(None)[1], "v")
    with pytest.raises(VersionCorrupt, match="the adapter for all rows is not the one"):
        joined(other.whole, manifest, lambda _: pack, "v")


def test_it_is_stored_and_scores_the_same_for_several_classes() -> None:
    with seeded(0):
        plain = SelfHealingNetwork.build(Architecture(small.INPUTS, small.HIDDEN, 4))
    plain.freeze()
    whole = plain.anchored(beside=True)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, small.INPUTS)).astype(np.float32)
    y = (np.abs(x[:, 0]) * 2).astype(np.int8) % 4
    seen = AnchorRows(whole, 4)
    seen.add(x, whole.features(x), y)
    network = whole.keyed().segmented(tuple(range(READ.start, READ.stop)))
    given = np.concatenate([x, codes_of(np.array(["a", "b"] * 60, dtype=object))], axis=1)
    none, steps = np.zeros(len(y), dtype=np.bool_), np.zeros(len(y), dtype=np.int32)
    rows = HealRows(network.features(given), y, np.full_like(y, -1), steps, none)
    built = Recipes(network, seen.anchor(), HealSettings(recipe="anchored"))
    before = AdapterState(network.adapter.state_dict(), {})
    outcome = built.heal(before, HealTask("h", 1, "", "anchored", rows))
    assert not np.array_equal(outcome.probabilities_before, outcome.probabilities_after)
    assert np.allclose(outcome.probabilities_after.sum(axis=1), 1.0)
    packed, base = (
        Packed.of(outcome.after.weights),
        make_base(network, {}, {"labels": list("abcd")}),
    )
    again = assemble(base, unpack(packed.data, sha256=packed.sha256, where="v"), where="v")
    assert np.array_equal(again.predict(given), outcome.probabilities_after)
