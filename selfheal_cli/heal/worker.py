"""The heal worker's own process: reads tasks, heals, answers; lives as long as its parent."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

import numpy as np

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal import wire
from selfheal_cli.heal.healer import AdapterState, HealTask, heal
from selfheal_cli.model.network import SelfHealingNetwork, Weights, rebuild, use_one_thread


def main(connection: Connection, base: bytes, settings: dict[str, object]) -> None:
    """Serve tasks until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    use_one_thread()
    header, tensors = wire.decode(base)
    adapter = {
        name.removeprefix("adapter."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith("adapter.")
    }
    network = rebuild(header["inputs"], header["hidden"], tensors, adapter)
    heal_settings = HealSettings.model_validate(settings)
    _warm_up(network, adapter, heal_settings)
    connection.send_bytes(wire.encode({"ready": True}, {}))
    while True:
        try:
            frame = connection.recv_bytes()
        except (EOFError, OSError):
            return
        connection.send_bytes(_answer(frame, network, heal_settings))


def _warm_up(network: SelfHealingNetwork, adapter: Weights, settings: HealSettings) -> None:
    """Heal on nothing of interest once, so that the first real heal is as fast as the rest."""
    rows = np.zeros((2, network.sizes[0]), dtype=np.float32)
    labels = np.array([0, 1], dtype=np.int8)
    task = HealTask("warm-up", 0, "", rows, labels, labels, 0.0)
    heal(network, AdapterState(adapter, {}), task, settings)


def _answer(frame: bytes, network: SelfHealingNetwork, settings: HealSettings) -> bytes:
    task, before = wire.decode_task(frame)
    try:
        return wire.encode_outcome(heal(network, before, task, settings))
    except (HealError, RuntimeError) as exc:
        return wire.encode({"error": " ".join(str(exc).split())}, {})
