"""An order to the process that talks to the registry, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfheal_cli.spool.board import Board

LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an order; ``status`` is HTTP's word for it."""

    status: int
    document: Mapping[str, Any]

    @property
    def error(self) -> str:
        """What went wrong, empty where nothing did."""
        return "" if self.status == 200 else str(self.document.get("error", "it was refused"))


async def ask(board: Board, kind: str, argument: Mapping[str, Any], seconds: float) -> Answer:
    """Have it done, and wait for what comes of it; an order that nobody took is taken back.

    200 where it was done, 409 where it was refused, 503 where no answer came in ``seconds``.
    Raises `NotWritten` where the board cannot be used.
    """
    number = await asyncio.to_thread(board.order, kind, argument)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = await asyncio.to_thread(board.answer_of, number)
        if found is not None:
            return Answer(200 if found.get("ok") else 409, found)
        if loop.time() >= end:
            break
        await asyncio.sleep(LOOK_SECONDS)
    if await asyncio.to_thread(board.withdraw, number):
        text = f"nobody took the order in {seconds:g} s: is the healer up? Nothing was done"
    else:
        text = (
            f"the order was taken and not answered in {seconds:g} s: it may still be carried out; "
            "look at the champion before asking again"
        )
    return Answer(503, {"ok": False, "error": text})
