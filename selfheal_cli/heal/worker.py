"""The heal worker's process: reads tasks, heals, answers; ends with its parent."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal import wire
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealRows, HealTask
from selfheal_cli.installed import handed_over, take_over
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import rebuild
from selfheal_cli.model.threads import use_one_thread


def main(connection: Connection) -> None:
    """Serve tasks until the other end closes; the first frame is the recipes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    use_one_thread()
    with suppress(EOFError, OSError):  # the parent was killed, which may be at any time
        recipes = decode_recipes(connection.recv_bytes())
        _warm_up(recipes)  # before the parent learns that it is ready: it waits for that once
        connection.send_bytes(wire.encode({"ready": True}, {}))
        while True:
            connection.send_bytes(_answer(connection.recv_bytes(), recipes))


def encode_recipes(recipes: Recipes) -> bytes:
    """The first frame to a worker: network, anchor and settings.

    The backbone, which may be large, is sent only where a recipe moves its inputs.
    """
    backbone = recipes.needs_backbone
    network = recipes.network if backbone else recipes.network.without_backbone()
    header = {
        "architecture": network.architecture.as_dict(),
        "settings": recipes.settings.model_dump(),
        "backbone": backbone,
        "handed": [[kind, name] for kind, name in recipes.others() if handed_over(kind, name)],
    }
    weights = {f"network/{name}": value for name, value in network.state_dict().items()}
    anchor = {f"anchor/{name}": value for name, value in recipes.anchor.tensors().items()}
    return wire.encode(header, {**weights, **anchor})


def decode_recipes(frame: bytes) -> Recipes:
    """The inverse of `encode_recipes`."""
    header, tensors = wire.decode(frame)
    for kind, part in header["handed"]:
        take_over(kind, part)
    anchor = {n.removeprefix("anchor/"): t for n, t in tensors.items() if n.startswith("anchor/")}
    weights = {n.removeprefix("network/"): t for n, t in tensors.items() if n not in anchor}
    adapter = {
        name.removeprefix("adapter."): value
        for name, value in weights.items()
        if name.startswith("adapter.")
    }
    base = {
        name: value
        for name, value in weights.items()
        if not name.startswith(("adapter.", "anchor/"))
    }
    architecture = Architecture(**header["architecture"])
    network = rebuild(architecture, base, adapter, backbone=header["backbone"])
    settings = HealSettings.model_validate(header["settings"])
    return Recipes(network, Anchor.from_tensors(anchor), settings)


def _warm_up(recipes: Recipes) -> None:
    """Heal on two empty rows once, so that the first real heal is as fast as the rest."""
    features = np.zeros((2, recipes.network.architecture.features), dtype=np.float32)
    labels = np.array([0, 1], dtype=np.int8)
    arrival, held_out = np.zeros(2, dtype=np.int32), np.zeros(2, dtype=bool)
    rows = HealRows(features, labels, labels, arrival, held_out)
    task = HealTask("warm-up", 0, "", recipes.settings.recipe, rows)
    with suppress(HealError):  # a recipe may refuse such rows
        recipes.heal(AdapterState(recipes.network.adapter.state_dict(), {}), task)


def _answer(frame: bytes, recipes: Recipes) -> bytes:
    task, before = wire.decode_task(frame)
    try:
        return wire.encode_outcome(recipes.heal(before, task))
    except (HealError, OSError, RuntimeError, ValueError) as exc:
        return wire.encode_failure(exc)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
